"""Keeps reference runs and writes docs/results.md and the README's table from them.

    python -m benchmarks.results                       # write the documents anew
    python -m benchmarks.results --keep RUN NAME       # first keep a run as runs/reference/NAME

A reference run is a run folder without its weights: `fastslow report` works on it. No figure in the
documents is typed by hand.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastslow.report import Report, build_report, write_report
from fastslow.report.markdown import table_lines
from fastslow.report.tables import tables, verdict

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "runs" / "reference"
KEPT = ("run.json", "config.json", "environment.json", "scores.jsonl", "events.jsonl")
QUESTIONS = {
    "demo": "What does a small real model keep of three tasks learned one after the other?",
    "agnews": "AG News: does a text open a task that gives no reward without one?",
    "agnews-slow-only": "AG News, the same run without texts",
}
"""Reference runs in the order of the document, with the question each answers."""
WITHHELD = frozenset({"agnews", "agnews-slow-only"})
"""Runs on texts that are not ours to publish: scores are kept, texts are not."""
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
    """The record without other people's texts, and without what the model wrote about them."""
    if isinstance(data, list):
        return [withheld(item) for item in data]
    if not isinstance(data, dict):
        return data
    texts = ("question", "completion", "reason")
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
        lines += [f"Run `runs/reference/{name}`, made by `{' '.join(report.command)}`.", ""]
        lines += [machine(report), "", f"**{verdict(report)}**", ""]
        for table in tables(report):
            lines += [
                f"##{line}" if line.startswith("## ") else line for line in table_lines(table)
            ]
    if {"agnews", "agnews-slow-only"} <= set(reports):
        lines += with_and_without(reports["agnews"], reports["agnews-slow-only"])
    return "\n".join(lines).rstrip("\n") + "\n"


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
