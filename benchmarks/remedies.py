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

from benchmarks.keeping import REFERENCE, ROOT, keep_figures
from fastslow.records.events import CycleEvent, GuessEvent, RemedyEvent
from fastslow.records.jsonl import read_events, read_scores
from fastslow.results.report import build_report
from fastslow.results.report.sections.cost import Cost

FILE = REFERENCE / "remedies.json"
CONFIG = "configs/ablations/planted-remedies.yaml"
FIRST, SECOND = "word_valence", "country_continent"


def read_run(run: Path) -> dict[str, Any]:
    """The figures of one finished run."""
    report = build_report(run)
    columns = {task: column for column, task in enumerate(report.card.tasks)}
    learned, final = (report.cells[row][columns[FIRST]].score for row in (1, 2))
    second = report.cells[2][columns[SECOND]].score
    assert learned is not None
    assert final is not None
    rows = read_scores(run / "scores.jsonl")
    events = read_events(run / "events.jsonl")
    remedies = [e for e in events if isinstance(e, RemedyEvent)]
    return {
        "learned": learned,
        "final": final,
        "drop": learned - final,
        "constant": next(
            e.guess.constant_score for e in events if isinstance(e, GuessEvent) and e.task == FIRST
        ),
        "second": second,
        "weights": next(r.sample.weights for r in rows if r.row == 2 and r.sample.task == FIRST),
        "seconds": report.section(Cost).seconds,
        "gradient_shares": [
            value
            for event in events
            if isinstance(event, CycleEvent)
            for name, value in event.metrics.items()
            if name.endswith("/gradient_share")
        ],
        "remedy_rollouts": sum(event.rollouts for event in remedies),
        "remedy_seconds": sum(e.seconds + e.update_seconds for e in remedies),
        "remedy_bytes": max((event.bytes for event in remedies), default=0),
    }


def remedy_lines() -> list[str]:
    """The part of docs/results.md, as far as there are figures."""
    if not FILE.is_file():
        return []
    data = json.loads(FILE.read_text())
    arms: dict[str, dict[str, Any]] = data["arms"]
    lines = [
        "## Remedies against a planted failure",
        "",
        f"Made by `{data['command']}`, then `python -m benchmarks.remedies`. The second stage",
        f"teaches {SECOND} at a rate that destroys {FIRST}, as in planted-destructive.yaml. Test",
        "scores, 64 examples a task; means over seeds, single seeds in brackets. Gradient: norm of",
        "what the remedies add over that of the task's own, mean over the second stage. Rollouts,",
        "seconds and megabytes are the remedies' own, the mean of a run.",
        "",
        f"| arm | {FIRST} learned | at the end | its drop | {SECOND} after its stage | gradient "
        "| rollouts | seconds | MB kept |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for arm, runs in arms.items():
        shares = [share for run in runs.values() for share in run["gradient_shares"]]
        cells = [_over_seeds(runs, name) for name in ("learned", "final", "drop", "second")]
        share = f"{fmean(shares):.2f}" if shares else "-"
        rollouts, seconds, size = (
            fmean(run[f"remedy_{name}"] for run in runs.values())
            for name in ("rollouts", "seconds", "bytes")
        )
        costs = f"{rollouts:.0f} | {seconds:.1f} | {size / 1e6:.1f}"
        lines.append(f"| {arm} | {' | '.join(cells)} | {share} | {costs} |")
    return [*lines, "", *_halved(arms), ""]


def _over_seeds(runs: dict[str, Any], name: str) -> str:
    values = [run[name] for run in runs.values()]
    return f"{fmean(values):.2f} ({', '.join(f'{value:.2f}' for value in values)})"


def _halved(arms: dict[str, dict[str, Any]]) -> list[str]:
    """Which remedies halve the drop at a second score not lower by more than 0.05."""
    if "none" not in arms:
        return []
    drop, second = (_mean(arms["none"], name) for name in ("drop", "second"))
    halved: list[str] = []
    dear: list[str] = []
    for arm, runs in arms.items():
        if _mean(runs, "drop") <= drop / 2:
            is_cheap = _mean(runs, "second") >= second - 0.05
            (halved if is_cheap else dear).append(arm)
    rest = [arm for arm in arms if arm not in (*halved, *dear, "none")]
    constant = _mean(arms["none"], "constant")
    above = [arm for arm, runs in arms.items() if _mean(runs, "final") > constant + 0.05]
    return [
        f"Half the drop of `none` or less, at a score of {SECOND} at most 0.05 lower: "
        f"{_names(halved)}. Half the drop, at a lower score: {_names(dear)}. More than half: "
        f"{_names(rest)}.",
        "",
        f"A constant answer scores {constant:.2f} on {FIRST}: what is not above that is no longer "
        f"the task. At the end more than 0.05 above it: {_names(above)}. Strengths were looked for "
        "under these seeds.",
    ]


def _mean(runs: dict[str, Any], name: str) -> float:
    return fmean(run[name] for run in runs.values())


def _names(arms: list[str]) -> str:
    return ", ".join(f"`{arm}`" for arm in arms) or "none"


def main() -> None:
    """Keep the figures of the ablation's runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    runs = ROOT / "runs" / "planted-remedies"
    parser.add_argument("folder", nargs="?", type=Path, default=runs, help="of the ablation's runs")
    folder = parser.parse_args().folder
    keep_figures(folder, FILE, f"fastslow ablate {CONFIG}", read_run)


if __name__ == "__main__":
    main()
