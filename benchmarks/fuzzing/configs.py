"""Mutated configurations: trees, YAML syntax, bytes, chains of `extends`, overrides.

Each is handed to what `fastslow check` runs, and what it accepts is written and read back as
`train` and `resume` do with config.json.
"""

import copy
import json
import os
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from benchmarks.fuzzing.values import WORDS, hostile, mutate_bytes, mutate_tree, places
from fastslow.cli.check import check
from fastslow.config.loading.load import config_hash, dump_resolved, load_config, load_resolved
from fastslow.results.ablation import is_ablation

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""A billion laughs."""
SYNTAX = (
    BOMB,
    "seed: 1\nseed: 2\n",
    "base: &b {seed: 1}\n<<: *b\n",
    "seed: !!python/object/apply:os.system ['true']\n",
    "? [a, b]\n: 1\n",
    "name: |\n  a\n  b\n",
    "---\nseed: 1\n---\nseed: 2\n",
    "x: " + "[" * 200 + "]" * 200 + "\n",
    "x: " + "{a: " * 200 + "}" * 200 + "\n",
    "'" + "k" * 2000 + "': 1\n",
    '"\\ud800": 1\n',
    "\tseed: 1\n",
    "&a a: *a\n",
    "!!str seed: !!int '3'\n",
    "seed: 1 # \x1b[31m\n",
    '"\\x1b[2Jname": "\\x1b]0;title\\x07"\n',
)
"""Text put in front of, or behind, a configuration."""


STARTING = ("allow_code: true", "managed: true", "fst-paper.yaml")
"""In files that ask for programs to be run, or extend one: `check` tries whether they can be."""


@cache
def corpus() -> tuple[str, ...]:
    """Texts that mutations start from: every shipped file, runs in resolved form too.

    But for files that ask for programs, since a program is what no case may start.
    """
    shipped = {file: file.read_text(encoding="utf-8") for file in sorted(CONFIGS.rglob("*.yaml"))}
    files = [file for file, text in shipped.items() if not any(w in text for w in STARTING)]
    texts = [shipped[file].replace("../", "") for file in files]
    runs = [file for file in files if file.parent.name != "base" and not is_ablation(file)]
    return (*texts, *(dump_resolved(load_config((file,)).config) for file in runs))


@cache
def tree_of(text: str) -> Any:
    """What a text of the corpus holds; not to be changed."""
    return yaml.safe_load(text)


def config_case(draw: random.Random, folder: Path) -> Callable[[], object]:
    """A configuration, perhaps in several files and with overrides, and what `check` does."""
    texts = [_text(draw) for _ in range(draw.choice((1, 1, 1, 1, 3)))]
    for index, data in enumerate(texts):
        (folder / f"{index}.yaml").write_bytes(data)
    for name in ("base", "experiments", "tests"):
        (folder / name).symlink_to(CONFIGS / name)
    if draw.random() < 0.2:
        _strange_file(draw, folder / "strange.yaml")
    overrides = [_override(draw) for _ in range(draw.choice((0, 0, 0, 1, 3)))]
    asked = folder / draw.choice(("0.yaml",) * 9 + ("strange.yaml", "missing.yaml"))
    if draw.random() < 0.5:
        return lambda: check([str(asked), *(text for text in overrides if "=" in text)])
    return lambda: read_back(asked, overrides, folder)


def read_back(file: Path, overrides: list[str], folder: Path) -> None:
    """Write what loads as config.json and read it again, as runs do."""
    loaded = load_config((file,), overrides)
    resolved = folder / "config.json"
    resolved.write_text(dump_resolved(loaded.config), encoding="utf-8")
    again = load_resolved(resolved)
    assert again.config == loaded.config, "config.json reads back as another run"
    assert config_hash(again.config) == config_hash(loaded.config)


def _text(draw: random.Random) -> bytes:
    """One configuration file."""
    text = draw.choice(corpus())
    if draw.random() < 0.7:
        tree = copy.deepcopy(tree_of(text))
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            tree = mutate_tree(tree, draw)
        if isinstance(tree, dict) and draw.random() < 0.3:
            tree["extends"] = _extends(draw)
        text = _written(tree, draw)
    if draw.random() < 0.15:
        extra = draw.choice(SYNTAX)
        lines = text.splitlines(keepends=True)
        at = draw.choice((0, len(lines), draw.randrange(len(lines) + 1)))
        text = "".join([*lines[:at], extra, *lines[at:]])
    data = text.encode("utf-8", "surrogatepass")
    for _ in range(draw.choice((0, 0, 0, 0, 0, 1, 3))):
        data = mutate_bytes(data, draw)
    return data


def _written(tree: Any, draw: random.Random) -> str:
    """A tree as JSON, or as YAML in one of its styles."""
    if draw.random() < 0.4:
        return json.dumps(tree, ensure_ascii=draw.random() < 0.5)
    try:
        return yaml.safe_dump(tree, default_flow_style=draw.choice((True, False, None)))
    except (yaml.YAMLError, RecursionError):
        return json.dumps(tree)


def _extends(draw: random.Random) -> Any:
    known = ("1.yaml", "2.yaml", "0.yaml", "base/smollm2-135m.yaml", "base/fst-laptop.yaml",
             "experiments/demo.yaml", "strange.yaml", ".", "base")  # fmt: skip
    pick = [
        draw.choice((*known, *known, draw.choice(WORDS))) for _ in range(draw.choice((1, 2, 9)))
    ]
    return draw.choice((pick, pick[0], [pick], hostile(draw)))


def _strange_file(draw: random.Random, path: Path) -> None:
    """Something at a path that is no regular file, or a very large one."""
    kind = draw.randrange(5)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to(path)
    elif kind == 2:
        path.symlink_to("/dev/zero")
    elif kind == 3:
        path.mkdir()
    else:
        path.write_bytes(b"a: " + b"x" * 2_000_000)


def _override(draw: random.Random) -> str:
    """`key=value`, mostly of a key there is."""
    tree = tree_of(draw.choice(corpus()))
    keys: list[str] = []
    at: Any = tree
    while isinstance(at, dict | list) and at and (not keys or draw.random() < 0.8):
        _, key = draw.choice([place for place in places(at) if place[0] is at])
        keys.append(str(key))
        at = at[key]
    name = ".".join(keys) if draw.random() < 0.9 else draw.choice(WORDS)
    value = hostile(draw)
    as_text = value if isinstance(value, str) else json.dumps(value)
    return f"{name}={as_text}" if draw.random() < 0.95 else f"{name}{as_text}"
