"""Run folders and folders of ablations that somebody prepared, and every command that takes one."""

import contextlib
import importlib
import io
import json
import multiprocessing
import os
import platform
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from urllib.parse import quote

from benchmarks.fuzzing.attacks import ATTACKS, OF_RUNS, Place, fit_checksums
from benchmarks.fuzzing.configs import ROOT
from benchmarks.fuzzing.folders import Folder, probe_curve, read_folder, write_folder
from benchmarks.fuzzing.judging import OUTSIDE
from benchmarks.fuzzing.running import EXIT_CODES, Exit
from benchmarks.fuzzing.values import FORMULAS, WORDS
from fastslow.cli.main import main
from fastslow.core.errors import FastSlowError
from fastslow.core.files import is_file, read_json
from fastslow.records.seal import KEY_VARIABLE, folder_digest, sha256_of_prefix

KEY = "the key of whoever runs the commands"
OVERRIDES = (
    *("runs_dir=runs", "tracking={kind: custom, use: quiet}", "evaluation.neutral=false"),
    *("evaluation.channel_split=false", "model.name=model"),
)
TRACKER = """
from fastslow.plugins import Tracker, TrackerConfig, tracker


class Quiet(TrackerConfig):
    pass


@tracker(name="quiet", source="ours")
def quiet(config: Quiet) -> Tracker:
    return Tracker()
"""
PLANTED = """
import os

os.mkdir({mark!r})
"""
HELD_OUT = "word_language"
COMMANDS: Mapping[str, int] = {
    "runs runs": 6,
    "runs runs --json": 4,
    "report RUN": 4,
    "report RUN --recompute": 8,
    "report RUN --full": 3,
    "report RUN --json": 2,
    "report RUN --paper out": 1,
    "gate RUN": 8,
    "gate RUN --recompute": 5,
    "gate RUN --json --strict": 3,
    "gate RUN --against runs/ours": 3,
    "gate runs/ours --against RUN": 4,
    "prompts RUN": 5,
    "prompts RUN --trace stage-1": 3,
    "prompts RUN --diff stage-1 stage-2": 3,
    "rollback RUN --to 1": 5,
    "export RUN": 5,
    "export RUN --stage 1 --out out": 3,
    "export RUN --merge": 1,
    "resume RUN": 5,
    "resume RUN publish=null": 2,
    f"probe RUN --task {HELD_OUT}": 2,
    "track RUN": 6,
    "signals RUN": 3,
    "retention RUN --suite none": 1,
    "push RUN": 3,
    "push RUN file://HERE/store": 6,
    "push RUN file://HERE/store --stage 1": 3,
    "push RUN file://HERE/store --export EXPORT": 3,
    "compare RUN runs/ours": 4,
    "compare runs/ours RUN --json": 3,
    "compare runs/ours RUN --full": 2,
    "compare RUN runs/ours --out out": 1,
    "compare RUN runs/ours --paper out": 1,
    "watch RUN --once": 6,
    "diff RUN runs/ours": 4,
    "diff runs/ours RUN": 4,
    "check RUN": 2,
    "ablate --from ABLATION": 5,
    "ablate --from ABLATION --full": 3,
    "ablate --from ABLATION --paper out": 1,
    "serve": 8,
    "open_run": 8,
}
"""Commands, the pages of `serve` and the frames of `open_run`, and how often each is drawn."""
ACTS = ("resume", "probe", "track", "export", "signals", "retention", "push")
"""Those that follow what a configuration names, where they may."""
GOES_ON = ("gate", "rollback", *ACTS)
"""Those that judge, ship or go on from what a folder holds."""
FRAMES = (
    *("state", "config", "scores", "events", "metrics", "matrix", "report", "prompts"),
    *("adapter", "show", "_repr_html_", "predict"),
)
PAGES = (
    *("/", "/part/runs", "/run/KEY", "/part/now/KEY", "/part/record/KEY", "/report/KEY"),
    *("/compare?run=KEY&run=ours", "/ablation/KEY"),
)
STATUSES = (200, 404, 422)
SPOILT = (AssertionError, AttributeError, LookupError, OSError, TypeError, ValueError)
"""What a second attack may raise on what the first has left."""


