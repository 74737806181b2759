"""All metrics of one score matrix: of the whole run, and of one task with its reasons."""

from collections.abc import Callable
from functools import partial

from fastslow.core.types import Metric
from fastslow.measure.scores import accuracy, forgetting, intransigence, transfer
from fastslow.measure.scores.intransigence import Reference
from fastslow.measure.scores.matrix import MeanMetric, ScoreMatrix, each_task_once
from fastslow.measure.stats.figure import Undefined, figure


def final_metrics(
    R: ScoreMatrix, *, noise_floor: float | None = None, reference: Reference | None = None
) -> dict[str, Metric]:
    """Every metric of a run's scores, by name, in the order of the report.

    `noise_floor` is that of `retention_gain`, `reference` that of `intransigence`;
    `matrix.upto(k)` gives the metrics as they stood after stage k.
    """
    metrics = (
        accuracy.average_accuracy(R),
        accuracy.learning_accuracy(R),
        transfer.bwt_gem(R),
        transfer.fwt_gem(R),
        forgetting.forgetting_chaudhry(R),
        intransigence.named_intransigence(R, reference),
        forgetting.retention_gain(R, noise_floor),
        intransigence.learning_gain(R),
        accuracy.average_incremental_accuracy(R),
        accuracy.lower_triangle_accuracy(R),
        accuracy.min_acc(R),
        accuracy.wc_acc(R),
        transfer.bwt_trace(R),
        transfer.bwt_diaz(R),
        transfer.rem(R),
        transfer.bwt_plus(R),
        transfer.fwt_diaz(R),
        intransigence.fwt_isolated(R, reference),
        forgetting.forgetting_chaudhry_any(R),
        forgetting.forgetting_incl_final(R),
        forgetting.forgetting_first_last(R),
        forgetting.forgetting_relative(R),
    )
    return {metric.name: metric for metric in metrics}


def task_metrics(R: ScoreMatrix, j: int, *, noise_floor: float | None = None) -> dict[str, Metric]:
    """The terms that task j gives to the means of `final_metrics`, by the names of those means."""
    T = R.num_stages
    end, best, gain = f"R[{T},{j}]", f"max_{{{j}<=l<{T}}} R[l,{j}]", f"(R[{j},{j}] - R[0,{j}])"
    later: dict[MeanMetric[[]], str] = {
        accuracy.min_acc: f"min_{{l>{j}}} R[l,{j}]",
        forgetting.forgetting_chaudhry: f"{best} - {end}",
        forgetting.forgetting_chaudhry_any: f"max_{{1<=l<{T}}} R[l,{j}] - {end}",
        forgetting.forgetting_incl_final: f"max(0, {best} - {end})",
        forgetting.forgetting_first_last: f"R[{j},{j}] - {end}",
        forgetting.forgetting_relative: f"({best} - {end}) / {best}",
    }

    def after(term: Callable[[ScoreMatrix, int], float]) -> float:
        each_task_once(R)
        if j == T:
            raise Undefined("learned in the last stage: nothing came after")
        return term(R, j)

    def retention() -> float:
        return forgetting.retention_gain.term(each_task_once(R), j, noise_floor)

    def missed() -> float:
        return intransigence.intransigence.term(each_task_once(R), j)

    figures = [
        figure(mean.term.__name__, formula, partial(after, mean.term))
        for mean, formula in later.items()
    ]
    figures.append(figure("retention_gain", f"({end} - R[0,{j}]) / {gain}", retention))
    figures.append(figure("intransigence", f"r_{j} - R[{j},{j}]", missed))
    return {metric.name: metric for metric in figures}
