"""The files of a comparison: compare.html and compare.md for people, compare.json, scores.csv."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fastslow.records.cells import Cell
from fastslow.results.compare.data import ArmRun, Contrast, RunComparison, comparison_json
from fastslow.results.compare.tables import comparison_tables, verdicts
from fastslow.results.reading import read_object
from fastslow.results.render import drawing, encoding
from fastslow.results.render.encoding import ends
from fastslow.results.render.html import render
from fastslow.results.render.layout import narrow
from fastslow.results.render.markdown import inline, table_lines
from fastslow.results.render.paper import write_paper
from fastslow.results.render.writing import csv_text, require_no_run, write_figures, write_files
from fastslow.results.report.sections.tasks import Tasks

NAMES = ("compare-scores", *(f"compare-differences-{number}" for number in range(1, 7)))
"""Stems of the figures."""
MAX_ARMS = 12
"""Arms drawn; the tables have all of them."""


def write_comparison(comparison: RunComparison, folder: Path) -> tuple[Path, ...]:
    """Write compare.html, compare.md, compare.json, scores.csv and figures/ into a folder.

    Raises:
        ConfigError: The folder is a run folder, whose own files these would replace.
        CheckpointError: It cannot be written.
    """
    require_no_run("--out", folder, "Its scores.csv would be replaced; give another folder.")
    drawings = figures(comparison)
    texts = {
        "compare.html": page(comparison, drawings),
        "compare.md": markdown(comparison),
        "compare.json": json_text(comparison),
        "scores.csv": scores_csv(comparison),
    }
    write_figures(folder, drawings, NAMES)
    return write_files(folder, {name: text.encode() for name, text in texts.items()})


def comparison_for_paper(comparison: RunComparison, folder: Path) -> tuple[Path, ...]:
    """Write tables, figures with their data and sources; errors as of `write_paper`."""
    paths = [run.report.path / "config.json" for arm in comparison.arms for run in arm.runs]
    configs = [read_object(path) for path in paths]
    return write_paper(folder, comparison_tables(comparison), figures(comparison), configs)


def json_text(comparison: RunComparison) -> str:
    """The text of compare.json."""
    data = comparison_json(comparison, verdicts(comparison))
    # settings as they were given: 1e-9 is not 0
    return encoding.json_text(data, settings=comparison.settings)


def markdown(comparison: RunComparison) -> str:
    """The text of compare.md."""
    lines = [f"# Against {inline(comparison.arms[0].name)}", ""]
    for verdict in verdicts(comparison):
        lines += [f"**{inline(verdict)}**", ""]
    for table in comparison_tables(comparison):
        lines += table_lines(table)
    return "\n".join(lines).rstrip("\n") + "\n"


def scores_csv(comparison: RunComparison) -> str:
    """The text of scores.csv: base, learned and final score of each task in each run."""
    rows = [
        [arm.name, run.run, run.seed, task, phase, cell.score, *ends(cell.interval), cell.n]
        for arm in comparison.arms
        for run in arm.runs
        for task, phase, cell in _cells(run)
    ]
    header = ("arm", "run", "seed", "task", "phase", "score", "low", "high", "n")
    return csv_text(header, rows)


def _cells(run: ArmRun) -> Iterator[tuple[str, str, Cell]]:
    """Task, phase and cell of every score that the files show."""
    for summary in run.report.section(Tasks).summaries:
        phases = {"base": summary.base, "learned": summary.learned, "final": summary.final}
        for phase, cell in phases.items():
            if cell is not None:
                yield summary.task, phase, cell


def page(comparison: RunComparison, drawings: Sequence[drawing.Drawing]) -> str:
    """The text of compare.html."""
    return render(
        "compare.html",
        {
            "title": f"{comparison.arms[0].name} compared · fastslow",
            "comparison": comparison,
            "headline": f"Compared with {comparison.arms[0].name}",
            "verdicts": verdicts(comparison),
            "drawings": drawings,
            "tables": [narrow(table) for table in comparison_tables(comparison)],
        },
    )


def figures(comparison: RunComparison) -> tuple[drawing.Drawing, ...]:
    """Final scores of all arms, then the differences of each arm from the baseline."""
    drawings = [_scores(comparison)]
    for number, _ in enumerate(comparison.comparisons[: len(NAMES) - 1]):
        if (figure := _differences(comparison, number)) is not None:
            drawings.append(figure)
    return tuple(drawings)


def _scores(comparison: RunComparison) -> drawing.Drawing:
    tasks, arms = comparison.tasks[: drawing.MAX_TASKS], comparison.arms[:MAX_ARMS]
    num_arms = len(arms)
    step = 0.7 / max(1, num_arms)

    def paint(figure: drawing.Figure) -> None:
        axes = figure.add_subplot()
        for number, arm in enumerate(arms):
            look = drawing.series(number) | {"ls": "none"}
            name: str | None = drawing.label(arm.name)
            for task, phase, cell in (line for run in arm.runs for line in _cells(run)):
                if phase != "final" or task not in tasks or cell.score is None:
                    continue
                y = tasks.index(task) + (number - (num_arms - 1) / 2) * step
                drawing.interval_line(axes, y, ends(cell.interval), look["color"])
                axes.plot(cell.score, y, label=name, clip_on=False, **look)
                name = None
        for y, task in enumerate(tasks):
            if (guess := comparison.guesses.get(task)) is not None:
                drawing.guess_marks(axes, guess, y, 0.4)
        names = [drawing.label(task) for task in tasks]
        drawing.named_rows(axes, range(len(tasks)), names, "score at the end, with 95 % interval")
        axes.set_ylim(len(tasks) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        drawing.legend(axes, 2)

    return drawing.draw(
        NAMES[0],
        "Scores at the end",
        "Final score of every task in every run, each run with its own 95 % interval. Whether two "
        "differ is read from the paired differences, not from whether these overlap."
        + drawing.GREY_CAPTION
        * bool(comparison.guesses),
        paint,
        height=1.1 + len(tasks) * (0.2 + 0.14 * num_arms) + 0.18 * (num_arms // 2),
    )


def _differences(comparison: RunComparison, number: int) -> drawing.Drawing | None:
    arm, rows = comparison.comparisons[number], list[drawing.Row]()
    words = {"final": "at the end", "learned": "learned", "change": "forgetting"}
    for task in comparison.tasks[: drawing.MAX_TASKS]:
        for quantity, contrasts in arm.tasks.items():
            for contrast in contrasts:
                if contrast.name == task and contrast.difference is not None:
                    rows.append(_difference_row(contrast, words[quantity]))
    if not rows:
        return None

    def paint(figure: drawing.Figure) -> None:
        axes = drawing.grouped_rows(figure, rows, "difference of scores, with 95 % interval")
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, -0.1), max(high, 0.1))

    return drawing.draw(
        NAMES[number + 1],
        f"{drawing.label(arm.arm)} against {drawing.label(comparison.arms[0].name)}",
        "Paired differences of each task; right of zero is better, for forgetting too. Filled: "
        "significant at 5 % after Holm's correction over tasks.",
        paint,
        height=drawing.grouped_height(rows),
    )


def _difference_row(contrast: Contrast, name: str) -> drawing.Row:
    value, look = contrast.difference or 0.0, {"marker": "o", "color": drawing.MUTED}
    if contrast.is_significant:
        look["color"] = drawing.ACCENT if value > 0 else drawing.LOSS
    else:
        look["mfc"] = drawing.PAPER
    return drawing.Row(contrast.name, name, value, (contrast.low, contrast.high), look)
