"""What became of each task: learned, forgotten or kept, with paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from fastslow.core.types import Json, Metric
from fastslow.measure.scores.all_metrics import task_metrics
from fastslow.results.render.drawing import (
    ACCENT,
    INK,
    MAX_TASKS,
    MUTED,
    PAPER,
    Drawing,
    draw,
    label,
    legend,
)
from fastslow.results.render.layout import Table, Text, difference, score_or_dash
from fastslow.results.report.cells import Cell, Comparison
from fastslow.results.report.section import Records, Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NONE = "\N{EN DASH}"
"""Stands where there is no value."""


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """What happened to one task."""

    task: str
    version: str | None
    """`definition@version`; None when it was never scored."""
    learned_row: int | None
    """The row after its stage; None for a held-out task."""
    base: Cell
    """Row 0."""
    learned: Cell | None
    """The row after its stage; None for a held-out task."""
    final: Cell
    """The last row."""
    gain: Comparison
    """Learned minus base."""
    change: Comparison
    """Final minus learned; negative = forgot."""
    net: Comparison
    """Final minus base."""
    terms: Mapping[str, Metric]
    """What the task gives to each mean over tasks; nothing for a held-out one."""
    noise_floor: Metric
    """How far repeated evaluations of the base lie apart."""

    @property
    def is_learned(self) -> bool:
        """Whether its stage raised the score beyond chance."""
        gain = self.gain.difference
        return self.learned_row is not None and gain is not None and gain.is_rise


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one task, for the first screen."""

    task: str
    learned: tuple[str, str]
    """Learned minus base, and its interval or why there is none."""
    since: tuple[str, str]
    """Final minus learned, likewise."""
    gain_kept: str
    """Share of the learned gain that is still there."""
    kind: str
    """`forgot`, `kept`, `improved`, `last`, `not-learned` or `unknown`."""
    word: str
    remark: str
    """The smallest drop that would have been found, where none was."""


