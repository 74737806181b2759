"""What a change of the weights is like: concentrated, in its largest entries, on sparse units?

Outcomes were fixed before the runs that count, docs/decisions.md; each sentence counts rows of the
matrix. Their JSON is that of `Measured`.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

from fastslow.core.types import Metric
from fastslow.records.events import FiguresEvent
from fastslow.results.render.layout import Table, Text, metric_text, row
from fastslow.results.report.section import Records, Section
from fastslow.results.report.sections.weights import Measured, limits

EXCESS = 0.05
"""Energy share above every random product from which on a change counts as concentrated."""
EQUIVALENT = 0.05
"""A correlation whose interval lies within this of 0 counts as none."""
SIGNIFICANT = 0.01
"""Level of the permutation test."""
MOST = 2 / 3
"""Share of the rows that must agree for a yes."""
PRIMARY = "5"
"""The share of entries, in percent, that outcomes are about."""


class ChangeSection(Section):
    """The figures of one kind, in each row of the matrix."""

    chapter = "geometry"
    kind: ClassVar[str]
    """Of the events."""

    def __init__(self, records: Records) -> None:
        self.events = records.section(Measured).of_kind(self.kind)


def value(event: FiguresEvent, name: str) -> float | None:
    """A figure of an event; None where it is not there or not defined."""
    return next((metric.value for metric in event.figures if metric.name == name), None)


def cells(event: FiguresEvent, names: Sequence[str]) -> Iterator[Text]:
    """Figures with their intervals; a reason why they are not defined stands once."""
    by_name = {metric.name: metric for metric in event.figures}
    reasons: set[str | None] = set()
    for name in names:
        metric: Metric | None = by_name.get(name)
        is_known = metric is not None and metric.value is None and metric.reason in reasons
        yield metric_text(None if is_known else metric, 2, limits(event, name))
        reasons |= {metric.reason} if metric is not None and metric.value is None else set()


def at_least(passes: Sequence[bool], share: float = MOST) -> bool:
    """Whether so large a share of the rows passes; there is at least one."""
    return sum(passes) >= share * len(passes)


class Concentration(ChangeSection):
    """Energy of the largest entries, next to random products and Gaussian numbers."""

    kind = "concentration"

    def tables(self) -> Iterator[Table]:
        shares = ("top1", "top5", "top10", "top5_within")
        words = {"top5_within": "5 % of each matrix (median)"}
        rows = [
            row(
                event.row,
                words.get(name, f"{name.removeprefix('top')} %"),
                *cells(event, [f"energy_{name}_{end}" for end in ("frac", "null_lora")]),
                *cells(event, [f"energy_{name}_null_lora_max"]),
                f"{gaussian:.2f}" if (gaussian := event.numbers.get(f"gaussian_{name}")) else "-",
            )
            for event in self.events
            for name in shares
        ]
        yield Table(
            "Concentration of the whole change",
            ("row", "largest", "energy", "random product", "largest of its draws", "Gaussian"),
            tuple(rows),
            "Share of the change's energy in its largest entries. Random products have the rank, "
            "the shapes and the norms of the change and have learned nothing: what they reach "
            "comes from low rank. " + self._outcome(),
        )

    def _outcome(self) -> str:
        pairs = [
            (value(event, "energy_top5_frac"), value(event, "energy_top5_null_lora_max"))
            for event in self.events
        ]
        passes = [a - b >= EXCESS for a, b in pairs if a is not None and b is not None]
        if not passes:
            return "Concentrated beyond low rank: not measured."
        answer = "yes" if at_least(passes) else "undecided" if any(passes) else "no"
        return (
            f"Concentrated beyond low rank: {answer}. In {sum(passes)} of {len(passes)} rows the "
            f"largest 5 % hold at least {EXCESS:g} more than in every random product."
        )


class KeepCurve(ChangeSection):
    """What parts of the change keep of its gain, and the largest entries at equal energy."""

    kind = "keep_curve"

    def tables(self) -> Iterator[Table]:
        header = ("row", "task", "p", "energy", "largest", "rest", "random")
        rows = [
            row(event.row, event.of, f"{percent} %", energy, *cells(event, _parts(percent)))
            for event in self.events
            for percent, energy in _energies(event)
        ]
        yield Table(
            "What parts of the change keep of its gain",
            (*header, "random, same energy", "all, scaled", "largest - random", "- scaled"),
            tuple(rows),
            "In place of the whole change the base gets its largest p % of entries, the rest, a "
            "random p %, random entries that hold the energy of the largest, or all entries "
            "scaled to that energy. Share kept of what the change takes off the loss of gold "
            "answers, with 95 % intervals over answers. Gain is concave in the change, so only "
            "parts of the same energy can be compared; scaling has an advantage of first order. "
            + self._outcome(),
        )

    def _outcome(self) -> str:
        names = [f"keep_top{PRIMARY}_minus_{arm}" for arm in ("random_energy", "scaled")]
        ends = [[limits(event, name) for name in names] for event in self.events]
        above = [[end is not None and end.low > 0 for end in pair] for pair in ends if any(pair)]
        if not above:
            return f"Does the place matter? Not measured at {PRIMARY} %."
        random, both = ([pair[0] for pair in above], [all(pair) for pair in above])
        answer = "yes" if at_least(both) else "partly" if at_least(random) else "undecided"
        answer = answer if any(random) else "no"
        return (
            f"Does the place matter? {answer.capitalize()}: at {PRIMARY} % the largest are above "
            f"random entries of their energy in {sum(random)} of {len(above)} rows, and above the "
            f"scaled change too in {sum(both)}."
        )


def _energies(event: FiguresEvent) -> Iterator[tuple[str, str]]:
    """Each share in percent, with the energy that the largest entries hold."""
    for name, energy in event.numbers.items():
        if name.startswith("top") and name.endswith("/energy"):
            yield name.removeprefix("top").removesuffix("/energy"), f"{energy:.2f}"


def _parts(percent: str) -> list[str]:
    arms = ("top", "rest", "random", "random_energy", "scaled")
    differences = [f"keep_top{percent}_minus_{arm}" for arm in ("random_energy", "scaled")]
    return [*(f"keep_{arm}{percent}" for arm in arms), *differences]


class Bridge(ChangeSection):
    """Whether gradient and change fall on sparsely active units, less a control."""

    kind = "bridge"

    def tables(self) -> Iterator[Table]:
        figures = ("bridge", "gradient", "control", "change", "bridge_columns")
        rows = [
            row(
                event.row,
                event.of,
                words,
                *cells(event, [figure + ending for figure in figures]),
                f"{p:.3f}" if (p := event.numbers.get(f"bridge{ending}/p")) is not None else "-",
            )
            for event in self.events
            for ending, words in (("", "sparse"), ("_selectivity", "selective"))
        ]
        yield Table(
            "Do changes fall on sparsely active units?",
            ("row", "task", "units", *figures[:4], "bridge, down", "p"),
            tuple(rows),
            "Rank correlation over the units of a layer, given their mean activity, of sparseness "
            "(or selectivity for the task) with the energy at each unit of: the gradient of gold "
            "answers in gate and up; the same of answers rotated among problems, the control; the "
            "stage's change. Mean over layers with a 95 % interval over layers. bridge: gradient - "
            "control, also for columns of down; p: of it, units permuted within layers. Without "
            "the control the correlation is mechanical: quiet units get little gradient whatever "
            "the task. " + self._outcome(),
        )

    def _outcome(self) -> str:
        ends = [(limits(e, "bridge"), e.numbers.get("bridge/p", 1.0)) for e in self.events]
        pairs = [(end, p) for end, p in ends if end is not None]
        if not pairs:
            return "In sparsely active regions: not measured."
        passes = [end.low > 0 and p <= SIGNIFICANT for end, p in pairs]
        is_none = all(end.low >= -EQUIVALENT and end.high <= EQUIVALENT for end, _ in pairs)
        answer = "yes" if at_least(passes) else "no" if is_none else "undecided"
        return (
            f"In sparsely active regions: {answer}. The bridge is above 0, with p at most "
            f"{SIGNIFICANT:g}, in {sum(passes)} of {len(passes)} rows."
        )