def folder_case(draw: random.Random, folder: Path) -> Callable[[], object]:
    """A folder that somebody prepared, next to one of the user's own, and a command on it."""
    [command] = draw.choices(list(COMMANDS), list(COMMANDS.values()))
    is_ablation = "ABLATION" in command or (command == "serve" and draw.random() < 0.3)
    _lay_out(folder)
    target = folder / "runs" / ("ablation" if is_ablation else "theirs")
    names = [name for name in ATTACKS if not (is_ablation and name in OF_RUNS)]
    attacks = draw.choices(names, k=draw.choice((1, 1, 1, 1, 2)))
    place = Place(target, folder.parent / OUTSIDE)
    first, *others = attacks
    ATTACKS[first](draw, place)
    for name in others:
        with contextlib.suppress(*SPOILT):
            ATTACKS[name](draw, place)
    if draw.random() < 0.7:
        fit_checksums(target)
    seal = draw.choice(("kept", "kept", "fitted", "none"))
    _reseal(target, seal)
    if draw.random() < 0.15:
        target = _renamed(target, draw)
    words = _words(command, target, folder)
    if words[0] in ACTS and "an_address" not in attacks and draw.random() < 0.5:
        words.append("--trust")
    is_refusal = len(attacks) == 1 and _must_refuse(words, attacks[0], seal)
    act: Callable[[], object] = partial(_run, words, is_refusal)
    if command == "serve":
        act = partial(_serve, folder / "runs", target.name, ("/", *draw.sample(PAGES, 2)))
    elif command == "open_run":
        act = partial(_open_run, target, draw.sample(FRAMES, 5), "an_address" not in attacks)
    return partial(_at, folder, act)


def _must_refuse(words: Sequence[str], attack: str, seal: str) -> bool:
    """Whether the one attack is of a kind that this command must not go on from."""
    command = words[0]
    if "runs/ours" in words[:2]:
        return False
    if attack == "no_points":
        return command == "resume"
    if attack in ("an_edit", "settings", "an_address") and seal == "kept":
        return command in GOES_ON
    is_overridden = any("=" in word or "://" in word for word in words)
    return attack == "an_address" and command in ACTS and not is_overridden


def _at(folder: Path, act: Callable[[], object]) -> object:
    with contextlib.chdir(folder):
        return act()


def _run(words: Sequence[str], is_refusal: bool) -> Exit:
    """A command as a user gives it; long lines of what is meant to be whole are folded."""
    if not {"--json", "--full"} & {*words}:
        return Exit(main(words), is_refusal)
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            return Exit(main(words), is_refusal)
    finally:
        _say(out.getvalue())


def _say(text: str) -> None:
    """Print a text that may have lines of any length."""
    for start in range(0, len(text), 1000):
        print(text[start : start + 1000])


def _serve(root: Path, name: str, pages: Sequence[str]) -> None:
    from fastslow.results.live.server import build_app
    from tests.support.asgi import ask

    app, key = build_app(root), quote(name, safe="", errors="surrogateescape")
    for page in pages:
        answer = ask(app, page.replace("KEY", key))
        assert answer.status in STATUSES, f"{page}: status {answer.status}"
        _say(answer.text)


def _open_run(path: Path, frames: Sequence[str], trust: bool) -> None:
    """Frames of a run; the first error comes after all of them were asked for."""
    import fastslow

    run, errors = fastslow.open_run(path, trust=trust), list[FastSlowError]()
    for name in frames:
        try:
            if name == "predict":
                run.predict("word_valence", ["good"])
            elif name in ("adapter", "show"):
                getattr(run, name)()
            elif name == "_repr_html_":
                _say(run._repr_html_())  # what notebooks ask for
            else:
                getattr(run, name)
        except FastSlowError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _words(command: str, target: Path, folder: Path) -> list[str]:
    exports = sorted((target / "export").glob("*")) if (target / "export").is_dir() else []
    relative = target.relative_to(folder)
    places = {
        "RUN": str(relative),
        "ABLATION": str(relative),
        "EXPORT": str(exports[0] if exports else relative / "export" / "missing"),
    }
    return [places.get(word, word.replace("HERE", str(folder))) for word in command.split()]


