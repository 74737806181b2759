"""`fastslow watch`: a run as it is now, on one screen of a terminal."""

import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fastslow.core.progress import minutes
from fastslow.core.text import shorten
from fastslow.records.cells import Cell
from fastslow.results.live.snapshot import LIVING, RunWatch, Snapshot

BARS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 60
"""Columns of the curve; longer ones are averaged."""
MAX_TASKS = 12
"""Columns of the matrix; the report has all of them."""
NAMES = {
    "average_accuracy": "average accuracy",
    "learning_accuracy": "learning accuracy",
    "bwt_gem": "backward transfer",
    "forgetting_chaudhry": "forgetting",
    "kl_fst": "KL to the base",
    "rollouts": "rollouts to train",
    "tokens": "tokens drawn",
}
"""Figures that are shown, by their names in the records."""
SIGNED = ("bwt_gem", "forgetting_chaudhry")
STYLES = {"running": "bold green", "finished": "bold", "interrupted": "bold yellow"}
"""Of states; all others ask for attention."""


def watch(run: RunWatch, console: Console, interval_s: float, once: bool) -> Snapshot:
    """Show a run until it ends, or once; gives the last snapshot.

    A console that is no terminal gets the run once.
    """
    snapshot = run.look()
    if once or not console.is_terminal or snapshot.state not in LIVING:
        console.print(view(snapshot))
        return snapshot
    with Live(view(snapshot), console=console, auto_refresh=False) as live:
        while snapshot.state in LIVING:
            time.sleep(interval_s)
            snapshot = run.look()
            live.update(view(snapshot), refresh=True)
    return snapshot


def view(snapshot: Snapshot) -> RenderableType:
    """One screen about a run; whatever it quotes is visible characters only."""
    state = Text(snapshot.state, STYLES.get(snapshot.state, "bold red"))
    head = Text.assemble(shorten(snapshot.name, 60), "  ", state)
    if snapshot.card is None:
        return Group(head, Text(shorten(snapshot.reason, 300)))
    clock = f"{minutes(snapshot.elapsed_s)} elapsed"
    if snapshot.remaining_s is not None:
        clock += f", about {minutes(snapshot.remaining_s)} remaining"
    place = f"{shorten(snapshot.place, 100)} {shorten(snapshot.step, 20)}".rstrip()
    lines: list[RenderableType] = [head, Text(f"{place}  [{clock}]")]
    if snapshot.curve:
        values = [value for _, value in snapshot.curve]
        lines.append(Text(f"{snapshot.curve_name} {sparkline(values)} now {values[-1]:.3f}"))
    if snapshot.cells:
        lines.append(_matrix(snapshot))
    if figures := figure_words(snapshot):
        lines.append(Text("  ".join(f"{name} {value}" for name, value in figures)))
    for sample in snapshot.samples[-1:]:
        answer = f"{shorten(sample.question, 70)} -> {shorten(sample.completion, 70)}"
        lines.append(Text(f"last sample: {answer} | {shorten(sample.outcome, 60)}", "dim"))
    return Group(*lines)


def figure_words(snapshot: Snapshot) -> list[tuple[str, str]]:
    """The figures of the last whole row, with their names for people, those that are defined."""
    return [
        (words, figure_text(name, snapshot.metrics[name]))
        for name, words in NAMES.items()
        if name in snapshot.metrics
    ]


def figure_text(name: str, value: float) -> str:
    """A figure of a row as people read it."""
    if name in ("rollouts", "tokens"):
        return f"{value:,.0f}"
    return f"{value:+.2f}" if name in SIGNED else f"{value:.2f}"


def sparkline(values: Sequence[float], width: int = CURVE_WIDTH) -> str:
    """A curve as a line of bars from its lowest to its highest value; means where it is longer."""
    size = -(-len(values) // width)
    pieces = [values[start : start + size] for start in range(0, len(values), size or 1)]
    means = [sum(piece) / len(piece) for piece in pieces]
    low, span = min(means, default=0.0), max(means, default=0.0) - min(means, default=0.0)
    levels = [(mean - low) / span if span else 0.5 for mean in means]
    return "".join(BARS[min(len(BARS) - 1, int(level * len(BARS)))] for level in levels)


def row_names(snapshot: Snapshot) -> list[str]:
    """A name for each row of the matrix that was begun."""
    stages = snapshot.card.stages if snapshot.card else ()
    names = ["0 base", *(f"{number} {task}" for number, task in enumerate(stages, 1))]
    return names[: len(snapshot.cells)]


def _matrix(snapshot: Snapshot) -> Table:
    assert snapshot.card is not None
    table = Table(box=None, pad_edge=False, title=None)
    table.add_column("after stage")
    for task in snapshot.card.tasks[:MAX_TASKS]:
        table.add_column(shorten(task, 20), justify="right")
    for name, cells in zip(row_names(snapshot), snapshot.cells, strict=True):
        table.add_row(shorten(name, 24), *(_cell(cell) for cell in cells[:MAX_TASKS]))
    return table


def _cell(cell: Cell) -> Text:
    if cell.score is None:
        return Text("…", "dim")
    if cell.phase == "learned":
        return Text(f"{cell.score:.2f}*", "bold")
    return Text(f"{cell.score:.2f} ", "" if cell.phase == "seen" else "dim")
