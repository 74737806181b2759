"""Mutated run folders, resume points and model folders."""

import json
import os
import pickle
import random
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.fuzzing.configs import ROOT
from benchmarks.fuzzing.values import hostile, mutate_bytes, mutate_tree
from tests.support.run_folder import write_run
from tests.support.tiny import save_tiny

Folder = Mapping[str, bytes]
"""Files of a folder by relative path."""

FAMILIES = ("llama", "qwen2")


def run_case(draw: random.Random, folder: Path) -> Callable[[], object]:
    """A run folder that was edited or damaged, and the commands that read one."""
    from fastslow.cli import report

    path = folder / "run"
    write_folder(path, _mutated(run_folder(), draw))
    if draw.random() < 0.1:
        _strange(draw, path)
    acts: list[Callable[[], object]] = [
        lambda: report.report(path),
        lambda: report.report(path),
        lambda: report.report(path, recompute=True),
        lambda: report.prompts(path),
        lambda: report.prompts(path, trace="stage-1"),
        lambda: report.prompts(path, diff=("stage-1", "stage-2")),
    ]
    return draw.choice(acts)


@cache
def run_folder() -> Folder:
    """A small finished run, with one record of every kind and two curves of a probe."""
    import matplotlib.font_manager  # noqa: F401  makes its cache in the user's folder, once

    with tempfile.TemporaryDirectory() as folder:
        made = read_folder(write_run(Path(folder)))
    reference = ROOT / "runs" / "reference" / "demo-shrink"
    kinds: dict[str, bytes] = {}
    for line in (reference / "events.jsonl").read_bytes().splitlines(keepends=True):
        event = json.loads(line)
        kinds.setdefault(f"{event['event']} {event.get('kind')}", line)
    made["events.jsonl"] = b"".join(kinds.values()) + made["events.jsonl"]
    made["report.json"] = made["run.json"]
    for row in (0, 3):
        made[f"probe/delta/row-{row:03d}-seed-0.json"] = probe_curve("delta", row)
    return made


def probe_curve(task: str, row: int) -> bytes:
    """What a probe keeps of a task that is learned from the weights of a row."""
    curve: dict[str, Any] = {"task": task, "row": row, "seed": 0, "at": [0, 5]}
    curve["settings"] = {"adapter": "continue", "kind": "sft"}
    curve |= {"scores": [[0.0, 1.0]] * 2, "rollouts": 4, "seconds": 1.0}
    return json.dumps(curve).encode()


def resume_case(draw: random.Random, folder: Path) -> Callable[[], object]:
    """Resume points that were edited, checksums and all, and what `resume` does with them."""
    from fastslow.channels.fast.dspy_programs import load_program
    from fastslow.channels.slow.settings import GrpoConfig
    from fastslow.core.files import checksums
    from fastslow.loop.build import build_slow
    from fastslow.loop.launch import restore
    from fastslow.records.run_folder import RunDir

    files = dict(resume_folder())
    point = {name: files.pop(name) for name in list(files) if name.startswith("resume/")}
    path = folder / "run"
    write_folder(path, files | _mutated(point, draw))
    if draw.random() < 0.8:  # else damage that the checksums find
        for inner in (path / "resume").glob("*"):
            if inner.is_dir() and not (inner / "checksums.json").is_dir():
                (inner / "checksums.json").write_text(json.dumps(checksums(inner)))
    if draw.random() < 0.1:
        _strange(draw, path)
    if draw.random() < 0.1:
        program = json.dumps(mutate_tree(json.loads(files["program.json"]), draw)).encode()
        (path / "program.json").write_bytes(mutate_bytes(program, draw))
        return lambda: load_program(path / "program.json")
    policy = _policy()

    def act() -> None:
        with RunDir.open(path) as run_dir:
            restore(run_dir, policy, [build_slow(GrpoConfig(), seed=0)])

    return act


@cache
def resume_folder() -> Folder:
    """A run folder with two resume points of a policy that has texts."""
    from fastslow.channels.fast.dspy_programs import save_programs
    from fastslow.channels.slow.settings import GrpoConfig
    from fastslow.core.prompts import Candidate
    from fastslow.core.types import Evidence
    from fastslow.loop.build import build_slow
    from fastslow.records.run_folder import RunDir
    from fastslow.records.state import RunState
    from tests.support.run_folder import text_of

    policy, slow = _policy(), build_slow(GrpoConfig(), seed=0)
    with tempfile.TemporaryDirectory() as folder:
        path = write_run(Path(folder))
        policy.populations = {"alpha": (Candidate(text_of("alpha"), {"e0": 1.0}),)}
        policy.live = {"alpha": text_of("alpha")}

        def parts(point: Path) -> None:
            policy.save(point / "policy")
            (point / "slow").mkdir()
            slow.save(point / "slow")

        with RunDir.open(path) as run_dir:
            for cycle in (0, 1):
                evidence = [Evidence("e0", "yes", 1.0, "correct")]
                run_dir.save_state(RunState(1, cycle, True, evidence=evidence), parts)
        save_programs(policy, path / "programs")
        made = read_folder(path)
    [program] = [n for n in made if n.startswith("programs/") and text_of("alpha").text_hash in n]
    made["program.json"] = made[program]
    return made


