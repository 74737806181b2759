"""Remedies where the second stage destroys the first task on purpose.

    fastslow ablate configs/ablations/planted-remedies.yaml
    python -m benchmarks.remedies        # reads its runs, keeps runs/reference/remedies.json

The table in docs/results.md is made from the kept file by `python -m benchmarks.results`.
"""

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.keeping import REFERENCE, ROOT
from fastslow.plugins import Memory, Remedy, RemedyConfig, Stage, remedy
from fastslow.records.events import CycleEvent
from fastslow.records.jsonl import read_events, read_scores
from fastslow.results.report import build_report
from fastslow.results.report.sections.cost import Cost

FILE = REFERENCE / "remedies.json"
CONFIG = "configs/ablations/planted-remedies.yaml"
FIRST, SECOND = "word_valence", "country_continent"


class Nothing(RemedyConfig):
    """No parameters."""


@remedy(name="nothing", source="a control")
def nothing(config: Nothing) -> Remedy:
    """Does nothing at all, so that a run with it must equal one without, bit for bit."""

    def begin(stage: Stage, memory: Memory) -> None:
        return None

    return Remedy(begin=begin)


def read_run(run: Path) -> dict[str, Any]:
    """The figures of one finished run."""
    report = build_report(run)
    columns = {task: column for column, task in enumerate(report.card.tasks)}
    learned, final = (report.cells[row][columns[FIRST]].score for row in (1, 2))
    second = report.cells[2][columns[SECOND]].score
    assert learned is not None
    assert final is not None
    rows = read_scores(run / "scores.jsonl")
    steps = [e for e in read_events(run / "metrics.jsonl") if not isinstance(e, CycleEvent)]
    shares = [
        value
        for event in steps
        for name, value in getattr(event, "metrics", {}).items()
        if name.endswith("/gradient_share")
    ]
    return {
        "learned": learned,
        "drop": learned - final,
        "second": second,
        "weights": next(r.sample.weights for r in rows if r.row == 2 and r.sample.task == FIRST),
        "seconds": report.section(Cost).seconds,
        "gradient_shares": shares,
    }


def keep(folder: Path) -> None:
    """Read every finished run of the ablation's folder and keep its figures."""
    runs: dict[str, dict[str, Any]] = {}
    for card in sorted(folder.glob("*/run.json")):
        data = json.loads(card.read_text())
        if data["state"] == "finished":
            arm, _, seed = data["name"].rpartition("-s")
            runs.setdefault(arm, {})[seed] = read_run(card.parent)
    command = f"fastslow ablate {CONFIG}"
    FILE.write_text(json.dumps({"command": command, "arms": runs}, indent=1) + "\n")
    print(f"written: {FILE.relative_to(ROOT)}")


def remedy_lines() -> list[str]:
    """The part of docs/results.md, as far as there are figures."""
    if not FILE.is_file():
        return []
    data = json.loads(FILE.read_text())
    arms: dict[str, dict[str, Any]] = data["arms"]
    lines = [
        "## Remedies against a planted failure",
        "",
        f"Made by `{data['command']}`, then",
        f"`python -m benchmarks.remedies`. The second stage teaches {SECOND} at a rate that",
        f"destroys {FIRST}: 1e-2 as in planted-destructive.yaml, or 6e-3. Test scores, 64",
        "examples a task; means over seeds, single seeds in brackets. The gradient's share is the",
        "norm of what the remedy adds over that of the task's own gradient.",
        "",
        f"| arm | {FIRST} learned | its drop | {SECOND} after its stage | gradient's share "
        "| minutes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for arm, runs in arms.items():
        shares = [share for run in runs.values() for share in run["gradient_shares"]]
        cells = [_over_seeds(runs, name) for name in ("learned", "drop", "second")]
        share = f"{fmean(shares):.2f}" if shares else "-"
        minutes = fmean(run["seconds"] for run in runs.values()) / 60
        lines.append(f"| {arm} | {' | '.join(cells)} | {share} | {minutes:.1f} |")
    return [*lines, "", *_controls(arms), ""]


def _over_seeds(runs: dict[str, Any], name: str) -> str:
    values = [run[name] for run in runs.values()]
    return f"{fmean(values):.2f} ({', '.join(f'{value:.2f}' for value in values)})"


def _controls(arms: dict[str, dict[str, Any]]) -> list[str]:
    """Whether doing nothing changed nothing, and whether replay halved the drop."""
    lines = []
    if {"none", "nothing"} <= arms.keys():
        pairs = [
            arms["none"][seed]["weights"] == run["weights"] for seed, run in arms["nothing"].items()
        ]
        lines.append(
            f"A remedy that does nothing left the same adapter, bit for bit, in {sum(pairs)} of "
            f"{len(pairs)} seeds."
        )
    for without, with_replay in (("none", "replay"), ("none-6e-3", "replay-6e-3")):
        if {without, with_replay} <= arms.keys():
            before, after = (
                fmean(run["drop"] for run in arms[arm].values()) for arm in (without, with_replay)
            )
            verdict = "at most half" if after <= before / 2 else "more than half"
            lines.append(f"With `{with_replay}` the drop is {verdict} of that of `{without}`.")
    return lines


def main() -> None:
    """Keep the figures of the ablation's runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    runs = ROOT / "runs" / "planted-remedies"
    parser.add_argument("folder", nargs="?", type=Path, default=runs, help="of the ablation's runs")
    keep(parser.parse_args().folder)


if __name__ == "__main__":
    main()
