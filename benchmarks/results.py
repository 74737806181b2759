"""Keeps reference runs and writes docs/results.md and the README's table from them.

    python -m benchmarks.results                       # write reports and documents again
    python -m benchmarks.results --keep RUN NAME       # first keep a run as runs/reference/NAME
    python -m benchmarks.results --keep-ablation DIR   # first keep the records of an ablation

A reference run is a run folder without its weights: `fastslow report` works on it. Of an ablation
its records.jsonl is kept. No figure in the documents is typed by hand.
"""

import argparse
import json
import shlex
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean

from benchmarks import ablations, arenas, prediction
from benchmarks.endurance import endurance_lines
from benchmarks.keeping import REFERENCE, ROOT, keep, kept, write_kept_report
from benchmarks.load import load_lines
from benchmarks.power import power_lines
from benchmarks.remedies import remedy_lines
from benchmarks.renewal import renewal_lines
from benchmarks.speed import speed_lines
from fastslow.core.types import PromptPolicy
from fastslow.records.events import CycleEvent
from fastslow.records.jsonl import read_events, read_scores
from fastslow.results.render.markdown import table_lines
from fastslow.results.report import Report, build_report
from fastslow.results.report.sections.cost import Cost
from fastslow.results.report.sections.origin import Environment
from fastslow.results.report.verdict import verdict

QUESTIONS = {
    "demo": "What does a small real model keep of three tasks learned one after the other?",
    "planted-gentle": "A control: is the report quiet where nothing was harmed?",
    "planted-destructive": "A planted failure: does the report see it?",
    "demo-shrink": "Shrink: how much smaller can an adapter be and keep its gain?",
    "demo-kl-budget": "KL budget: a stage stops where it has moved far enough",
    "distill": "Distillation: can the gain of a prompt be carried into the weights?",
    "distill-grpo": "Policy gradient on the bare problem, at the rollouts of the distillation",
    "gepa": "GEPA: what does an instruction bring that the small base rewrites itself?",
    "agnews": "AG News: does a text open a task that gives no reward without one?",
    "agnews-slow-only": "AG News, the same run without texts",
}
"""Reference runs in the order of the document, with the question each answers."""
SHOWN_TABLES = 2
"""Of each report: the score matrix and the tasks; the others are in the run's own report.md."""
ARENAS = {
    "arena-listed": "answers listed, any wording counts",
    "arena-orders": "the same, tasks in reverse",
    "arena-long": "six tasks, answers listed",
    "arena-drift": "the task changes under way",
    "arena-hidden": "answers hidden: no reward without a prompt",
    "channels-demo": "answers hidden: no reward without a prompt, untuned",
    "channels-text": "texts, answers hidden: no reward without a prompt",
}
"""Arenas in the order of the first table, fair ones first, and what each is like."""
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def results() -> str:
    """The text of docs/results.md."""
    lines = [
        "# Results",
        "",
        "Every figure here is computed from the raw records in `runs/reference/`; this file is",
        "written by `python -m benchmarks.results`. A run is kept with",
        "`python -m benchmarks.results --keep RUN NAME`, an ablation with `--keep-ablation DIR`.",
        "Single runs have one seed: their intervals are over test examples, not over seeds.",
        "",
        *payoff_lines(),
        *arenas.arena_lines(),
        *power_lines(),
    ]
    reports = {name: build_report(REFERENCE / name) for name in QUESTIONS if kept(name)}
    for name, report in reports.items():
        lines += [f"## {QUESTIONS[name]}", ""]
        lines += [f"Run `runs/reference/{name}`, made by `{shlex.join(report.card.command)}`.", ""]
        lines += [machine(report), "", f"**{verdict(report)}**", ""]
        for table in islice(report.tables(), SHOWN_TABLES):
            lines += [
                f"##{line}" if line.startswith("## ") else line for line in table_lines(table)
            ]
        whole = f"../runs/reference/{name}/report.md"
        lines += [f"Every metric with its formula: [runs/reference/{name}/report.md]({whole});"]
        lines += [f"as a page with figures: `fastslow report runs/reference/{name}`.", ""]
        lines += kl_budget_lines(name)
    if {"agnews", "agnews-slow-only"} <= set(reports):
        lines += with_and_without(reports["agnews"], reports["agnews-slow-only"])
    lines += [*distillation_lines(), *remedy_lines(), *renewal_lines()]
    lines += speed_lines() + prediction_lines() + endurance_lines() + load_lines()
    return "\n".join(lines).rstrip("\n") + "\n"


def prediction_lines() -> list[str]:
    """What kept runs were expected to take, and took."""
    if not (rows := prediction.table()):
        return []
    return [
        "## What does a run take, as `fastslow check` expects it and in truth?",
        "",
        "Made by `python -m benchmarks.prediction` from the estimate that each run kept.",
        "",
        *rows,
        "",
    ]


