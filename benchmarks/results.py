"""Keeps reference runs and writes docs/results.md and the README's table from them.

    python -m benchmarks.results                       # write the documents anew
    python -m benchmarks.results --keep RUN NAME       # first keep a run as runs/reference/NAME

A reference run is a run folder without its weights: `fastslow report` works on it. No figure in the
documents is typed by hand.
"""

import argparse
import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastslow.records import CycleEvent, read_events
from fastslow.report import Report, build_report, write_report
from fastslow.report.markdown import table_lines
from fastslow.report.tables import tables, verdict

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "runs" / "reference"
KEPT = ("run.json", "config.json", "environment.json", "scores.jsonl", "events.jsonl")
QUESTIONS = {
    "demo": "What does a small real model keep of three tasks learned one after the other?",
    "demo-shrink": "Shrink: how much smaller can an adapter be and keep its gain?",
    "demo-kl-budget": "KL budget: a stage stops where it has moved far enough",
    "agnews": "AG News: does a text open a task that gives no reward without one?",
    "agnews-slow-only": "AG News, the same run without texts",
}
"""Reference runs in the order of the document, with the question each answers."""
WITHHELD = frozenset({"agnews", "agnews-slow-only"})
"""Runs on texts that are not ours to publish: scores are kept, texts are not."""
SLOW_STEP, FAST_EVAL = REFERENCE / "slow_step.json", REFERENCE / "fast_eval.json"
"""What the speed benchmarks wrote with `--json`."""
SLOW_STEP_PEAK = REFERENCE / "slow_step_peak.json"
"""What `benchmarks.slow_step --skip-stock` wrote."""
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def keep(run: Path, name: str) -> Path:
    """Copy what a report needs of `run` to runs/reference/`name`, replacing what was there."""
    folder = REFERENCE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in KEPT:
        shutil.copyfile(run / file, folder / file)
    if (run / "probe").is_dir():
        shutil.copytree(run / "probe", folder / "probe")
    if name in WITHHELD:
        for file in ("scores.jsonl", "events.jsonl"):
            rows = [withheld(json.loads(line)) for line in (run / file).read_text().splitlines()]
            (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_report(folder)
    return folder


def withheld(data: Any) -> Any:
    """The record without other people's texts, and without what the model wrote about them.

    Questions are in texts, completions in scores and, as token ids, in what the base drew; the
    reason of a score quotes its completion. The reason of a figure is ours and stays.
    """
    if isinstance(data, list):
        return [withheld(item) for item in data]
    if not isinstance(data, dict):
        return data
    if "completions" in data:
        return {**data, "completions": [[] for _ in data["completions"]]}
    texts = ("question", "completion", *(("reason",) if "completion" in data else ()))
    return {
        key: f"(withheld, {len(value)} characters)"
        if key in texts and isinstance(value, str)
        else withheld(value)
        for key, value in data.items()
    }


def results() -> str:
    """The text of docs/results.md."""
    lines = [
        "# Results",
        "",
        "Every figure here is computed from the raw records in `runs/reference/`; this file is",
        "written by `python -m benchmarks.results`. A run is kept with",
        "`python -m benchmarks.results --keep RUN NAME`. One seed each: intervals are over test",
        "examples, not over seeds.",
        "",
    ]
    reports = {name: build_report(REFERENCE / name) for name in QUESTIONS if kept(name)}
    for name, report in reports.items():
        lines += [f"## {QUESTIONS[name]}", ""]
        lines += [f"Run `runs/reference/{name}`, made by `{shlex.join(report.command)}`.", ""]
        lines += [machine(report), "", f"**{verdict(report)}**", ""]
        for table in tables(report):
            lines += [
                f"##{line}" if line.startswith("## ") else line for line in table_lines(table)
            ]
        lines += kl_budget_lines(name)
    if {"agnews", "agnews-slow-only"} <= set(reports):
        lines += with_and_without(reports["agnews"], reports["agnews-slow-only"])
    lines += slow_step_lines() if SLOW_STEP.is_file() else []
    lines += peak_lines() if SLOW_STEP_PEAK.is_file() else []
    lines += fast_eval_lines() if FAST_EVAL.is_file() else []
    return "\n".join(lines).rstrip("\n") + "\n"


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


def slow_step_lines() -> list[str]:
    """Speed of the slow channel's update."""
    found = json.loads(SLOW_STEP.read_text())
    made = dict.fromkeys(row.get("command", found["command"]) for row in found["shapes"])
    lines = [
        "## Speed: one update of the slow channel against stock TRL",
        "",
        f"Made by {' and '.join(f'`{command}`' for command in made)}.",
        f"{made_on(found['environment'])} Medians of",
        "turns taken side by side; stock in the largest micro-batch that fits.",
        "",
        "| text, problems, rollouts, question, answer | times as fast | layout | seconds | stock's "
        "micro-batch | peak memory over stock's | gradient error |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["shapes"]:
        memory = "not measured" if row["memory_ratio"] is None else f"{row['memory_ratio']:.2f}"
        lines.append(
            f"| {', '.join(map(str, row['shape']))} | {row['speedup']:.1f} | {row['layout']} "
            f"| {row['seconds']:.1f} | {row['stock_rows']} | {memory} "
            f"| {row['gradient_error']:.1e} |"
        )
    if found["whole_step"] is not None:
        lines += [
            "",
            "A whole step (sample, grade, update) at 280, 4, 8, 55, 6 is "
            f"{found['whole_step']:.1f} times as fast as stock's.",
        ]
    return [*lines, ""]


def peak_lines() -> list[str]:
    """How near the slow channel's update is to what the machine can do."""
    found = json.loads(SLOW_STEP_PEAK.read_text())
    lines = [
        f"Ours alone, by `{found['command']}`: operations over the unique tokens, as a share of",
        "what large matrix products reach in the same turns.",
        "",
        "| text, problems, rollouts, question, answer | seconds | share of the GEMM peak |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {', '.join(map(str, row['shape']))} | {row['seconds']:.1f} | {row['peak_share']:.2f} |"
        for row in found["shapes"]
    ]
    return [*lines, ""]


def fast_eval_lines() -> list[str]:
    """Speed of the fast channel's scoring."""
    found = json.loads(FAST_EVAL.read_text())
    seconds = found["seconds"]
    lines = [
        "## Speed: scoring texts, against plain DSPy and against batching",
        "",
        f"Made by `{found['command']}`. {made_on(found['environment'])} "
        f"{found['programs']} texts of {min(found['text_tokens'])} to "
        f"{max(found['text_tokens'])} tokens on "
        f"{found['examples']} examples; scores "
        f"{'identical' if found['identical'] else 'NOT identical'} on all sides.",
        "",
        "| side | seconds | ours is so many times as fast |",
        "| --- | --- | --- |",
        f"| ours | {seconds['ours']:.1f} | |",
        f"| `generate` in padded batches of {found['batched_rows']} | {seconds['batched']:.1f} "
        f"| {found['vs_batched']:.1f} |",
        f"| `dspy.Evaluate`, one request at a time | {seconds['plain']:.1f} "
        f"| {found['vs_dspy']:.1f} |",
    ]
    return [*lines, ""]


def made_on(environment: dict[str, Any]) -> str:
    """One sentence about the machine of a benchmark."""
    packages = environment["packages"]
    return (
        f"{environment['cpus_usable']} CPU cores ({environment['machine']}), "
        f"{environment['device']}, torch {packages['torch']}, trl {packages['trl']}, "
        f"dspy {packages['dspy']}."
    )


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
        rollouts = report.rollouts
        lines.append(
            f"| {label} | {base:.2f} | {after:.2f} | {rollouts['slow']} | {rollouts['fast']} "
            f"| {report.seconds / 60:.0f} |"
        )
    return [*lines, ""]


def readme_block(report: Report) -> str:
    """What the README's first screen shows of the demonstration."""
    matrix = next(iter(tables(report, headline_only=True)))
    shown = [line for line in table_lines(matrix) if not line.startswith("## ")]
    return "\n".join([BEGIN, "", f"**{verdict(report)}**", *shown, END])


def kept(name: str) -> bool:
    """Whether there is a reference run called `name`."""
    return (REFERENCE / name / "scores.jsonl").is_file()


def machine(report: Report) -> str:
    """One line about where a run was made."""
    e = report.environment
    packages = e["packages"]
    assert isinstance(packages, dict)
    versions = ", ".join(f"{p} {packages[p]}" for p in ("torch", "transformers", "trl", "dspy"))
    return (
        f"{e['cpus']} CPU cores ({e['machine']}), {e['device']}, Python {e['python']}, {versions}; "
        f"{report.seconds / 60:.1f} minutes."
    )


def readme(text: str, block: str) -> str:
    """`text` with the part between the markers replaced by `block`, markers included."""
    before, rest = text.split(BEGIN, 1)
    return before + block + rest.split(END, 1)[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Keep a run if asked to, then write docs/results.md and the README's table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", nargs=2, metavar=("RUN", "NAME"), help="keep RUN as NAME")
    options = parser.parse_args(arguments)
    if options.keep:
        run, name = options.keep
        if name not in QUESTIONS:
            parser.error(f"--keep: got {name!r}. Known: {', '.join(QUESTIONS)}.")
        print(keep(Path(run), name))
    (ROOT / "docs" / "results.md").write_text(results(), encoding="utf-8")
    page = ROOT / "README.md"
    block = readme_block(build_report(REFERENCE / "demo"))
    page.write_text(readme(page.read_text(encoding="utf-8"), block), encoding="utf-8")
    print("docs/results.md and README.md written")


if __name__ == "__main__":
    main()
