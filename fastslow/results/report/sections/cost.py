"""What a run cost: rollouts and seconds by channel and part, by stage, and the reflection LM's."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fastslow.core.types import Metric
from fastslow.measure.scores.all_metrics import final_metrics
from fastslow.records.events import CycleEvent, EvaluationEvent, RemedyEvent, RunEvent, TextEvent
from fastslow.results.render import drawing
from fastslow.results.render.layout import Table, row, score_or_dash
from fastslow.results.report.section import Records, Section, stage_label
from fastslow.results.report.sections.plasticity import Plasticity

CHANNELS = ("fast", "slow")
STAGE_METRICS = ("average_accuracy", "bwt_gem", "forgetting_chaudhry")
"""Metrics of each stage that have a column; report.json has all."""
REFLECTION = "fast/reflection_"
"""How metrics of the reflection LM begin."""
COLOURS = {"fast": drawing.ACCENT, "slow": drawing.INK, "evaluation": drawing.MUTED}
ChannelEvent: TypeAlias = CycleEvent | TextEvent | RemedyEvent
"""Events whose rollouts and seconds are a channel's."""


def _channel_events(records: Records) -> list[ChannelEvent]:
    return [event for event in records.events if isinstance(event, ChannelEvent)]


def _by_channel(
    events: Iterable[ChannelEvent], unit: Literal["rollouts", "seconds"]
) -> dict[str, float]:
    """Sums by channel; choosing a prompt is the fast channel's, a remedy the slow one's."""
    total: dict[str, float] = dict.fromkeys(CHANNELS, 0 if unit == "rollouts" else 0.0)
    for event in events:
        amount = event.rollouts if unit == "rollouts" else event.seconds
        if not isinstance(amount, Mapping):
            amount = {"fast" if isinstance(event, TextEvent) else "slow": amount}
        for channel, value in amount.items():
            total[channel] = total.get(channel, 0) + value
    return total


@dataclass(slots=True)
class EvaluationCost:
    """What one part of the evaluation cost over the run."""

    rollouts: int = 0
    """Completions sampled, from the tuned policy and from the base."""
    seconds: float = 0.0
    reused: int = 0
    """Score rows that repeat earlier ones, for which nothing was sampled."""


