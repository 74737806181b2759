"""The files of an ablation: a page and ablation.md for people; JSON and CSV for programs.

`ablation.json` and `records.jsonl` hold no path, clock or machine: the same runs give the same
bytes. Where the runs lie and how long they took is in `runs.csv`.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from fastslow.core.types import Json
from fastslow.measure.stats.over_seeds import Estimate
from fastslow.records.events import RunEvent
from fastslow.records.jsonl import read_events
from fastslow.results.ablation.figures import FIGURES, FROZEN_TEXT_FIGURES, claim_figures
from fastslow.results.ablation.plan import Plan
from fastslow.results.ablation.records import RunRecord
from fastslow.results.ablation.records_file import records_jsonl
from fastslow.results.ablation.result import Result, read_result
from fastslow.results.ablation.tables import tables
from fastslow.results.render.drawing import Drawing
from fastslow.results.render.html import render
from fastslow.results.render.markdown import table_lines
from fastslow.results.render.writing import write_figures, write_files
from fastslow.results.report.write import rounded


def page(result: Result, drawings: Sequence[Drawing]) -> str:
    """The text of ablation.html."""
    return render(
        "ablation.html",
        {
            "title": f"{result.config.name} · fastslow",
            "result": result,
            "verdict": verdict(result),
            "drawings": drawings,
            "tables": tables(result),
        },
    )


def verdict(result: Result) -> str:
    """The ablation in a few sentences: the two arms of the claims, and how the claims do."""
    if not result.records:
        return "No run is finished yet."
    if not result.claims:
        arms = sum(1 for arm in result.arms if arm.runs)
        return f"{arms} arms over {len({run.seed for run in result.records})} seeds."
    answers = Counter(claim.answer for claim in result.claims)
    counts = ", ".join(f"{answers[a]} {a}" for a in ("yes", "no", "not decidable") if answers[a])
    return f"{_difference(result)}{_transfer(result)}Claims put to the test: {counts}."


def _difference(result: Result) -> str:
    named = result.config.claims
    assert named is not None
    found = {o.minus: o.estimate for o in result.differences if o.metric == "average_accuracy"}
    return "".join(
        _said(f"Average accuracy of {named.fast_slow} minus {arm}", found[arm])
        for arm in (named.slow_only, named.frozen_text)
        if arm in found
    )


def _transfer(result: Result) -> str:
    named = result.config.claims
    assert named is not None
    for arm in result.arms:
        if arm.arm == named.fast_slow and "bwt_gem" in arm.metrics:
            return _said(f"Backward transfer of {named.fast_slow}", arm.metrics["bwt_gem"])
    return ""


def _said(what: str, found: Estimate | str) -> str:
    if isinstance(found, str) or found.low is None or found.high is None:
        return ""
    alone = " over examples of one seed" if found.sd is None else ""
    return f"{what}: {found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]{alone}. "


SCHEMA_VERSION = 1
"""Raised when a key of ablation.json changes its meaning or goes."""


def write_ablation(plan: Plan) -> Result:
    """Compute what the finished runs say and write it into the ablation's folder.

    Raises:
        CheckpointError: A record is damaged, or the folder cannot be written.
        EvaluationError: Recorded scores cannot form a matrix, or are of two versions of a task.
    """
    result = read_result(plan)
    write_result(result, plan.folder)
    write_files(plan.folder, {"runs.csv": runs_csv(plan).encode()})
    return result


def write_result(result: Result, folder: Path) -> None:
    """Write all that follows from the result alone into a folder, made if need be.

    Raises:
        CheckpointError: It cannot be written.
    """
    figures = claim_figures(result)
    texts = {
        "ablation.html": page(result, figures),
        "ablation.md": markdown(result, figures),
        "ablation.json": json_text(result),
        "records.jsonl": records_jsonl(result),
        "arms.csv": arms_csv(result),
        "differences.csv": differences_csv(result),
    }
    write_files(folder, {name: text.encode() for name, text in texts.items()})
    write_figures(folder, figures, (*FIGURES, *FROZEN_TEXT_FIGURES))


def markdown(result: Result, figures: Sequence[Drawing] = ()) -> str:
    """The text of ablation.md; its pictures lie beside it, under figures/."""
    lines = [f"# Ablation {result.config.name}", ""]
    for table in tables(result):
        lines += table_lines(table)
    for drawing in figures:
        lines += [f"![{drawing.title}](figures/{drawing.name}.png)", "", drawing.caption, ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def json_text(result: Result) -> str:
    """The text of ablation.json."""
    data = rounded(result_json(result))
    return json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n"


def result_json(result: Result) -> dict[str, Json]:
    """The result as plain data, as docs/report-schema.md describes it."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": result.config.name,
        "config": result.config.model_dump(mode="json"),
        "missing": list(result.missing),
        "runs": [_run(record) for record in result.records],
        "arms": {
            arm.arm: {
                "planned": arm.planned,
                "runs": arm.runs,
                "tasks": list(arm.tasks),
                "rollouts": arm.rollouts,
                "kl_fst": estimate_json(arm.kl),
                "metrics": {name: estimate_json(found) for name, found in arm.metrics.items()},
            }
            for arm in result.arms
        },
        "differences": [
            {
                "metric": one.metric,
                "arm": one.arm,
                "minus": one.minus,
                "holm": one.holm,
                **estimate_json(one.estimate),
            }
            for one in result.differences
        ],
        "claims": {claim.name: asdict(claim) for claim in result.claims},
        "frozen_text_claims": {claim.name: asdict(claim) for claim in result.frozen_text_claims},
    }


