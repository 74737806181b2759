"""The numbers of a figure, read back from what Matplotlib drew: so they are those that are seen."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from fastslow.results.render.drawing import Axes

HEADER = ("panel", "series", "kind", "x", "y", "x_name", "y_name", "value")
"""Columns: panels count from 1; `kind` is point, interval (an end of one), bar or cell; names are
those at the axes; `value` is the length of a bar, which begins at x, or the value of a cell."""


def panel_rows(axes: Axes) -> Iterator[tuple[object, ...]]:
    """All columns but the first of every line, bar and cell that one panel shows."""
    names = [_tick_names(axis) for axis in (axes.xaxis, axes.yaxis)]

    def place(x: float, y: float) -> tuple[object, ...]:
        return x, y, *(by_place.get(round(c)) for by_place, c in zip(names, (x, y), strict=True))

    yield from ((*row[:2], *place(*row[2:4]), None) for row in _points(axes))
    yield from ((label, "bar", *place(x, y), width) for label, x, y, width in _bars(axes))
    for image in axes.images:
        cells: Any = image.get_array()
        for y, values in enumerate(cells.tolist()):
            yield from (("", "cell", *place(x, y), value) for x, value in enumerate(values))


def _points(axes: Axes) -> Iterator[tuple[str, str, float, float]]:
    """Label, kind and place of the points of lines; those without a label go by their colour."""
    labels = defaultdict[object, set[str]](set)
    for line in axes.lines:
        labels[line.get_color()] |= {_label(line)} - {""}
    for line in axes.lines:
        if line.get_transform() != axes.transData:  # across the panel, as lines of guesses
            continue
        places: Any = line.get_xydata()
        shared, *others = labels[line.get_color()] or {""}
        label = _label(line) or ("" if others else shared)
        kind = "interval" if len(places) == 2 and not _label(line) else "point"
        yield from ((label, kind, x, y) for x, y in places.tolist())


def _bars(axes: Axes) -> Iterator[tuple[str, float, float, float]]:
    """Label, start, height in the middle and length of bars that lie."""
    labels = dict[object, str]()
    for container in axes.containers:
        for bar in container:
            label = labels.setdefault(bar.get_facecolor(), _label(container))
            (x, low), (end, high) = bar.get_bbox().get_points().tolist()
            yield _label(container) or label, x, (low + high) / 2, end - x


def _label(artist: Any) -> str:
    """The label it was given; nothing where Matplotlib made one."""
    label = str(artist.get_label())
    return "" if label.startswith("_") else label


def _tick_names(axis: Any) -> dict[int, str]:
    """Names that were set at places of an axis, where they are more than the places' numbers."""
    places, names = axis.get_majorticklocs(), axis.get_majorticklabels()
    texts = [name.get_text() for name in names]
    if not any(char.isalpha() for text in texts for char in text):
        return {}
    return {round(float(place)): text for place, text in zip(places, texts, strict=False)}
