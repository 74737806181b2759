"""What the remedies against forgetting did in each stage, and what that cost."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from statistics import fmean

from fastslow.records.events import CycleEvent, RemedyEvent
from fastslow.results.render.layout import Table, Text, row, score_or_dash
from fastslow.results.report.section import Records, Section, stage_label

SHRINK = (
    "keep_share",
    "factor",
    "validation_start",
    "validation_before",
    "validation_after",
    "validation_n",
)
"""Figures that every event of the remedy `shrink` has."""
PREFIX, FIGURES = "slow/remedy/", ("loss", "gradient_share")
"""Metrics of a cycle that are a remedy's: the prefix, the remedy's name, one of the figures."""


@dataclass(frozen=True, slots=True)
class StageRemedy:
    """What one remedy did in one stage: to its updates, and at its end."""

    event: RemedyEvent
    """The last one of the stage and remedy."""
    loss: float | None
    """Of its loss term before its strength, the mean over the stage's cycles of the mean over their
    updates; None where it added none to any of them."""
    gradient_share: float | None
    """The same of the norm of its gradient over that of the task's."""


class Remedies(Section):
    """Every stage and remedy; shrinking has a section of its own."""

    chapter = "curves"

    def __init__(self, records: Records) -> None:
        events = [e for e in records.events_of(RemedyEvent) if not _is_shrink(e)]
        phases = [event for event in records.events_of(CycleEvent) if "slow" in event.rollouts]
        cycles = {(event.stage, event.cycle): event for event in phases}
        self.remedies = [
            StageRemedy(event, *(_mean(cycles.values(), event, figure) for figure in FIGURES))
            for event in {(e.stage, e.name): e for e in events}.values()
        ]

    def to_json(self) -> Mapping[str, object]:
        # no key at all without a remedy, so that reports of other runs stay as they are
        items = [
            {**asdict(r.event), "loss": r.loss, "gradient_share": r.gradient_share}
            for r in self.remedies
        ]
        return {"remedies": items} if items else {}

    def tables(self) -> Iterator[Table]:
        header = ("stage", "remedy", "loss", "gradient share", "figures", "rollouts", "seconds")
        yield Table(
            "Remedies",
            (*header, "MB kept", "notes"),
            tuple(map(_row, self.remedies)),
            "What each remedy against forgetting did in a stage. Loss: what it adds to that of an "
            "update, before its strength. Gradient share: the norm of what it adds to the gradient "
            "over that of the task's own. Both are means over the updates of a cycle, and then "
            "over the cycles; a dash where it added nothing. The figures are its own, of the "
            "stage's end. Rollouts are those that it drew when the stage began and ended, seconds "
            "those of the whole stage with its updates; both count as the slow channel's. MB kept: "
            "the size of what it remembers from then on, in 10^6 bytes; a dash where that is "
            "nothing, or not known.",
        )


def _mean(cycles: Iterable[CycleEvent], event: RemedyEvent, figure: str) -> float | None:
    """Mean of a remedy's figure over the cycles of the event's stage that have it."""
    name = f"{PREFIX}{event.name}/{figure}"
    values = [cycle.metrics.get(name) for cycle in cycles if cycle.stage == event.stage]
    numbers = [value for value in values if value is not None]
    return fmean(numbers) if numbers else None


def _row(remedy: StageRemedy) -> tuple[Text, ...]:
    event, means = remedy.event, (remedy.loss, remedy.gradient_share)
    figures = event.figures.items()
    words = (f"{name} {'undefined' if v is None else f'{v:.4g}'}" for name, v in figures)
    return row(
        stage_label(event.stage, event.task),
        event.name,
        *("-" if mean is None else f"{mean:.4g}" for mean in means),
        ", ".join(words) or "-",
        event.rollouts,
        f"{event.seconds + event.update_seconds:.1f}",
        f"{event.bytes / 1e6:.3f}" if event.bytes else "-",
        " ".join(event.notes) or "-",
    )


def _is_shrink(event: RemedyEvent) -> bool:
    """Whether an event is of the remedy `shrink`, and not of another that took its name."""
    return event.name == "shrink" and all(event.figures.get(name) is not None for name in SHRINK)


class Shrink(Section):
    """What scaling the adapter down gave up and saved, the last event of each stage."""

    chapter = "curves"

    def __init__(self, records: Records) -> None:
        events = records.events_of(RemedyEvent)
        self.events = list({e.stage: e for e in events if _is_shrink(e)}.values())

    def to_json(self) -> Mapping[str, object]:
        return {"shrink": [_shrink_json(event) for event in self.events]}

    def tables(self) -> Iterator[Table]:
        header = ("stage", "factor", "start", "left", "scaled", "share of the gain kept")
        yield Table(
            "Shrink",
            (*header, "kl before", "kl after", "earlier tasks"),
            tuple(_shrink_row(event) for event in self.events),
            "The adapter after each stage, scaled to the smallest factor that keeps the configured "
            "share of the stage's gain. Validation scores as the stage found the adapter, as it "
            "left it, and scaled; KL(tuned || base) in nats per token on validation inputs; what "
            "the scaling changed on validation of earlier tasks.",
        )


def _values(event: RemedyEvent) -> dict[str, float]:
    return {name: value for name, value in event.figures.items() if value is not None}


def _earlier(values: Mapping[str, float]) -> Iterator[tuple[str, float, float]]:
    """Each earlier task, its score before and after scaling."""
    for name, before in values.items():
        kind, _, task = name.partition("/")
        if kind == "earlier_before" and f"earlier_after/{task}" in values:
            yield task, before, values[f"earlier_after/{task}"]


def _shrink_json(event: RemedyEvent) -> dict[str, object]:
    values = _values(event)
    return {
        "stage": event.stage,
        "task": event.task,
        "share": values["keep_share"],
        "factor": values["factor"],
        "reason": " ".join(event.notes) or None,
        "validation": {
            **{name: values[f"validation_{name}"] for name in ("start", "before", "after")},
            "n": int(values["validation_n"]),
        },
        "kl_fst": {name: values.get(f"kl_{name}") for name in ("before", "after")},
        "earlier": {task: {"before": b, "after": a} for task, b, a in _earlier(values)},
        "rollouts": event.rollouts,
        "seconds": event.seconds,
    }


def _shrink_row(event: RemedyEvent) -> tuple[Text, ...]:
    values, reason = _values(event), " ".join(event.notes)
    start, before, after = (values[f"validation_{name}"] for name in ("start", "before", "after"))
    share = (after - start) / (before - start) if before > start else None
    kl = (values.get("kl_before"), values.get("kl_after"))
    earlier = ", ".join(f"{task} {b - a:+.2f}" for task, a, b in _earlier(values))
    return row(
        stage_label(event.stage, event.task),
        f"{values['factor']:g}" + (f": {reason}" if reason else ""),
        *(score_or_dash(value) for value in (start, before, after, share)),
        *("-" if value is None else f"{value:.4f}" for value in kl),
        earlier or "-",
    )
