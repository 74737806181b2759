"""What a run cost: rollouts and seconds, by channel and by part of the evaluation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeAlias

from fastslow.records.events import CycleEvent, EvaluationEvent, RemedyEvent, RunEvent, TextEvent
from fastslow.results.render.drawing import ACCENT, INK, MUTED, PAPER, Drawing, draw, legend
from fastslow.results.render.layout import Table, Text
from fastslow.results.report.section import Records, Section
from fastslow.results.report.sections.plasticity import Plasticity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHANNELS = ("fast", "slow")
ChannelEvent: TypeAlias = CycleEvent | TextEvent | RemedyEvent
"""Events whose rollouts and seconds are a channel's."""


def channel_events(records: Records) -> list[ChannelEvent]:
    """Every event that a channel pays for."""
    return [event for event in records.events if isinstance(event, ChannelEvent)]


def rollouts_of(events: Iterable[ChannelEvent]) -> dict[str, int]:
    """Completions by channel; choosing a prompt is the fast channel's, a remedy the slow one's."""
    total = dict.fromkeys(CHANNELS, 0)
    for event in events:
        by_channel = event.rollouts
        if not isinstance(by_channel, Mapping):
            by_channel = {_payer(event): by_channel}
        for channel, count in by_channel.items():
            total[channel] = total.get(channel, 0) + count
    return total


def seconds_of(events: Iterable[ChannelEvent]) -> dict[str, float]:
    """Wall time by channel; as `rollouts_of`."""
    total = dict.fromkeys(CHANNELS, 0.0)
    for event in events:
        by_channel = event.seconds
        if not isinstance(by_channel, Mapping):
            by_channel = {_payer(event): by_channel}
        for channel, seconds in by_channel.items():
            total[channel] = total.get(channel, 0.0) + seconds
    return total


def _payer(event: ChannelEvent) -> str:
    return "fast" if isinstance(event, TextEvent) else "slow"


@dataclass(frozen=True, slots=True)
class EvaluationCost:
    """What one part of the evaluation cost over the run."""

    rollouts: int
    """Completions sampled, from the tuned policy and from the base."""
    seconds: float
    reused: int
    """Score rows that repeat earlier ones, for which nothing was sampled."""


