"""The measure of signals: what each says of every task's test problems, and whether it tells.

One packed pass per task under its deployed text, nothing drawn.
"""

from collections.abc import Iterable, Mapping
from statistics import fmean

from fastslow.core.types import Metric
from fastslow.measure.base import Measure, Measured, Snapshot
from fastslow.policy.signals import Signal


def signal_measure(signals: Mapping[str, Signal]) -> Measure:
    """Mean of each signal over a task's test sample, and its AUROC for wrong answers, by name."""

    def measure(snapshot: Snapshot) -> Iterable[Measured]:
        for task in snapshot.tasks.values():
            examples = snapshot.test_sample(task)
            program = snapshot.policy.live_program(task)
            with snapshot.policy.adapters.serving(task.name):  # as its scores were made
                readings = snapshot.policy.read_prompts(program, examples)
            scores = snapshot.scores(task)
            wrong = [scores[example.id] < 0.5 for example in examples]
            for name, signal in signals.items():
                values = [signal(reading) for reading in readings]
                yield Measured(
                    f"{name} on {task.name}",
                    (mean_of(values), auroc_of(values, wrong)),
                    {"examples": len(examples), "wrong": sum(wrong)},
                )

    return measure


def mean_of(values: list[float | None]) -> Metric:
    """Mean of a signal over the examples where it is defined."""
    defined = [value for value in values if value is not None]
    reason = None if defined else "the signal is not defined on any example"
    mean = fmean(defined) if defined else None
    return Metric("signal_mean", mean, reason, "mean of the signal; higher = harder")


def auroc_of(values: list[float | None], wrong: list[bool]) -> Metric:
    """How well a signal tells wrong answers from right ones, where it is defined.

    Area under the receiver operating characteristic (Mann and Whitney 1947): 0.5 tells nothing.
    """
    import numpy as np

    from fastslow.measure.stats.rank_figures import aurocs, centred_ranks

    pairs = [(v, w) for v, w in zip(values, wrong, strict=True) if v is not None]
    formula = "share of (wrong, right) pairs with the higher signal on the wrong one, ties half"
    if len({label for _, label in pairs}) < 2:
        reason = "all answers are right, or all are wrong"
        return Metric("signal_auroc", None, reason, formula)
    ranks = centred_ranks(np.array([[value for value, _ in pairs]]))
    [auroc] = aurocs(ranks, np.array([label for _, label in pairs]))
    return Metric("signal_auroc", float(auroc), None, formula)
