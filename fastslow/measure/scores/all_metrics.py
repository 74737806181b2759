"""All metrics of one score matrix: of the whole run, and of one task with its reasons."""

from collections.abc import Callable
from functools import partial

from fastslow.core.types import Metric
from fastslow.measure.scores.accuracy import (
    average_accuracy,
    average_incremental_accuracy,
    learning_accuracy,
    lower_triangle_accuracy,
    min_acc,
    wc_acc,
    worst_of,
)
from fastslow.measure.scores.forgetting import (
    forgetting_any_of,
    forgetting_chaudhry,
    forgetting_chaudhry_any,
    forgetting_first_last,
    forgetting_incl_final,
    forgetting_of,
    forgetting_relative,
    forgetting_relative_of,
    retention_gain,
    retention_of,
)
from fastslow.measure.scores.intransigence import (
    Reference,
    fwt_isolated,
    intransigence,
    intransigence_of,
    learning_gain,
)
from fastslow.measure.scores.matrix import ScoreMatrix, each_task_once
from fastslow.measure.scores.transfer import (
    bwt_diaz,
    bwt_gem,
    bwt_plus,
    bwt_trace,
    fwt_diaz,
    fwt_gem,
    rem,
)
from fastslow.measure.stats.figure import Undefined, figure


def final_metrics(
    R: ScoreMatrix,
    *,
    noise_floor: float | None = None,
    reference: Reference | None = None,
) -> dict[str, Metric]:
    """Every metric of a run's scores, by name, in the order of the report.

    Args:
        R: The score matrix; `matrix.upto(k)` gives the metrics as they stood after stage k.
        noise_floor: As in `retention_gain`.
        reference: As in `intransigence`.
    """
    metrics = (
        average_accuracy(R),
        learning_accuracy(R),
        bwt_gem(R),
        fwt_gem(R),
        forgetting_chaudhry(R),
        intransigence(R, reference),
        retention_gain(R, noise_floor),
        learning_gain(R),
        average_incremental_accuracy(R),
        lower_triangle_accuracy(R),
        min_acc(R),
        wc_acc(R),
        bwt_trace(R),
        bwt_diaz(R),
        rem(R),
        bwt_plus(R),
        fwt_diaz(R),
        fwt_isolated(R, reference),
        forgetting_chaudhry_any(R),
        forgetting_incl_final(R),
        forgetting_first_last(R),
        forgetting_relative(R),
    )
    return {metric.name: metric for metric in metrics}


def task_metrics(
    R: ScoreMatrix,
    j: int,
    *,
    noise_floor: float | None = None,
    reference: Reference | None = None,
) -> dict[str, Metric]:
    """The terms that task j gives to the means of `final_metrics`, by the names of those means.

    Args:
        R: The score matrix.
        j: The task, by its stage, 1 <= j <= T.
        noise_floor: As in `retention_gain`.
        reference: As in `intransigence`.
    """
    T, floor = R.num_stages, noise_floor or 0.0
    end, best, gain = f"R[{T},{j}]", f"max_{{{j}<=l<{T}}} R[l,{j}]", f"(R[{j},{j}] - R[0,{j}])"
    later: dict[str, tuple[str, Callable[[], float]]] = {
        "min_acc": (f"min_{{l>{j}}} R[l,{j}]", lambda: worst_of(R, j)),
        "forgetting_chaudhry": (f"{best} - {end}", lambda: forgetting_of(R, j)),
        "forgetting_chaudhry_any": (
            f"max_{{1<=l<{T}}} R[l,{j}] - {end}",
            lambda: forgetting_any_of(R, j),
        ),
        "forgetting_incl_final": (
            f"max(0, {best} - {end})",
            lambda: max(0.0, forgetting_of(R, j)),
        ),
        "forgetting_first_last": (f"R[{j},{j}] - {end}", lambda: R[j, j] - R[T, j]),
        "forgetting_relative": (
            f"({best} - {end}) / {best}",
            lambda: forgetting_relative_of(R, j),
        ),
    }
    always: dict[str, tuple[str, Callable[[], float]]] = {
        "retention_gain": (f"({end} - R[0,{j}]) / {gain}", lambda: retention_of(R, j, floor)),
        "intransigence": (f"r_{j} - R[{j},{j}]", lambda: intransigence_of(R, j, reference)),
    }

    def term(name: str, compute: Callable[[], float]) -> float:
        each_task_once(R)
        if name in later and j == T:
            raise Undefined("learned in the last stage: nothing came after")
        return compute()

    return {
        name: figure(name, formula, partial(term, name, compute))
        for name, (formula, compute) in (later | always).items()
    }