@dataclass(frozen=True, slots=True)
class Cost(Section):
    """Rollouts and seconds of the whole run, over all resumes."""

    rollouts: Mapping[str, int]
    """By `fast`, `slow` and `evaluation`."""
    seconds_by: Mapping[str, float]
    """By `fast`, `slow` and `evaluation`."""
    seconds: float
    """Wall time of the whole run."""
    saving_seconds: float | None
    """Part of it that went into resume points; None where it was not measured."""
    evaluations: Mapping[str, EvaluationCost]
    """Each part of the evaluation, in the order in which the parts first came."""

    chapter = "cost"
    drawing_names = ("cost",)

    @classmethod
    def compute(cls, records: Records) -> Self:
        """Sum up the events, and the curves of probes."""
        events, ends = channel_events(records), records.events_of(RunEvent)
        evaluations = _evaluations(records.events_of(EvaluationEvent))
        probes = records.section(Plasticity)
        if probes.has_curves:
            evaluations["probe"] = EvaluationCost(probes.rollouts, probes.seconds, 0)
        costs = evaluations.values()
        evaluation_seconds = float(sum(cost.seconds for cost in costs))
        seconds_by = seconds_of(events) | {"evaluation": evaluation_seconds}
        return cls(
            rollouts=rollouts_of(events) | {"evaluation": sum(cost.rollouts for cost in costs)},
            seconds_by=seconds_by,
            seconds=max([sum(seconds_by.values()), *(end.seconds for end in ends)]),
            saving_seconds=next((end.saving_seconds for end in reversed(ends)), None),
            evaluations=evaluations,
        )

    def to_json(self) -> Mapping[str, object]:
        """The totals, and the evaluation by part."""
        share = self.seconds_by["evaluation"] / self.seconds if self.seconds else None
        return {
            "rollouts": self.rollouts,
            "seconds": self.seconds,
            "saving_seconds": self.saving_seconds,
            "seconds_by": self.seconds_by,
            "evaluation": {"frac": share, "parts": self.evaluations},
        }

    def tables(self) -> Sequence[Table]:
        """One row per channel and part of the evaluation."""
        reused = sum(cost.reused for cost in self.evaluations.values())
        trained = sum(self.rollouts[name] for name in CHANNELS)
        seconds = sum(self.seconds_by[name] for name in CHANNELS)
        rows = [(name, self.rollouts[name], 0, self.seconds_by[name]) for name in CHANNELS]
        rows.append(("fast + slow", trained, 0, seconds))
        evaluation = (self.rollouts["evaluation"], reused, self.seconds_by["evaluation"])
        rows.append(("evaluation", *evaluation))
        if len(self.evaluations) > 1:
            for name, cost in self.evaluations.items():
                rows.append((f"evaluation: {name}", cost.rollouts, cost.reused, cost.seconds))
        if self.saving_seconds is not None:
            rows.append(("resume points", 0, 0, self.saving_seconds))
        return [
            Table(
                "Cost",
                ("spent on", "rollouts", "reused", "seconds", "share of the run"),
                tuple(self._row(*row) for row in rows),
                f"The whole run took {self.seconds / 60:.1f} minutes. Reused: scores of weights "
                "and prompts that had been scored before; nothing was drawn for them.",
            )
        ]

    def _row(self, name: str, rollouts: int, reused: int, seconds: float) -> tuple[Text, ...]:
        return (
            Text(name),
            Text(str(rollouts)),
            Text(str(reused) if reused else "-"),
            Text(f"{seconds:.1f}"),
            Text(f"{seconds / self.seconds:.2f}" if self.seconds else "-"),
        )

    def drawings(self) -> Sequence[Drawing | None]:
        """Rollouts and seconds as shares of their sums."""
        names = (*CHANNELS, "evaluation")
        totals = {
            "rollouts": [float(self.rollouts[name]) for name in names],
            "seconds": [self.seconds_by[name] for name in names],
        }
        if not all(sum(values) for values in totals.values()):
            return [None]

        def paint(figure: "Figure") -> None:
            axes = figure.add_subplot()
            for y, values in enumerate(totals.values()):
                start = 0.0
                for number, value in enumerate(values):
                    share = value / sum(values)
                    axes.barh(
                        y,
                        share,
                        left=start,
                        height=0.5,
                        color=(ACCENT, INK, MUTED)[number],
                        edgecolor=PAPER,
                        linewidth=1.2,
                        label=None if y else names[number],
                    )
                    if share > 0.12:
                        x, text = start + share / 2, f"{value:,.0f}"
                        axes.text(x, y, text, ha="center", va="center", color=PAPER)
                    start += share
            sums = [f"{name}\n{sum(values):,.0f}" for name, values in totals.items()]
            axes.set_yticks(range(len(totals)), sums)
            axes.set_ylim(1.5, -0.5)
            axes.set_xlim(0, 1)
            axes.set_xticks([])
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
            axes.tick_params(axis="y", length=0)
            legend(axes)

        return [
            draw(
                "cost",
                "Where rollouts and seconds went",
                "Shares of all completions sampled and of the measured wall time, by channel and "
                "evaluation.",
                paint,
                height=1.7,
            )
        ]


def _evaluations(events: Sequence[EvaluationEvent]) -> dict[str, EvaluationCost]:
    """Cost by part, in the order in which the parts first came."""
    costs: dict[str, EvaluationCost] = {}
    for event in events:
        total = costs.get(event.part, EvaluationCost(0, 0.0, 0))
        costs[event.part] = EvaluationCost(
            total.rollouts + event.rollouts,
            total.seconds + event.seconds,
            total.reused + event.reused,
        )
    return costs
