"""Kept ablations: their records without texts, and all tables and figures made from them."""

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from benchmarks.keeping import REFERENCE
from fastslow.results.ablation.arm_figures import figures_of
from fastslow.results.ablation.claims import Claim
from fastslow.results.ablation.records import RunRecord
from fastslow.results.ablation.records_file import read_records_file
from fastslow.results.ablation.result import Result
from fastslow.results.ablation.rollouts_to_best import MISSED
from fastslow.results.ablation.tables import tables
from fastslow.results.ablation.write import markdown
from fastslow.results.render.paper import latex_table, slug, table_csv

ABLATIONS = REFERENCE / "ablations"
FILES = ("records.jsonl", "runs.csv")
QUESTIONS = {
    "arena-listed": "Where reinforcement learning can learn alone: do two channels still win?",
    "arena-orders": "Does it hold when the tasks come in another order?",
    "arena-hidden": "Where the bare model sees no reward: what does each channel bring?",
    "arena-long": "Six tasks: what is forgotten where forgetting has room?",
    "arena-drift": "Does taking turns pay where a task changes under way?",
    "channels-text": "What does each channel bring on AG News, then SST-2, then DBpedia?",
    "channels-demo": "What does each channel bring on the demonstration's three tasks?",
    "orders": "Does the order of demonstrations matter, and is sparsity a good order?",
}
"""Ablations in the order of the document, with the question each answers."""
COMMANDS = {
    **{
        name: f"fastslow ablate configs/ablations/{name}.yaml --workers 2"
        for name in ("arena-listed", "arena-orders", "arena-hidden", "arena-drift")
    },
    "arena-long": "fastslow ablate configs/ablations/arena-long.yaml data=PATH --workers 2",
    "channels-text": "fastslow ablate configs/ablations/channels-text.yaml data=PATH --workers 2",
    "channels-demo": "fastslow ablate configs/ablations/channels-demo.yaml --workers 2",
    "orders": "fastslow ablate configs/ablations/orders.yaml",
}
"""What made each."""


@dataclass(frozen=True)
class Goal:
    """What was set as a goal before the ablation ran."""

    claim: str
    words: str
    bound: float
    at_least: bool
    met_if_slow_stays: bool = False
    """Whether slow only never rising above the base meets it too."""
    above_zero: bool = False
    """Whether the whole interval has to lie above zero too."""

    def is_met(self, claim: Claim) -> bool | None:
        """Whether the effect is on the goal's side; None where there is none."""
        if claim.effect is None:
            return None
        if self.above_zero and (claim.low is None or claim.low <= 0):
            return False
        return claim.effect >= self.bound if self.at_least else claim.effect <= self.bound


GOALS = {
    "channels-text": (
        Goal(
            "higher_score",
            "final average score above slow only's by 0.30 or more, the interval above zero",
            0.30,
            at_least=True,
            above_zero=True,
        ),
        Goal(
            "sample_efficiency", "slow only's best for a third of its slow rollouts", 1 / 3, False
        ),
        Goal(
            "lower_kl",
            "KL at equal score at most 0.3 of slow only's, or slow only never got there",
            0.3,
            at_least=False,
            met_if_slow_stays=True,
        ),
        Goal("plasticity", "at least 0.9 of the base's gain on a new task", 0.9, at_least=True),
    )
}
"""By ablation."""


def keep_ablation(folder: Path) -> Path:
    """Copy the records of the ablation in `folder`, its clock times and where it was made."""
    home = ABLATIONS / folder.name
    run = next(row["folder"] for row in run_rows(folder) if row["status"] == "finished")
    read = {file: (folder / file).read_bytes() for file in FILES}
    read["environment.json"] = (folder / run / "environment.json").read_bytes()
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    for file, content in read.items():
        (home / file).write_bytes(content)
    return home


def is_kept(name: str) -> bool:
    """Whether there are records of the ablation called `name`."""
    return (ABLATIONS / name / FILES[0]).is_file()


def goal_lines(goals: tuple[Goal, ...], result: Result) -> list[str]:
    """What was aimed at, and what came out."""
    if not goals:
        return []
    found = {claim.name: claim for claim in result.claims}
    stays = slow_only_stays(result)
    lines = ["| goal | measured | met |", "| --- | --- | --- |"]
    for goal in goals:
        claim = found[goal.claim]
        if claim.effect is None:
            why = "slow only never rose above the base" if stays else claim.reason
            met = "no" if (claim.reason or "").startswith(MISSED) else "-"
            met = "yes" if stays and goal.met_if_slow_stays else met
            lines.append(f"| {goal.words} | no value: {why} | {met} |")
            continue
        ends = ["?" if end is None else f"{end:.2f}" for end in (claim.low, claim.high)]
        met = "yes" if goal.is_met(claim) else "no"
        lines.append(f"| {goal.words} | {claim.effect:.2f} [{', '.join(ends)}] | {met} |")
    return [*lines, ""]


def slow_only_stays(result: Result) -> bool:
    """Whether no run of the slow channel alone ever rose above the base on a task it trained."""
    assert result.config.claims is not None
    runs = [run for run in result.records if run.arm == result.config.claims.slow_only]
    return bool(runs) and not any(_rose(run, task) for run in runs for task in run.matrix.stages)


def _rose(run: RunRecord, task: str) -> bool:
    column = run.matrix.tasks.index(task)
    base, *later = (row[column] or 0.0 for row in run.matrix.rows)
    return max(later) > base + run.noise_floor


def write_details() -> None:
    """Write every table and figure of the kept ablations again, next to their records.

    ablation.md has all of them; tables/ has each table as CSV and LaTeX.
    """
    for home in (ABLATIONS / name for name in filter(is_kept, QUESTIONS)):
        for folder in ("figures", "tables"):
            shutil.rmtree(home / folder, ignore_errors=True)
            (home / folder).mkdir()
        result = read_records_file(home / "records.jsonl")
        drawings = figures_of(result)
        text = markdown(result, drawings).replace(".png)", ".svg)")
        (home / "ablation.md").write_text(text, encoding="utf-8")
        for drawing in drawings:
            path = home / "figures" / f"{drawing.name}.svg"
            path.write_text(drawing.svg, encoding="utf-8")
        for number, table in enumerate(tables(result), start=1):
            stem = home / "tables" / f"{number:02}-{slug(table.title)}"
            stem.with_suffix(".csv").write_text(table_csv(table), encoding="utf-8")
            stem.with_suffix(".tex").write_text(latex_table(table), encoding="utf-8")


def made(home: Path, result: Result) -> str:
    """Runs, seeds, minutes and machine of a kept ablation in a sentence."""
    rows = run_rows(home)
    seconds = [float(row["seconds"]) for row in rows if row["seconds"]]
    made = json.loads((home / "environment.json").read_text())
    packages = ", ".join(
        f"{name} {made['packages'][name]}" for name in ("torch", "transformers", "trl", "dspy")
    )
    seeds = sorted({run.seed for run in result.records})
    return (
        f"{len(result.records)} of {len(rows)} runs, seeds {', '.join(map(str, seeds))}; "
        f"{sum(seconds) / 60:.0f} minutes of runs, added up, on {made['cpus']} CPU cores "
        f"({made['machine']}), Python {made['python']}, {packages}."
    )


def run_rows(home: Path) -> list[dict[str, str]]:
    """The lines of runs.csv by the names of their columns."""
    with (home / "runs.csv").open(newline="") as file:
        return list(csv.DictReader(file))
