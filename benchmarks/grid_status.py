"""How long a look at every run of a large ablation takes, by the number of its run folders.

    python -m benchmarks.grid_status                  # 500 and 2000 folders; seconds
    python -m benchmarks.grid_status --runs 10000     # half a minute, most of it making the folders

The folders are empty but for the card that says whose they are. What is timed is what `fastslow
ablate` does before it starts and whenever a run ends: the state of all runs, and of one.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import write_figures
from fastslow.results.ablation import Plan, read_plan

FILE = Path("configs/ablations/channels-tiny.yaml")


def make_folders(runs_dir: Path, seeds: int) -> Plan:
    """A run folder for every run of the tiny ablation under so many seeds."""
    plan = read_plan(FILE, [f"seeds={list(range(seeds))}", f"runs_dir={runs_dir}"])
    for run in plan.runs:
        folder = plan.folder / f"0101-0000-{run.name}-{run.hash[:8]}"
        folder.mkdir(parents=True)
        card = {"name": run.name, "config_hash": run.hash, "state": "finished"}
        (folder / "run.json").write_text(json.dumps(card))
    return plan


def look(plan: Plan) -> dict[str, float]:
    """Seconds that a look takes."""
    seconds = {}
    for name, runs in (("first", plan.runs), ("again", plan.runs), ("one run", plan.runs[:1])):
        began = time.perf_counter()
        states = {status.state for _, status in plan.statuses(runs)}
        seconds[name] = time.perf_counter() - began
        assert states == {"finished"}
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Print seconds for each number of runs."""
    parser = argparse.ArgumentParser(description="Looks at many run folders.")
    parser.add_argument("--runs", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--json", type=Path, help="Where to write the figures.")
    options = parser.parse_args(arguments)
    looks = {}
    for runs in options.runs:
        with tempfile.TemporaryDirectory() as place:
            plan = make_folders(Path(place), -(-runs // 3))  # three arms
            looks[len(plan.runs)] = look(plan)
        words = ", ".join(f"{name} {value:.3f} s" for name, value in looks[len(plan.runs)].items())
        print(f"{len(plan.runs)} runs: {words}", flush=True)
    if options.json:
        write_figures(options.json, {"looks": looks}, "grid_status", arguments)


if __name__ == "__main__":
    main()