class Cost(Section):
    """Rollouts and seconds of the whole run, over all resumes."""

    chapter = "cost"
    drawing_name = "cost"

    def __init__(self, records: Records) -> None:
        events, ends = _channel_events(records), records.events_of(RunEvent)
        self.evaluations: dict[str, EvaluationCost] = {}
        """By part of the evaluation, in the order in which the parts first came."""
        for event in records.events_of(EvaluationEvent):
            cost = self.evaluations.setdefault(event.part, EvaluationCost())
            cost.rollouts += event.rollouts
            cost.seconds += event.seconds
            cost.reused += event.reused
        probes = records.section(Plasticity)
        if probes.has_curves:
            self.evaluations["probe"] = EvaluationCost(probes.rollouts, probes.seconds)
        costs = self.evaluations.values()
        sampled = sum(cost.rollouts for cost in costs)
        self.rollouts = _by_channel(events, "rollouts") | {"evaluation": sampled}
        """By `fast`, `slow` and `evaluation`, as `seconds_by`."""
        seconds = float(sum(cost.seconds for cost in costs))
        self.seconds_by = _by_channel(events, "seconds") | {"evaluation": seconds}
        self.seconds = max([sum(self.seconds_by.values()), *(end.seconds for end in ends)])
        """Wall time of the whole run."""
        self.saving_seconds = next((end.saving_seconds for end in reversed(ends)), None)
        """Part of it that went into resume points; None where it was not measured."""
        peaks = [end.peak_gb for end in ends if end.peak_gb is not None]
        self.peak_gb = max(peaks, default=None)
        """Most memory of the process, over all resumes; None in folders of older versions."""

    @property
    def sentence(self) -> str:
        """The cost in a line."""
        train, evaluation = sum(self.rollouts[n] for n in CHANNELS), self.rollouts["evaluation"]
        memory = "" if self.peak_gb is None else f", {self.peak_gb:.1f} GB at most"
        return (
            f"Cost: {train:,} rollouts to train, {evaluation:,} to evaluate, "
            f"{self.seconds / 60:.1f} minutes{memory}."
        )

    def to_json(self) -> Mapping[str, object]:
        share = self.seconds_by["evaluation"] / self.seconds if self.seconds else None
        return {
            "rollouts": self.rollouts,
            "seconds": self.seconds,
            "saving_seconds": self.saving_seconds,
            "seconds_by": self.seconds_by,
            "evaluation": {"frac": share, "parts": self.evaluations},
        }

    def tables(self) -> Iterator[Table]:
        lines = [(name, self.rollouts[name], 0, self.seconds_by[name]) for name in CHANNELS]
        seconds = sum(self.seconds_by[name] for name in CHANNELS)
        lines.append(("fast + slow", sum(self.rollouts[name] for name in CHANNELS), 0, seconds))
        reused = sum(cost.reused for cost in self.evaluations.values())
        evaluation = self.rollouts["evaluation"], reused, self.seconds_by["evaluation"]
        lines.append(("evaluation", *evaluation))
        if len(self.evaluations) > 1:
            for name, cost in self.evaluations.items():
                lines.append((f"evaluation: {name}", cost.rollouts, cost.reused, cost.seconds))
        if self.saving_seconds is not None:
            lines.append(("resume points", 0, 0, self.saving_seconds))
        rows = []
        for name, rollouts, reused, seconds in lines:
            share = seconds / self.seconds if self.seconds else None
            rows.append(row(name, rollouts, reused or "-", f"{seconds:.1f}", score_or_dash(share)))
        yield Table(
            "Cost",
            ("spent on", "rollouts", "reused", "seconds", "share of the run"),
            tuple(rows),
            f"The whole run took {self.seconds / 60:.1f} minutes. Reused: scores of weights and "
            "prompts that had been scored before; nothing was drawn for them.",
        )

    def draw(self) -> drawing.Drawing | None:
        amounts = (self.rollouts, self.seconds_by)
        if not all(any(amount[name] for name in COLOURS) for amount in amounts):
            return None
        return drawing.draw(
            self.drawing_name,
            "Where rollouts and seconds went",
            "Shares of all completions sampled and of the measured wall time, by channel and "
            "evaluation.",
            self._paint,
            height=1.7,
        )

    def _paint(self, figure: drawing.Figure) -> None:
        axes, names = figure.add_subplot(), []
        for y, amounts in enumerate((self.rollouts, self.seconds_by)):
            names.append(
                f"{'seconds' if y else 'rollouts'}\n{sum(amounts[n] for n in COLOURS):,.0f}"
            )
            segments = (
                ("" if y else name, amounts[name], colour, f"{amounts[name]:,.0f}")
                for name, colour in COLOURS.items()
            )
            drawing.share_bar(axes, y, segments, 0.5)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(1.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(axis="y", length=0)
        drawing.legend(axes)


@dataclass(frozen=True, slots=True)
class StageSummary:
    """What one stage cost, and the metrics as they stood after it."""

    task: str
    cycles: int
    """Cycles done."""
    rollouts: Mapping[str, float]
    """By channel, as `seconds`."""
    seconds: Mapping[str, float]
    metrics: Mapping[str, Metric]


class Stages(Section):
    """Every stage, in order."""

    chapter = "curves"

    def __init__(self, records: Records) -> None:
        events: dict[int, list[ChannelEvent]] = {}
        for event in _channel_events(records):
            events.setdefault(event.stage, []).append(event)
        numbers = range(len(records.card.stages))
        self.stages = [_stage(records, index, events.get(index, [])) for index in numbers]

    def to_json(self) -> Mapping[str, object]:
        return {"stages": self.stages}

    def tables(self) -> Iterator[Table]:
        header = ("stage", "cycles", "fast rollouts", "slow rollouts", "minutes")
        rows = [
            row(
                stage_label(index, stage.task),
                stage.cycles,
                *(stage.rollouts[name] for name in CHANNELS),
                f"{sum(stage.seconds.values()) / 60:.1f}",
                *(score_or_dash(stage.metrics[name].value) for name in STAGE_METRICS),
            )
            for index, stage in enumerate(self.stages)
        ]
        yield Table(
            "Stages",
            (*header, "average accuracy", "bwt_gem", "forgetting chaudhry"),
            tuple(rows),
            "Metrics as they stood after the stage; - is undefined.",
        )


def _stage(records: Records, index: int, events: Sequence[ChannelEvent]) -> StageSummary:
    return StageSummary(
        task=records.card.stages[index],
        cycles=len({event.cycle for event in events if isinstance(event, CycleEvent)}),
        rollouts=_by_channel(events, "rollouts"),
        seconds=_by_channel(events, "seconds"),
        metrics=final_metrics(records.matrix.upto(index + 1), noise_floor=records.noise_floor),
    )


class Reflection(Section):
    """What the reflection LM was asked and cost over all fast phases; no rollout of a task."""

    chapter = "cost"

    def __init__(self, records: Records) -> None:
        metrics = [event.metrics for event in records.events_of(CycleEvent)]
        phases = [values for values in metrics if f"{REFLECTION}calls" in values]
        names = ("calls", "failures", "away", "prompt_tokens", "completion_tokens")
        totals = {name: _total(phases, name) for name in (*names, "cost_usd")}
        for name in ("calls", "failures", "away"):
            totals[name] = totals[name] or 0
        counts = {n: v if v is None or n == "cost_usd" else int(v) for n, v in totals.items()}
        self.account = counts | {"phases": len(phases)} if phases else None
        """By name; None where a service did not say. None at all without a reflection LM."""

    def to_json(self) -> Mapping[str, object]:
        return {"reflection": self.account}

    def tables(self) -> Iterator[Table]:
        if self.account is None:
            return
        names = ("calls", "failures", "prompt_tokens", "completion_tokens")
        counts = ["-" if (n := self.account[name]) is None else n for name in names]
        dollars = self.account["cost_usd"]
        yield Table(
            "Reflection LM",
            ("requests", "failed attempts", "prompt tokens", "answer tokens", "US dollars"),
            (row(*counts, "-" if dollars is None else f"{dollars:.4f}"),),
            "What the reflection LM was asked by the fast channel; none of it is a rollout of a "
            "task. Dollars by list prices; - is not known.",
        )


def _total(phases: Sequence[Mapping[str, float | None]], name: str) -> float | None:
    """The sum over all phases; None where one is not known."""
    values = [metrics.get(REFLECTION + name) for metrics in phases]
    numbers = [value for value in values if value is not None]
    return sum(numbers) if len(numbers) == len(values) else None
