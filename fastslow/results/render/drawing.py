"""The look of every figure, and how one becomes SVG and PNG.

The same data gives the same bytes: no date, no random ids, the font that Matplotlib brings along.
Labels appear as they are: the name of a task is never read as a formula or as markup.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from fastslow.core.text import shorten
from fastslow.measure.scores.guessing import Guess

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

Axes: TypeAlias = "matplotlib.axes.Axes"
Figure: TypeAlias = "matplotlib.figure.Figure"
Ends: TypeAlias = tuple[float | None, float | None]
"""Of a 95 % interval, as `encoding.ends` takes them out."""
INK, MUTED, LINE, PAPER = "#1d1d22", "#5f626b", "#dcdbd6", "#fcfcfa"
ACCENT, LOSS = "#1f5fa8", "#a3361f"
SERIES = (ACCENT, "#b0562c", "#2f7556", "#83539f", "#806210", "#4f5b69")
MARKERS = ("o", "s", "^", "D", "v", "P")
"""Told apart without colour too: each series has a marker of its own."""
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    LINE: "line",
    PAPER: "paper",
    LOSS: "loss",
    **{colour: f"series-{number}" for number, colour in enumerate(SERIES)},
}
"""Colours of a figure and the custom property that stands for each inside a page."""
WIDTH = 4.6
"""Inches; narrow enough to be read on a phone, where a figure is as wide as the screen."""
DPI = 200
LABEL = 22
"""Characters of an untrusted label."""
MAX_TASKS = 24
"""Tasks drawn; the tables have all of them."""
GUESS_CAPTION = (
    " Thin lines of a task's colour: the constant answer (dashed) and a uniform guess (dotted)."
)
GREY_CAPTION = " Grey lines: the constant answer (dashed) and a uniform guess (dotted)."
MANY = 6
"""More stages than this, and their names do not fit under an axis."""
MAX_STAGES = 12
"""Of more stages a figure shows the course, without a number, interval or mark for each."""
_LOOK: Mapping[str, Any] = {
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "figure.facecolor": PAPER,
    "font.family": "DejaVu Sans",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "fastslow",
    **dict.fromkeys(("axes.titlecolor", "text.color"), INK),
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("axes.labelsize", "font.size"), 8.5),
    **dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), 8),
    **dict.fromkeys(("axes.spines.right", "axes.spines.top", "legend.frameon"), False),
    "text.parse_math": False,
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """A finished figure."""

    name: str
    """Stem of its files; letters, digits and hyphens."""
    title: str
    caption: str
    """The subject and how to read it; may hold untrusted names."""
    svg: str
    """A whole SVG file."""
    png: bytes
    paint: Callable[["Figure"], object] = field(default=lambda _: None, compare=False)
    """Draws it again."""
    size: tuple[float, float] = (4.6, 2.9)
    """Width and height in inches."""

    @property
    def inline(self) -> str:
        """The SVG for inside a page: ids of its own, colours that follow the page's."""
        start = self.svg.index("<svg")
        body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", self.svg[start:])
        return re.sub(r"<[^>]+>", self._themed, body)

    def for_paper(self) -> tuple[bytes, list[tuple[object, ...]]]:
        """The figure as PDF, and the numbers in it as rows that `figure_data.HEADER` names."""
        from matplotlib.backends.backend_pdf import FigureCanvasPdf

        from fastslow.results.render.figure_data import panel_rows

        out, nothing = io.BytesIO(), dict.fromkeys(("CreationDate", "Creator", "Producer"))
        with painted(self.paint, self.size) as figure:
            panels = enumerate(figure.axes, start=1)
            rows = [(number, *row) for number, axes in panels for row in panel_rows(axes)]
            FigureCanvasPdf(figure).print_pdf(out, metadata=nothing)
        return out.getvalue(), rows

    def _themed(self, match: re.Match[str]) -> str:
        """A tag with its ids renamed and its colours replaced; text between tags is never seen."""
        tag = match[0]
        if tag.startswith("<svg"):
            tag = re.sub(r' (width|height|version|xmlns:xlink)="[^"]*"', "", tag)
            return tag.replace("<svg", '<svg aria-hidden="true" focusable="false"')
        for colour, name in VARIABLES.items():
            tag = tag.replace(colour, f"var(--{name})")
        tag = re.sub(r' id="', f' id="{self.name}-', tag)
        tag = tag.replace("url(#", f"url(#{self.name}-")
        return re.sub(r'(?:xlink:)?href="#', f'href="#{self.name}-', tag)