def kl_budget_lines(name: str) -> list[str]:
    """Where the stages of a run with a KL budget ended, as the slow channel measured it."""
    config = json.loads((REFERENCE / name / "config.json").read_text())
    budget = (config["slow"] or {}).get("kl_budget")
    if budget is None:
        return []
    events = [
        e for e in read_events(REFERENCE / name / "events.jsonl") if isinstance(e, CycleEvent)
    ]
    ends = {e.stage: e.metrics for e in events if "slow/kl_tuned_base" in e.metrics}
    return [
        f"Stage {stage + 1} ended at {found['slow/kl_tuned_base']:.3f} nats per token of its "
        f"budget of {budget}, measured on its own rollouts; "
        f"{'the budget ended it' if found['slow/kl_budget_hit'] else 'it was not spent'}."
        for stage, found in ends.items()
    ] + [""]


def with_and_without(with_texts: Report, without: Report) -> list[str]:
    """The two AG News runs side by side."""
    lines = [
        "## AG News: with texts the score leaves zero, without texts it stays",
        "",
        "| run | base | after the stage | slow rollouts | fast rollouts | minutes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for label, report in (("with texts", with_texts), ("without texts", without)):
        base, after = report.cells[0][0].score, report.cells[1][0].score
        cost = report.section(Cost)
        rollouts = cost.rollouts
        lines.append(
            f"| {label} | {base:.2f} | {after:.2f} | {rollouts['slow']} | {rollouts['fast']} "
            f"| {cost.seconds / 60:.0f} |"
        )
    return [*lines, ""]


def distillation_lines() -> list[str]:
    """Weights and prompts of the two runs on one task, each with and without the other."""
    names = [name for name in ("distill", "distill-grpo") if kept(name)]
    if not names:
        return []
    lines = [
        "## What do the weights know without the prompt?",
        "",
        "Test scores of the runs above, under the task's seed prompt and under the evolved one.",
        "",
        "| run | base, seed | base, evolved | tuned, seed | tuned, evolved | slow, fast rollouts |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in names:
        cells: dict[tuple[int, PromptPolicy], list[float]] = {}
        for score in read_scores(REFERENCE / name / "scores.jsonl"):
            if score.cycle is None:
                cells.setdefault((score.row, score.sample.prompt_policy), []).append(
                    score.sample.score
                )
        places: list[tuple[int, PromptPolicy]] = [(0, "seed"), (0, "own"), (1, "seed"), (1, "own")]
        columns = " | ".join(f"{fmean(cells[place]):.2f}" for place in places)
        rollouts = build_report(REFERENCE / name).section(Cost).rollouts
        lines.append(f"| {name} | {columns} | {rollouts['slow']}, {rollouts['fast']} |")
    return [*lines, ""]


def readme_block(report: Report) -> str:
    """What the README's first screen shows: the demonstration, and the ablations."""
    matrix = report.tables()[0]
    shown = [line for line in table_lines(matrix) if not line.startswith("## ")]
    demonstration = ["What `make demo` ended with:", "", f"**{verdict(report)}**", *shown]
    return "\n".join([BEGIN, "", *payoff_lines(), *demonstration, END])


def payoff_lines() -> list[str]:
    """The first table of README and results: when two channels beat a simpler way."""
    return list(table_lines(arenas.payoff(ARENAS)))


def machine(report: Report) -> str:
    """One line about where a run was made."""
    e = report.section(Environment).environment
    packages = e["packages"]
    assert isinstance(packages, dict)
    versions = ", ".join(f"{p} {packages[p]}" for p in ("torch", "transformers", "trl", "dspy"))
    return (
        f"{e['cpus']} CPU cores ({e['machine']}), {e['device']}, Python {e['python']}, {versions}; "
        f"{report.section(Cost).seconds / 60:.1f} minutes."
    )


def readme(text: str, block: str) -> str:
    """`text` with the part between the markers replaced by `block`, markers included."""
    before, rest = text.split(BEGIN, 1)
    return before + block + rest.split(END, 1)[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Keep a run if asked to, then write kept reports, docs/results.md and the README's table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", nargs=2, metavar=("RUN", "NAME"), help="keep RUN as NAME")
    parser.add_argument("--keep-ablation", type=Path, metavar="DIR", help="keep DIR's records")
    options = parser.parse_args(arguments)
    if options.keep_ablation:
        folder = options.keep_ablation
        if folder.name not in ablations.QUESTIONS:
            known = ", ".join(ablations.QUESTIONS)
            parser.error(f"--keep-ablation: got {folder.name!r}. Known: {known}.")
        print(ablations.keep_ablation(folder))
    if options.keep:
        run, name = options.keep
        if name not in QUESTIONS:
            parser.error(f"--keep: got {name!r}. Known: {', '.join(QUESTIONS)}.")
        print(keep(Path(run), name))
    for name in filter(kept, QUESTIONS):
        write_kept_report(name)
    ablations.write_details()
    (ROOT / "docs" / "results.md").write_text(results(), encoding="utf-8")
    page = ROOT / "README.md"
    block = readme_block(build_report(REFERENCE / "demo"))
    page.write_text(readme(page.read_text(encoding="utf-8"), block), encoding="utf-8")
    print("docs/results.md and README.md written")


if __name__ == "__main__":
    main()
