"""A row of the score matrix in a few figures: those that a report begins with, as the row has them.

Trackers get them as a run goes on, and pages about runs show them. The formulas are those of the
report; what is undefined in a row has no value there.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from fastslow.measure.scores.all_metrics import final_metrics
from fastslow.measure.scores.matrix import ScoreMatrix
from fastslow.records.cells import CellTable
from fastslow.records.events import (
    CycleEvent,
    DriftEvent,
    EvaluationEvent,
    Event,
    RemedyEvent,
    ScoreRow,
    TextEvent,
)

SCORES = ("average_accuracy", "learning_accuracy", "bwt_gem", "forgetting_chaudhry")
"""Metrics of the matrix as it stood after a row; docs/methods.md has their formulas."""
KL, ROLLOUTS, TOKENS, MINUTES = "kl_fst", "rollouts", "tokens", "minutes"
FORMULAS: Mapping[str, str] = {
    **{
        name: metric.formula
        for name, metric in final_metrics(ScoreMatrix((), (), ((),))).items()
        if name in SCORES
    },
    KL: "KL(tuned || base) in nats per token, mean over the tasks trained on until then",
    ROLLOUTS: "completions drawn to train until then, of both channels",
    TOKENS: "tokens of the completions drawn in cycles until then, of both channels",
    MINUTES: "time in channels and evaluation until then",
}
"""How each figure comes about, in a line."""


def row_metrics(
    tasks: Sequence[str],
    stages: Sequence[str],
    scores: Sequence[ScoreRow],
    events: Sequence[Event],
    row: int,
) -> dict[str, float]:
    """The figures of a row that is complete, by the names of `FORMULAS`; 0 is the base.

    Errors as of `CellTable`. Records of later rows and stages change nothing.
    """
    past = events[: _end(events, row)]
    matrix = CellTable(scores, stages, past).matrix(tasks).upto(row)
    metrics = final_metrics(matrix)
    values = {name: metrics[name].value for name in SCORES}
    values[KL] = mean_kl(kl_values(past), row, stages[:row])
    values[ROLLOUTS] = sum(map(_rollouts, past))
    values[TOKENS] = _tokens(past)
    values[MINUTES] = sum(map(_seconds, past)) / 60
    return {name: float(value) for name, value in values.items() if value is not None}


def kl_values(events: Iterable[Event]) -> dict[tuple[int, str], float]:
    """`kl_fst` under the deployed prompt, by row and task, where it was measured."""
    return {
        (event.row, event.task): event.value
        for event in events
        if isinstance(event, DriftEvent) and event.value is not None
        if (event.name, event.text) == (KL, "with_text")
    }


def mean_kl(
    values: Mapping[tuple[int, str], float], row: int, tasks: Iterable[str]
) -> float | None:
    """Mean of `kl_values` over tasks in a row; None where one was not measured, or there is none.

    A task that is named twice counts once.
    """
    cells = [values.get((row, task)) for task in dict.fromkeys(tasks)]
    measured = [value for value in cells if value is not None]
    return fmean(measured) if measured and len(measured) == len(cells) else None


def _end(events: Sequence[Event], row: int) -> int:
    """How many events there were when the row was complete."""
    return max((i for i, e in enumerate(events, 1) if getattr(e, "row", None) == row), default=0)


def _rollouts(event: Event) -> int:
    """Completions that a channel drew."""
    if isinstance(event, CycleEvent):
        return sum(event.rollouts.values())
    return event.rollouts if isinstance(event, TextEvent | RemedyEvent) else 0


def _tokens(events: Iterable[Event]) -> int | None:
    """Tokens drawn in cycles; None before the first, and where a version did not count them."""
    counts = [event.tokens for event in events if isinstance(event, CycleEvent)]
    totals = [sum(count.values()) for count in counts if count is not None]
    return sum(totals) if totals and len(totals) == len(counts) else None


def _seconds(event: Event) -> float:
    """Wall time of a channel or of the evaluation."""
    if isinstance(event, CycleEvent):
        return sum(event.seconds.values())
    return event.seconds if isinstance(event, TextEvent | RemedyEvent | EvaluationEvent) else 0.0
