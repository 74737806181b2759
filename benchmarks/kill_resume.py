"""Does a run or a command that was killed end as if it had not been? SIGKILL at random moments.

    python -m benchmarks.kill_resume --kills 25                # prints 25/25; about 20 minutes
    python -m benchmarks.kill_resume --kills 3 --only train --only gate --json out.json

A two-task run on a tiny model that is built in code, with both channels, every measure, a
plasticity probe and MLflow. One undisturbed run is made by a fresh `fastslow train`. Then every
kill has a run of its own: kill i of n comes at a random moment of the i-th of n equal parts of an
undisturbed run's duration, counted from when its folder appeared, and the run is resumed with
`fastslow resume`. A kill that came too late, after its run had ended, is counted and drawn again
over the whole duration.

Compared with the undisturbed run: every record but times, the score matrix, adapter and optimizer
of the last resume point and of every stage byte by byte, texts, random states, probe curves, and
what MLflow kept: the same points, none twice.

The finished run is then what other commands are given (`benchmarks/killing/commands.py` lists
them), each killed in the same way and given again: its exit code and every file that is there after
are those of a command that nothing disturbed, but for times; of those that tell MLflow also what
that kept, and of an ablation what it says.

Right after each kill, nothing under a name of its own is half written: JSON, records and adapters
can be read, and the seal of the run holds.

Importing the libraries takes longer than such a run. So the killed and resumed processes are forked
from one that has imported them and done nothing else; that they equal fresh ones is part of what is
compared. Those that an ablation starts are fresh.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.figures import write_figures
from benchmarks.killing.commands import KINDS, CommandKill, Commands
from benchmarks.killing.process import in_fork, warm_up
from benchmarks.killing.stores import new_store
from benchmarks.killing.train import Kill, Trial
from tests.support.tiny import save_tiny

ROOT = Path(__file__).parents[1]
TRAIN = "train"


def kill_all(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, Kill | CommandKill]]:
    """Every kill with the name of its kind, as it has been compared."""
    model, store = folder / "model", folder / "empty.db"
    in_fork(lambda: str(save_tiny(model)))
    in_fork(lambda: new_store(store))
    trial = Trial(folder, model, store)
    case, expected = trial.undisturbed(fresh=not options.forks)
    if TRAIN in options.only:
        for kill in trial.kills(expected, options.kills, options.workers, options.seed):
            yield TRAIN, kill
    kinds = {name: kind for name, kind in KINDS.items() if name in options.only}
    commands = Commands(case, folder)
    commands.prepare(kinds)
    for name in kinds:
        for command_kill in commands.kills(name, options.others, options.seed):
            yield name, command_kill


def figures_of(kills: Sequence[Kill | CommandKill]) -> dict[str, Any]:
    """How the kills of one kind ended."""
    return {
        "kills": len(kills),
        "identical": sum(not kill.differs for kill in kills),
        "too_late": sum(kill.too_late for kill in kills),
        "each": [asdict(kill) for kill in kills],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, go on, compare, and say how many came out the same; 1 if one did not."""
    parser = argparse.ArgumentParser(description="SIGKILL at random moments, then go on.")
    parser.add_argument("--kills", type=int, default=25, help="Of runs that train.")
    parser.add_argument("--others", type=int, help="Of each other kind (default: a fifth of them).")
    parser.add_argument("--only", action="append", choices=[TRAIN, *KINDS], help="These kinds.")
    parser.add_argument("--workers", type=int, default=2, help="Runs that train side by side.")
    parser.add_argument("--forks", action="store_true", help="No run in a fresh interpreter.")
    parser.add_argument("--seed", type=int, default=0, help="Of the moments.")
    parser.add_argument("--json", type=Path, help="Where to write the figures.")
    options = parser.parse_args(arguments)
    options.only = options.only or [TRAIN, *KINDS]
    options.others = options.others or max(2, options.kills // 5)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    started, kills = time.monotonic(), dict[str, list[Kill | CommandKill]]()
    warm_up()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        os.environ["FASTSLOW_HOME"] = str(Path(place) / "undisturbed" / "home")
        for name, kill in kill_all(Path(place), options):
            kills.setdefault(name, []).append(kill)
            print(f"{name} {len(kills[name])}: {kill}", flush=True)
    figures = {name: figures_of(made) for name, made in kills.items()}
    print(f"{sum(kind['too_late'] for kind in figures.values())} kills came too late")
    for name, kind in reversed(figures.items()):
        print(f"{name}: {kind['identical']}/{kind['kills']}")
    if options.json:
        commands = {name: kind for name, kind in figures.items() if name != TRAIN}
        seconds = {"seconds": time.monotonic() - started}
        content = {**figures.get(TRAIN, {}), **seconds, "commands": commands}
        write_figures(options.json, content, "kill_resume", arguments)
    return 0 if all(kind["identical"] == kind["kills"] for kind in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