def estimate_json(estimate: Estimate | str) -> dict[str, Json]:
    """An estimate as plain data; without a value, with its reason."""
    if isinstance(estimate, str):
        return {"value": None, "reason": estimate}
    test = estimate.test
    return {
        "value": estimate.mean,
        "reason": None,
        "per_seed": {str(seed): value for seed, value in estimate.per_seed.items()},
        "sd": estimate.sd,
        "low": estimate.low,
        "high": estimate.high,
        "detectable": estimate.detectable,
        "covers": estimate.covers,
        "sign_flip": None if test is None else asdict(test),
    }


def _run(record: RunRecord) -> dict[str, Json]:
    return {
        "arm": record.arm,
        "seed": record.seed,
        "order": record.order,
        "config_hash": record.config_hash,
        "tasks": list(record.matrix.tasks),
        "stages": list(record.matrix.stages),
        "scores": [list(row) for row in record.matrix.rows],
        "rollouts": record.rollouts,
        "kl_fst": [
            {"row": row, "task": task, "value": value} for (row, task), value in record.kl.items()
        ],
    }


def arms_csv(result: Result) -> str:
    """One line per arm and metric."""
    lines: list[Sequence[object]] = []
    for arm in result.arms:
        for name, found in (*arm.metrics.items(), ("kl_fst", arm.kl)):
            lines.append([arm.arm, arm.runs, name, *_numbers(found)])
        for name, spent in arm.rollouts.items():
            lines.append([arm.arm, arm.runs, f"rollouts_{name}", _number(spent), "", "", ""])
    return _csv(("arm", "runs", "metric", "mean", "sd", "low", "high"), lines)


def differences_csv(result: Result) -> str:
    """One line per paired difference."""
    lines = []
    for one in result.differences:
        found, tail = one.estimate, ["", "", ""]
        if not isinstance(found, str):
            p_value = found.test.p_value if found.test else None
            tail = [_number(value) for value in (found.detectable, p_value, one.holm)]
        lines.append([one.arm, one.minus, one.metric, *_numbers(found), *tail])
    header = ("arm", "minus", "metric", "mean", "sd", "low", "high", "detectable", "p", "holm")
    return _csv(header, lines)


def runs_csv(plan: Plan) -> str:
    """One line per planned run: where it lies, how it stands, how long it took."""
    lines = []
    for run in plan.runs:
        found = plan.find(run)
        seconds: float | None = None
        if found.path is not None:
            events = read_events(found.path / "events.jsonl")
            seconds = max((e.seconds for e in events if isinstance(e, RunEvent)), default=None)
        where = found.path.name if found.path else ""
        lines.append(
            [
                run.arm,
                run.seed,
                run.order or "",
                run.hash,
                found.status,
                where,
                "" if seconds is None else f"{seconds:.1f}",
            ]
        )
    return _csv(("arm", "seed", "order", "config_hash", "status", "folder", "seconds"), lines)


def _numbers(found: Estimate | str) -> list[str]:
    if isinstance(found, str):
        return ["", "", "", ""]
    return [_number(value) for value in (found.mean, found.sd, found.low, found.high)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _csv(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return out.getvalue()