@cache
def _policy() -> Any:
    from fastslow.policy.policy import load_policy, with_adapter

    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder) / "model", model_folder("llama"))
        base = load_policy(str(Path(folder) / "model"))
    return with_adapter(base, rank=2, alpha=4, target_modules=("q_proj",), seed=0)


class Payload:
    """What a pickle runs when it is opened."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/fastslow-hostile-pickle",)


def model_case(draw: random.Random, folder: Path) -> Callable[[], object]:
    """A model folder that was edited, cut off or made to run code."""
    from fastslow.config.cost import model_shape
    from fastslow.policy.model_store import resolve
    from fastslow.policy.policy import load_policy

    path = folder / "model"
    files = _mutated(model_folder(draw.choice(FAMILIES)), draw)
    if draw.random() < 0.3:
        _add_code(files, draw)
    write_folder(path, files)
    if draw.random() < 0.05:
        _strange(draw, path)

    def act() -> None:
        model_shape(str(path))
        policy = load_policy(resolve(str(path)).path_or_id)
        policy.renderer.prompt_ids(next(iter(_texts())), "question")

    return act


def _texts() -> list[Any]:
    from tests.support.run_folder import text_of

    return [text_of("alpha")]


def _add_code(files: dict[str, bytes], draw: random.Random) -> None:
    """Pickled weights next to or in place of others, and code that a config points to."""
    opened = pickle.dumps(Payload())
    name = draw.choice(("pytorch_model.bin", "model.pt", "model.pkl", "training_args.bin"))
    files[name] = opened
    if draw.random() < 0.5:
        files.pop("model.safetensors", None)
    if draw.random() < 0.3:
        files["model.safetensors"] = opened
    if draw.random() < 0.5 and "config.json" in files:
        files["evil.py"] = b"import os\nos.system('touch /tmp/fastslow-hostile-code')\n"
        config = json.loads(model_folder("llama")["config.json"])
        auto = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
        files["config.json"] = json.dumps(config | {"auto_map": auto}).encode()


@cache
def model_folder(family: str) -> Folder:
    """A tiny model of a real architecture."""
    with tempfile.TemporaryDirectory() as folder:
        return read_folder(save_tiny(Path(folder), family))


def _mutated(files: Folder, draw: random.Random) -> dict[str, bytes]:
    """One to three files changed: as a tree, as lines, as bytes, or gone."""
    made = dict(files)
    for _ in range(draw.choice((1, 1, 2, 3))):
        name = draw.choice(sorted(made))
        how = draw.random()
        if how < 0.05:
            del made[name]
        elif how < 0.7 and name.endswith((".json", ".jsonl")):
            made[name] = _mutated_json(made[name], name.endswith(".jsonl"), draw)
        elif how < 0.75:
            made[name] = json.dumps(hostile(draw)).encode()
        else:
            made[name] = mutate_bytes(made[name], draw)
        if not made:
            break
    return made


def _mutated_json(data: bytes, has_lines: bool, draw: random.Random) -> bytes:
    if not has_lines:
        try:
            return json.dumps(mutate_tree(json.loads(data), draw)).encode()
        except (ValueError, RecursionError):
            return mutate_bytes(data, draw)
    lines = data.splitlines(keepends=True)
    at = draw.randrange(len(lines)) if lines else 0
    how = draw.randrange(6)
    if how == 0 or not lines:
        return b"".join([*lines[:at], json.dumps(hostile(draw)).encode() + b"\n", *lines[at:]])
    if how == 1:
        return b"".join([*lines[:at], lines[at], *lines[at:]])
    try:
        changed = json.dumps(mutate_tree(json.loads(lines[at]), draw)).encode() + b"\n"
    except (ValueError, RecursionError):
        changed = mutate_bytes(lines[at], draw)
    return b"".join([*lines[:at], changed, *lines[at + 1 :]])


def _strange(draw: random.Random, folder: Path) -> None:
    """Something that is no file where one is expected."""
    names = sorted(path for path in folder.rglob("*") if path.is_file())
    path = draw.choice(names)
    path.unlink()
    kind = draw.randrange(4)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        path.symlink_to(path.name)
    elif kind == 2:
        os.mkfifo(path)
    else:
        path.symlink_to(draw.choice(("/dev/zero", folder.parent.parent / "elsewhere")))


def read_folder(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but those that say who holds it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock" and path.parent.name != "lease"
    }


def write_folder(folder: Path, files: Folder) -> None:
    """Make a folder with these files."""
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
