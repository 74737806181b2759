"""Answers of docs/questions.md: makes their figures, keeps them, and writes the page.

    python -m benchmarks.questions                  # write docs/questions.md from what is kept
    python -m benchmarks.questions readings         # make the figures of an experiment again
    python -m benchmarks.questions steering
    python -m benchmarks.questions timing
    python -m benchmarks.questions changes          # keep those of an ablation's runs
    python -m benchmarks.questions adherence
    python -m benchmarks.questions arrangements     # after `fastslow signals` on each of its runs

Figures lie in runs/reference/questions; `--model` makes those of another model, of an ablation its
configuration does. Orders of demonstrations are kept as every ablation is: `benchmarks.results`.
"""

import argparse
from pathlib import Path

from benchmarks.questions import design, setting
from benchmarks.questions.kept_runs import RUNS, keep
from benchmarks.questions.page import PAGE, page
from benchmarks.questions.readings import read_all
from benchmarks.questions.steering import steer
from benchmarks.questions.timing import time_readings
from fastslow.policy.policy import Policy


def _steering(policy: Policy) -> dict[str, object]:
    return {name: steer(policy, task) for name, task in setting.tasks().items()}


ON_A_MODEL = {"readings": read_all, "steering": _steering, "timing": time_readings}


def main() -> None:
    """Make or keep the figures that are asked for, then write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("experiments", nargs="*", choices=[[], *ON_A_MODEL, *RUNS])
    parser.add_argument("--model", default=design.MODEL, help="folder or name of the base model")
    parser.add_argument("--runs", type=Path, nargs="+", help="folders of the ablation's runs")
    arguments = parser.parse_args()
    for name in arguments.experiments:
        if name in RUNS:
            keep(name, arguments.runs or [RUNS[name]])
        else:
            figures = ON_A_MODEL[name](setting.model(arguments.model))
            design.write(name, {"model": arguments.model, "tasks": figures})
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