def _lay_out(folder: Path) -> None:
    """A folder of runs, one of which will be prepared, with what the user has around it."""
    os.environ[KEY_VARIABLE] = KEY
    os.environ["FASTSLOW_HOME"] = str(folder / "home")
    for name, files in handed_over().items():
        write_folder(folder / name, files)
    mark = folder.parent / OUTSIDE / "imported"
    modules = folder / "modules"
    modules.mkdir()
    (modules / "planted_by_others.py").write_text(PLANTED.format(mark=str(mark)))
    if str(modules) not in sys.path:
        sys.path.append(str(modules))
    sys.modules.pop("planted_by_others", None)
    importlib.invalidate_caches()


def _reseal(run: Path, how: str) -> None:
    """Leave the seal, make it fit without the key, or take it away."""
    path = run / "seal.json"
    if how == "kept" or not is_file(path) or path.is_symlink():
        return
    if how == "none":
        path.unlink()
        return
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        seal = read_json(path)
        seal["config"] = sha256_of_prefix(run / "config.json")
        for stem, prefix in seal["records"].items():
            prefix["bytes"] = (run / f"{stem}.jsonl").stat().st_size
            prefix["sha256"] = sha256_of_prefix(run / f"{stem}.jsonl", prefix["bytes"])
        seal["folders"] = {name: folder_digest(run / name) for name in seal["folders"]}
        path.write_text(json.dumps(seal, indent=2) + "\n", encoding="utf-8")


def _renamed(target: Path, draw: random.Random) -> Path:
    """The folder under a name that a file system can hold."""
    names = [word.replace("/", "_").replace("\0", "_")[:80] for word in (*WORDS, *FORMULAS)]
    name = draw.choice([name for name in names if name.strip(".") and not name.startswith("-")])
    with contextlib.suppress(OSError, UnicodeEncodeError):
        return target.rename(target.with_name(name))
    return target.rename(target.with_name(os.fsdecode(b"\xff\xfe\x9b31m")))


@cache
def handed_over() -> Mapping[str, Folder]:
    """Folders by name: two runs of one configuration, an ablation, model and tracker.

    Made in a process of its own, so that threads of a training are not forked.
    """
    import matplotlib.font_manager  # noqa: F401  makes its cache in the user's folder, once

    platform.processor()  # libraries ask for it, and a program tells, once
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_make).result()


def _make() -> Mapping[str, Folder]:
    from collections import Counter

    from fastslow.config.loading.load import load_config
    from fastslow.loop import launch
    from fastslow.results.ablation.records_file import records_jsonl
    from fastslow.results.ablation.result import make_result
    from fastslow.results.deploy.rollback import roll_back
    from fastslow.results.report import write_report
    from tests.support.made_ablation import both_and_slow, config
    from tests.support.tiny import save_tiny

    os.environ[KEY_VARIABLE] = KEY
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        root = Path(place)
        save_tiny(root / "model")
        (root / "trackers").mkdir()
        (root / "trackers" / "quiet.py").write_text(TRACKER)
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            loaded = load_config([ROOT / "configs" / "tests" / "tiny.yaml"], OVERRIDES)
            run = launch.train(loaded, ["fastslow", "train", "tiny.yaml"], write_report)
            ours = read_folder(run)
            for command in ("gate", "export"):
                assert main([command, str(run)]) in EXIT_CODES
            roll_back(run, 2)
        theirs = read_folder(run)
        for row in (0, 2):
            name = f"probe/{HELD_OUT}/row-{row:03d}-seed-0.json"
            theirs[name] = probe_curve(HELD_OUT, row)
        result = make_result(config(), both_and_slow(), Counter({"both": 3, "slow": 3}))
        return {
            "model": read_folder(root / "model"),
            "trackers": read_folder(root / "trackers"),
            "runs/ours": ours,
            "runs/theirs": theirs,
            "runs/ablation": {"records.jsonl": records_jsonl(result).encode()},
        }