def draw(
    name: str,
    title: str,
    caption: str,
    paint: Callable[[Figure], object],
    *,
    height: float = 2.9,
    width: float = WIDTH,
) -> Drawing:
    """Make a figure of `height` by `width` inches, which `paint` draws into; see `Drawing`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with painted(paint, (width, height)) as figure:
        svg, png = io.BytesIO(), io.BytesIO()
        nobody = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(svg, metadata=nobody)
        figure.set_layout_engine("none")  # it has done its work; the picture is laid out alike
        figure.set_dpi(DPI)
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    texts = (name, title, caption, svg.getvalue().decode())
    return Drawing(*texts, png.getvalue(), paint, (width, height))


@contextmanager
def painted(paint: Callable[[Figure], object], size: tuple[float, float]) -> Iterator[Figure]:
    """A figure of that size in our look, drawn into by `paint`."""
    import matplotlib
    from matplotlib.figure import Figure as Empty

    with matplotlib.rc_context(dict(_LOOK)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Empty(figsize=size, layout="constrained")
        paint(figure)
        yield figure


def label(text: str) -> str:
    """An untrusted name, short and printable."""
    return shorten(text, LABEL)


def series(index: int) -> dict[str, Any]:
    """Colour and marker of the series of that number, from 0."""
    return {"color": SERIES[index % len(SERIES)], "marker": MARKERS[index % len(MARKERS)]}


def legend(axes: Axes, columns: int = 3) -> None:
    """A legend above the axes, so that it covers no data; none where nothing has a name."""
    if not axes.get_legend_handles_labels()[1]:
        return
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=columns,
        borderaxespad=0.2,
        columnspacing=1.2,
    )


def score_axis(axes: Axes, name: str = "score") -> None:
    """A vertical axis from 0 to 1."""
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    axes.set_ylabel(name)


def guess_lines(axes: Axes, guess: Guess, colour: str) -> None:
    """What guessing scores, across the axes: the constant answer dashed, a uniform guess dotted."""
    axes.axhline(guess.constant_score, color=colour, lw=0.8, ls=(0, (6, 3)), alpha=0.7)
    if guess.uniform_score is not None:
        axes.axhline(guess.uniform_score, color=colour, lw=0.8, ls=":", alpha=0.7)


def guess_marks(axes: Axes, guess: Guess, y: float, half: float) -> None:
    """The same as upright lines through one row, `half` of it to each side."""
    for score, style in ((guess.constant_score, (0, (3, 2))), (guess.uniform_score, ":")):
        if score is not None:
            axes.plot([score, score], [y - half, y + half], color=MUTED, lw=1, ls=style)


def named_rows(axes: Axes, rows: Sequence[float], names: Sequence[str], label_of_x: str) -> None:
    """A vertical axis of named rows, with the values to the right of them."""
    axes.set_yticks(rows, names)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(label_of_x)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")


def interval_line(axes: Axes, row: float, ends: Ends, colour: str) -> None:
    """A 95 % interval along one row, where there is one."""
    low, high = ends
    if low is not None and high is not None:
        axes.plot([low, high], [row, row], color=colour, lw=1)


class Row(NamedTuple):
    """A figure of `grouped_rows`."""

    group: str
    """Untrusted; rows of one group follow each other."""
    name: str
    value: float
    ends: Ends
    look: Mapping[str, Any]
    """Colour and marker."""


def grouped_rows(figure: Figure, rows: Sequence[Row], label_of_x: str) -> Axes:
    """Figures with their intervals one under the other, each group under its name."""
    axes, ticks, y = figure.add_subplot(), list[float](), -1.0
    place = axes.get_yaxis_transform()
    for group, members in groupby(rows, key=lambda row: row.group):
        axes.text(0, y + 1.05, label(group), weight="bold", va="center", transform=place)
        y += 0.9
        for row in members:
            y += 1
            interval_line(axes, y, row.ends, row.look["color"])
            axes.plot(row.value, y, ls="none", label=row.group, **row.look)
            ticks.append(y)
    axes.axvline(0, color=MUTED, lw=0.8)
    named_rows(axes, ticks, [row.name for row in rows], label_of_x)
    axes.set_ylim(y + 0.7, -0.7)
    return axes


def grouped_height(rows: Sequence[Row]) -> float:
    """Inches that `grouped_rows` needs."""
    return 0.8 + 0.2 * len(rows) + 0.2 * len({row.group for row in rows})


def share_bar(
    axes: Axes, y: float, segments: Iterable[tuple[str, float, str, str]], height: float
) -> None:
    """A bar of shares: label, amount, colour and text of each, the text where there is room."""
    segments, start = list(segments), 0.0
    total = sum(amount for _, amount, *_ in segments)
    for name, amount, colour, text in segments:
        share = amount / total
        look: dict[str, Any] = {"color": colour, "edgecolor": PAPER, "linewidth": 1.2}
        axes.barh(y, share, height, start, label=name or None, **look)
        if share > 0.12:
            ink = INK if colour == LINE else PAPER
            text = shorten(text, max(3, int(share * 40)))
            axes.text(start + share / 2, y, text, ha="center", va="center", color=ink, fontsize=7)
        start += share


def stage_ends(axes: Axes, positions: Iterable[float]) -> None:
    """Dashed lines where stages end."""
    for x in positions:
        axes.axvline(x, color=LINE, lw=0.8, ls=(0, (4, 3)), zorder=0)
