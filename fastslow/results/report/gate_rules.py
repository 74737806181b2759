"""The gate's rules as pure functions on numbers: the loss, its limit, and the verdict.

A loss is a drop of a score, positive when it got worse; that of a learned task is the report's
change since the task's own stage with its sign turned. It fails when it exceeds the larger of the
user's threshold and the noise floor. By default the estimate itself is compared; with `strict` the
upper end of its 95 % interval, so that only what the examples can show to be small enough passes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, TypeAlias

from fastslow.measure.stats.intervals import Z_95, Z_DETECT, Interval, PairedDifference
from fastslow.results.render.layout import Table, Text, row

RuleName: TypeAlias = Literal[
    "forgetting", "task_forgetting", "below_base", "against", "task_against", "min_score"
]
SLACK = 1e-9
"""Rounding that does not count as a loss."""
MAX_FORGETTING = 0.02
"""Default of the largest mean loss; ours."""
MAX_TASK_FORGETTING = 0.05
"""Default of the largest loss of one task; ours."""


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule applied."""

    rule: RuleName
    task: str | None
    """None for a mean over tasks."""
    value: float
    """A loss in score units, positive = got worse; for `min_score` the score."""
    low: float | None
    """Lower end of its 95 % interval; None where the differences have no spread."""
    high: float | None
    n: int
    """Examples behind it."""
    limit: float
    """The value, or with `strict` its bound, was compared with it."""
    limit_from: Literal["option", "noise floor"]
    smallest_detectable: float | None
    """None for `min_score`."""
    passed: bool
    drop_shown: bool | None = None
    """Whether the report calls the loss a significant drop; None for `min_score`."""


def mean_change(changes: Sequence[PairedDifference]) -> PairedDifference:
    """The mean of several tasks' changes, the tasks taken as fixed.

    SE = sqrt(sum se_j^2) / m. A task whose differences have no spread gives the most that Wilson's
    interval allows, on the side of the loss, in place of a standard error.
    """
    m, mean = len(changes), fmean(change.mean for change in changes)
    se = math.sqrt(sum(change.se**2 for change in changes if change.se is not None)) / m
    unknown = sum(change.smallest_detectable for change in changes if change.se is None) / m
    return PairedDifference(
        n=sum(change.n for change in changes),
        mean=mean,
        se=se or None,
        low=mean - Z_95 * se - unknown if se else None,
        high=mean + Z_95 * se if se else None,
        p_value=None,
        smallest_detectable=Z_DETECT * se + unknown,
        reason=None if se else changes[0].reason,
    )


def judge_loss(
    rule: RuleName,
    task: str | None,
    change: PairedDifference,
    threshold: float,
    floor: float | None,
    *,
    strict: bool,
) -> RuleResult:
    """Whether a loss is at most the larger of the threshold and the noise floor.

    `change` is after - before, of one task or of the mean; without any spread the upper end of its
    loss is the most that Wilson's interval allows. `strict` compares that end.
    """
    value = 0.0 - change.mean
    high = value + change.smallest_detectable if change.low is None else -change.low
    high = min(1.0, high)
    limit = threshold if floor is None else max(threshold, floor)
    return RuleResult(
        rule=rule,
        task=task,
        value=value,
        low=None if change.high is None else 0.0 - change.high,
        high=high,
        n=change.n,
        limit=limit,
        limit_from="noise floor" if limit > threshold else "option",
        smallest_detectable=min(1.0, change.smallest_detectable),
        passed=(high if strict else value) <= limit + SLACK,
        drop_shown=change.is_drop,
    )


def judge_losses(
    rules: tuple[RuleName | None, RuleName],
    changes: Mapping[str, PairedDifference],
    floors: Mapping[str, float | None],
    thresholds: tuple[float, float] = (MAX_FORGETTING, MAX_TASK_FORGETTING),
    *,
    strict: bool = False,
) -> list[RuleResult]:
    """The rule on the mean over tasks, where it has a name, and the rule on each task.

    `changes` and noise `floors` are by task; `thresholds` are that of the mean and of a task.
    """
    of_mean, of_task = rules
    results = []
    if of_mean is not None and changes:
        mean = mean_change(list(changes.values()))
        measured = [floor for name in changes if (floor := floors[name]) is not None]
        # the mean of the tasks' noise floors: noise of a mean is at most that
        floor = sum(measured) / len(changes) if measured else None
        results.append(judge_loss(of_mean, None, mean, thresholds[0], floor, strict=strict))
    for name, change in changes.items():
        limits = (thresholds[1], floors[name])
        results.append(judge_loss(of_task, name, change, *limits, strict=strict))
    return results


def side_by_side(rules: Sequence[RuleResult]) -> Table:
    """What the report and what the gate concludes of each loss since a task's own stage."""
    losses = [rule for rule in rules if rule.rule in ("forgetting", "task_forgetting")]
    return Table(
        "Did a task drop? Report and gate",
        (
            "task",
            "drop",
            "report: is a drop shown?",
            "gate: is it within the limit?",
            "gate --strict: is more excluded?",
        ),
        tuple(row(rule.task or "mean", *_conclusions(rule)) for rule in losses),
        "Drop: score right after the task's own stage minus score at the end, paired over the same "
        "examples; positive = dropped. One estimate, three questions: the report asks whether it "
        "is significantly above 0, the gate whether it is at most the limit, --strict whether the "
        "upper end of its 95 % interval is. To that of the mean a task on which nothing changed "
        "adds what Wilson's interval still allows.",
    )


def _conclusions(rule: RuleResult) -> tuple[Text | str, ...]:
    value, most = 0.0 + rule.value, 1.0 if rule.high is None else rule.high
    low = "-" if rule.low is None else f"{rule.low:+.2f}"
    is_within, is_excluded = (end <= rule.limit + SLACK for end in (value, most))
    limit = f"{rule.limit:.2f}" + " (noise floor)" * (rule.limit_from == "noise floor")
    detectable = f"no; one below {rule.smallest_detectable or 0:.2f} could have been missed"
    return (
        f"{value:+.2f} [{low}, {most:+.2f}]",
        Text("yes, significantly", "strong") if rule.drop_shown else detectable,
        f"yes: at most {limit}" if is_within else Text(f"no: above {limit}", "strong"),
        f"yes: at most {most:.2f}" if is_excluded else f"no: up to {most:.2f} is possible",
    )


def judge_score(
    task: str, score: float, interval: Interval | None, n: int, least: float, *, strict: bool
) -> RuleResult:
    """Whether a score is at least the one demanded; `strict` compares its lower bound.

    A score without an interval cannot be shown to be anything: with `strict` it fails.
    """
    low, high = (interval.low, interval.high) if interval else (None, None)
    compared = low if strict else score
    return RuleResult(
        rule="min_score",
        task=task,
        value=score,
        low=low,
        high=high,
        n=n,
        limit=least,
        limit_from="option",
        smallest_detectable=None,
        passed=compared is not None and compared >= least - SLACK,
    )
