"""The files of an ablation: a page and ablation.md for people; JSON and CSV for programs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fastslow.core.types import Json
from fastslow.measure.stats.over_seeds import SeedEstimate
from fastslow.records.events import RunEvent
from fastslow.records.jsonl import read_events
from fastslow.results.ablation.arm_figures import ARM_FIGURES, figures_of
from fastslow.results.ablation.figures import FIGURES, FROZEN_TEXT_FIGURES
from fastslow.results.ablation.plan import Plan
from fastslow.results.ablation.records import RunRecord, average_guess
from fastslow.results.ablation.records_file import plain_record, records_jsonl
from fastslow.results.ablation.result import Result, read_result
from fastslow.results.ablation.tables import tables
from fastslow.results.render import encoding
from fastslow.results.render.drawing import Drawing
from fastslow.results.render.html import render
from fastslow.results.render.markdown import table_lines
from fastslow.results.render.paper import write_paper
from fastslow.results.render.writing import csv_text, write_figures, write_files


def page(result: Result, drawings: Sequence[Drawing]) -> str:
    """The text of ablation.html."""
    headline, *sentences = verdict_sentences(result)
    return render(
        "ablation.html",
        {
            "title": f"{result.config.name} · fastslow",
            "result": result,
            "headline": headline,
            "sentences": sentences,
            "drawings": drawings,
            "tables": tables(result),
        },
    )


def verdict(result: Result) -> str:
    """The ablation in a few sentences: the two arms of the claims, and how the claims do."""
    return " ".join(verdict_sentences(result))


def verdict_sentences(result: Result) -> list[str]:
    """The sentences of `verdict`; at least one."""
    if not result.records:
        return ["No run is finished yet."]
    if not result.claims:
        arms = sum(1 for arm in result.arms if arm.runs)
        return [f"{arms} arms over {len({run.seed for run in result.records})} seeds."]
    claims = result.config.claims
    assert claims is not None
    answers = Counter(claim.answer for claim in result.claims)
    counts = ", ".join(f"{answers[a]} {a}" for a in ("yes", "no", "not decidable") if answers[a])
    accuracy = {d.minus: d.estimate for d in result.differences if d.metric == "average_accuracy"}
    sentences = [
        _sentence(f"Average accuracy of {claims.fast_slow} minus {arm}", accuracy[arm])
        for arm in (claims.slow_only, claims.frozen_text)
        if arm in accuracy
    ]
    transfer = {arm.arm: arm.metrics["bwt_gem"] for arm in result.arms}
    if claims.fast_slow in transfer:
        subject = f"Backward transfer of {claims.fast_slow}"
        sentences.append(_sentence(subject, transfer[claims.fast_slow]))
    return [*filter(None, sentences), f"Claims put to the test: {counts}."]


def _sentence(subject: str, estimate: SeedEstimate | str) -> str:
    if isinstance(estimate, str) or estimate.low is None or estimate.high is None:
        return ""
    alone = " over examples of one seed" if estimate.sd is None else ""
    limits = f"[{estimate.low:+.2f}, {estimate.high:+.2f}]"
    return f"{subject}: {estimate.mean:+.2f} {limits}{alone}."


SCHEMA_VERSION = 2
"""Raised when a key of ablation.json changes its meaning or goes. In version 1 the claim of sample
efficiency was about the slow arm's best point, and arms were held against references of others."""


def write_ablation(plan: Plan) -> Result:
    """Compute the result of the finished runs and write it into the ablation's folder.

    Errors as of `read_result`, and `CheckpointError` if the folder cannot be written.
    """
    result = read_result(plan)
    write_result(result, plan.folder)
    write_files(plan.folder, {"runs.csv": runs_csv(plan).encode()})
    return result


def write_result(result: Result, folder: Path) -> None:
    """Write all that follows from the result alone into a folder, as `write_files` does."""
    figures = figures_of(result)
    texts = {
        "ablation.html": page(result, figures),
        "ablation.md": markdown(result, figures),
        "ablation.json": json_text(result),
        "records.jsonl": records_jsonl(result),
        "arms.csv": arms_csv(result),
        "differences.csv": differences_csv(result),
    }
    write_files(folder, {name: text.encode() for name, text in texts.items()})
    write_figures(folder, figures, (*ARM_FIGURES, *FIGURES, *FROZEN_TEXT_FIGURES))


def ablation_for_paper(plan: Plan | None, result: Result, folder: Path) -> tuple[Path, ...]:
    """Write tables, figures with their data and sources; errors as of `write_paper`.

    Without a plan the sources are those of every ablation.
    """
    runs = plan.runs if plan else ()
    configs = [run.config.model_dump(mode="json") for run in runs]
    return write_paper(folder, tables(result), figures_of(result), configs)