@dataclass(frozen=True, slots=True)
class Tasks(Section):
    """Every task of the matrix, in its order."""

    summaries: tuple[TaskSummary, ...]
    num_stages: int

    chapter = "scores"
    drawing_names = ("tasks",)

    @classmethod
    def compute(cls, records: Records) -> Self:
        """Compare base, learned and final scores of each task, example by example."""
        versions = {row.sample.task: row.sample.version for row in records.scores}
        summaries = [_summary(records, task, versions.get(task)) for task in records.card.tasks]
        return cls(tuple(summaries), len(records.card.stages))

    def outcomes(self) -> tuple[Outcome, ...]:
        """One per task."""
        return tuple(_outcome(summary, self.num_stages) for summary in self.summaries)

    def to_json(self) -> Mapping[str, object]:
        """By task."""
        return {"per_task": {summary.task: _task_json(summary) for summary in self.summaries}}

    def tables(self) -> Sequence[Table]:
        """One row per task."""
        header = ("task", "n", "base", "learned", "final")
        return [
            Table(
                "Tasks",
                (*header, "learned - base", "final - learned", "detectable drop"),
                tuple(_task_row(summary) for summary in self.summaries),
                "Paired over the same examples, 95 % intervals, uncorrected for the number of "
                "tasks. ! beyond chance at 5 % (exact McNemar for 0/1 scores, else the interval). "
                "Detectable drop: the smallest one that would be found with 80 % power.",
            )
        ]

    def drawings(self) -> Sequence[Drawing]:
        """Each task at the base, when learned, and at the end."""
        return [
            draw(
                "tasks",
                "What became of each task",
                "Score with the untouched base, right after the task's own stage, and at the end.",
                self._paint,
                height=1.2 + 0.45 * len(self.summaries[:MAX_TASKS]),
            )
        ]

    def _paint(self, figure: "Figure") -> None:
        axes, summaries = figure.add_subplot(), self.summaries[:MAX_TASKS]
        for number, summary in enumerate(summaries):
            points = (
                ("base", summary.base, -0.2, MUTED, "o", PAPER),
                ("learned", summary.learned, 0.0, ACCENT, "s", ACCENT),
                ("final", summary.final, 0.2, INK, "D", INK),
            )
            for name, cell, shift, colour, marker, fill in points:
                if cell is None or cell.score is None:
                    continue
                y, first = number + shift, None if number else name
                if cell.interval is not None:
                    axes.plot([cell.interval.low, cell.interval.high], [y, y], color=colour, lw=1)
                axes.plot(cell.score, y, marker, color=colour, mfc=fill, label=first, clip_on=False)
        axes.set_yticks(range(len(summaries)), [label(summary.task) for summary in summaries])
        axes.set_ylim(len(summaries) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("score, with 95 % interval")
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.tick_params(axis="y", length=0)
        legend(axes)


def _summary(records: Records, task: str, version: str | None) -> TaskSummary:
    table, last = records.table, len(records.card.stages)
    learned, floor = table.learned_row(task), records.noise_floor
    return TaskSummary(
        task=task,
        version=version,
        learned_row=learned,
        base=table.cell(0, task),
        learned=None if learned is None else table.cell(learned, task),
        final=table.cell(last, task),
        gain=table.compare(task, 0, learned),
        change=table.compare(task, learned, last),
        net=table.compare(task, 0, last),
        terms={} if learned is None else task_metrics(records.matrix, learned, noise_floor=floor),
        noise_floor=table.base_floor(task),
    )


def _task_json(summary: TaskSummary) -> dict[str, object]:
    return {
        "version": summary.version,
        "learned_row": summary.learned_row,
        "base": summary.base.score,
        "learned": summary.learned.score if summary.learned else None,
        "final": summary.final.score,
        "gain": _comparison_json(summary.gain),
        "change": _comparison_json(summary.change),
        "net": _comparison_json(summary.net),
        "terms": summary.terms,
        "noise_floor": summary.noise_floor,
    }


def _comparison_json(comparison: Comparison) -> Mapping[str, Json]:
    if comparison.difference is None:
        return {"value": None, "reason": comparison.reason}
    fields = asdict(comparison.difference)
    return {"value": fields.pop("mean"), **fields}


def _task_row(summary: TaskSummary) -> tuple[Text, ...]:
    change = summary.change.difference
    return (
        Text(summary.task),
        Text(str(summary.final.n or summary.base.n)),
        Text(score_or_dash(summary.base.score)),
        Text(score_or_dash(summary.learned.score if summary.learned else None)),
        Text(score_or_dash(summary.final.score)),
        _comparison_text(summary.gain),
        _comparison_text(summary.change),
        Text("-" if change is None else f"{change.smallest_detectable:.2f}"),
    )


def _comparison_text(comparison: Comparison) -> Text:
    change = comparison.difference
    if change is None:
        return Text(comparison.reason or "-", "dim")
    mark = "!" if change.is_drop or change.is_rise else ""
    return Text(difference(change) + mark, "strong" if change.is_drop else "plain")


def _outcome(summary: TaskSummary, last: int) -> Outcome:
    share = summary.terms.get("retention_gain")
    kind, word = _word(summary, last)
    change, remark = summary.change.difference, ""
    if kind == "kept" and change is not None:
        remark = f"detectable: {change.smallest_detectable:.2f}"
    return Outcome(
        summary.task,
        _amount(summary.gain),
        (NONE, "") if kind == "last" else _amount(summary.change),
        NONE if share is None or share.value is None else f"{share.value:.2f}",
        kind,
        word,
        remark,
    )


def _word(summary: TaskSummary, last: int) -> tuple[str, str]:
    gain, change = summary.gain.difference, summary.change.difference
    if summary.learned_row is None:
        return "unknown", "held out"
    if gain is None:
        return "unknown", "not measured"
    if not gain.is_rise:
        return "not-learned", "○ not learned"
    if summary.learned_row == last:
        return "last", "▲ learned last"
    if change is None:
        return "unknown", "▲ learned"
    if change.is_drop:
        return "forgot", "▼ forgot"
    if change.is_rise:
        return "improved", "▲ improved"
    return "kept", "● kept"


def _amount(comparison: Comparison) -> tuple[str, str]:
    """A paired difference, and its interval or the reason why there is none."""
    change = comparison.difference
    if change is None:
        return NONE, comparison.reason or ""
    if change.low is None or change.high is None:
        return f"{change.mean:+.2f}", change.reason or ""
    return f"{change.mean:+.2f}", f"[{change.low:+.2f}, {change.high:+.2f}]"