def markdown(result: Result, figures: Sequence[Drawing] = ()) -> str:
    """The text of ablation.md; its pictures lie next to it, under figures/."""
    lines = [f"# Ablation {result.config.name}", ""]
    for table in tables(result):
        lines += table_lines(table)
    for drawing in figures:
        lines += [f"![{drawing.title}](figures/{drawing.name}.png)", "", drawing.caption, ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def json_text(result: Result) -> str:
    """The text of ablation.json, as docs/report-schema.md describes it."""
    chance = average_guess(result.records)
    content: dict[str, Json] = {
        "schema_version": SCHEMA_VERSION,
        "name": result.config.name,
        "config": result.config.model_dump(mode="json"),
        "missing": list(result.missing),
        "search": [asdict(trial) for trial in result.search],
        "runs": [_run(record) for record in result.records],
        "arms": {
            arm.arm: {
                "planned": arm.planned,
                "runs": arm.runs,
                "tasks": list(arm.tasks),
                "rollouts": arm.rollouts,
                "kl_fst": estimate_json(arm.kl),
                "metrics": {name: estimate_json(mean) for name, mean in arm.metrics.items()},
                "gains": {task: estimate_json(gain) for task, gain in arm.gains.items()},
            }
            for arm in result.arms
        },
        "chance": chance and {"constant": chance[0], "uniform": chance[1]},
        "differences": [
            {
                "metric": difference.metric,
                "arm": difference.arm,
                "minus": difference.minus,
                "holm": difference.holm,
                **estimate_json(difference.estimate),
            }
            for difference in result.differences
        ],
        "claims": {claim.name: asdict(claim) for claim in result.claims},
        "frozen_text_claims": {claim.name: asdict(claim) for claim in result.frozen_text_claims},
    }
    return encoding.json_text(content)


def estimate_json(estimate: SeedEstimate | str) -> dict[str, Json]:
    """An estimate as plain data; without a value, with its reason."""
    if isinstance(estimate, str):
        return {"value": None, "reason": estimate}
    content = asdict(estimate)
    del content["p_value"], content["sources"]
    per_seed = {str(seed): value for seed, value in estimate.per_seed.items()}
    named = {"value": content.pop("mean"), "sign_flip": content.pop("test")}
    return content | named | {"reason": None, "per_seed": per_seed}


def _run(record: RunRecord) -> dict[str, Json]:
    keys = ("arm", "seed", "order", "config_hash", "tasks", "stages", "scores", "rollouts")
    plain = plain_record(record)
    kl = [{"row": row, "task": task, "value": value} for (row, task), value in record.kl.items()]
    return {key: plain[key] for key in keys} | {"kl_fst": kl}


def arms_csv(result: Result) -> str:
    """One line per arm and metric."""
    rows: list[Sequence[object]] = []
    for arm in result.arms:
        for name, estimate in (*arm.metrics.items(), ("kl_fst", arm.kl)):
            rows.append([arm.arm, arm.runs, name, *_numbers(estimate)])
        for name, rollouts in arm.rollouts.items():
            rows.append([arm.arm, arm.runs, f"rollouts_{name}", float(rollouts), *[None] * 3])
    return csv_text(("arm", "runs", "metric", "mean", "sd", "low", "high"), rows)


def differences_csv(result: Result) -> str:
    """One line per paired difference."""
    rows: list[Sequence[object]] = []
    for difference in result.differences:
        estimate = difference.estimate
        tail: list[float | None] = [None, None]
        if not isinstance(estimate, str):
            tail = [estimate.detectable, estimate.test.p_value if estimate.test else None]
        names = (difference.arm, difference.minus, difference.metric)
        rows.append([*names, *_numbers(estimate), *tail, difference.holm])
    header = ("arm", "minus", "metric", "mean", "sd", "low", "high", "detectable", "p", "holm")
    return csv_text(header, rows)


def runs_csv(plan: Plan) -> str:
    """One line per planned run: its folder, its status, its seconds."""
    rows = []
    for run, status in plan.statuses():
        folder = seconds = None
        if status.path is not None:
            folder = status.path.name
            events = read_events(status.path / "events.jsonl")
            if marks := [event.seconds for event in events if isinstance(event, RunEvent)]:
                seconds = f"{max(marks):.1f}"
        rows.append([run.arm, run.seed, run.order, run.hash, status.state, folder, seconds])
    return csv_text(("arm", "seed", "order", "config_hash", "status", "folder", "seconds"), rows)


def _numbers(estimate: SeedEstimate | str) -> list[float | None]:
    if isinstance(estimate, str):
        return [None] * 4
    return [estimate.mean, estimate.sd, estimate.low, estimate.high]
