"""How far a score or a difference can be trusted: intervals, paired tests, detectable drops.

Pure functions on numbers; 95 % limits throughout, uncorrected for the number of tasks. Examples
are independent draws unless they name clusters, e.g. several questions on one text; then clusters
are. Tests over seeds and over several claims are in
`significance.py`.

Source: Miller 2024 (arXiv 2411.00640) for paired differences; Wilson 1927; McNemar 1947.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

Z_95 = 1.96
"""Standard errors on each side of a 95 % interval."""
Z_DETECT = 2.80
"""Standard errors a true change must have to be found with 80 % power at two-sided 5 %."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval and how it was made."""

    low: float
    high: float
    method: Literal["wilson", "normal", "bootstrap"]
    """`wilson` for scores that are all 0 or 1, `normal` (mean +- 1.96 SE) for other means,
    `bootstrap` for figures without a standard error of their own."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Mean of after - before over the same examples; negative = got worse."""

    n: int
    """Examples scored both times; >= 1."""
    mean: float
    """In score units, in [-1, 1]."""
    se: float | None
    """Standard error of `mean`; None when the differences have no spread."""
    low: float | None
    """Lower end of the 95 % interval, >= -1; None with `se`."""
    high: float | None
    """Upper end of the 95 % interval, <= 1; None with `se`."""
    p_value: float | None
    """Exact: McNemar's test where every score is 0 or 1 and the examples are independent; a sign
    test where all differences are the same; else None."""
    smallest_detectable: float
    """The smallest true drop that would be found with 80 % power, 2.80 SE; in score units."""
    reason: str | None
    """Why there is no interval; None when there is one."""

    @property
    def is_drop(self) -> bool:
        """Whether it got significantly worse at 5 %: by `p_value`, else by the interval."""
        return self.mean < 0 and self._is_significant

    @property
    def is_rise(self) -> bool:
        """Whether it got significantly better at 5 %; as `is_drop`."""
        return self.mean > 0 and self._is_significant

    @property
    def _is_significant(self) -> bool:
        if self.p_value is not None:
            return self.p_value < 0.05
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def wilson(successes: float, n: float) -> Interval:
    """Wilson's 95 % interval of a share, good at small n and near 0 and 1.

    Its limits are in [0, 1] with `successes / n` between them; n >= 1.
    """
    if not (n >= 1 and 0 <= successes <= n):
        raise ValueError(f"wilson: need 0 <= successes <= n and n >= 1, got {successes} of {n}.")
    share, z2 = successes / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return Interval(
        max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), "wilson"
    )


def mean_interval(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    least: float = -math.inf,
    most: float = math.inf,
) -> Interval | None:
    """Mean +- 1.96 clustered standard errors, cut to [least, most]; None without a spread."""
    se = clustered_se(values, clusters)
    if not se:
        return None
    mean = fmean(values)
    return Interval(max(least, mean - Z_95 * se), min(most, mean + Z_95 * se), "normal")


def named_limits(name: str, interval: Interval | None) -> dict[str, float]:
    """The ends of a figure's interval as numbers of a record, `NAME/low` and `NAME/high`."""
    return {f"{name}/low": interval.low, f"{name}/high": interval.high} if interval else {}


def cluster_labels(examples: Iterable[str], clusters: Mapping[str, str]) -> list[tuple[bool, str]]:
    """The cluster of each example; one without a cluster is its own, whatever others are called."""
    return [(e in clusters, clusters.get(e, e)) for e in examples]


def score_interval(
    scores: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> Interval | None:
    """95 % interval of a mean score: Wilson if every score is 0 or 1, else normal, cut to [0, 1].

    `clusters` gives the cluster of each score; None takes each as its own. Wilson's interval is
    then that of as many independent scores as would have the clustered standard error, at most as
    many as there are. None where no interval can be given: no scores, or graded scores without
    spread.

    Source: the effective number after Korn & Graubard 1998 (Survey Methodology 24).
    """
    if not scores:
        return None
    labels = clusters or range(len(scores))
    if not all(score in (0, 1) for score in scores):
        return mean_interval(scores, labels, least=0.0, most=1.0)
    independent = _independent(scores, labels)
    return wilson(fmean(scores) * independent, independent)


def _independent(scores: Sequence[float], labels: Sequence[Hashable]) -> float:
    """How many independent 0/1 scores have this standard error; without one, the clusters."""
    n, num_clusters = len(scores), len(set(labels))
    se = clustered_se(scores, labels) if num_clusters < n else None
    if not se:
        return num_clusters
    mean = fmean(scores)
    # stdev^2 / n of independent scores, with n - 1 in the denominator as in `clustered_se`
    return max(1.0, min(n, mean * (1 - mean) / se**2 * n / (n - 1)))


def paired_difference(
    before: Sequence[float], after: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> PairedDifference:
    """Mean, standard error and 95 % interval of after - before on the same examples.

    `clusters` gives the cluster of each example; None takes each as its own. When no two
    differences differ there is no spread to estimate an interval from. The smallest detectable drop
    is then the most that Wilson's interval allows for 0 changes in n (ours): to have seen no change
    in a few examples does not prove that there is none.

    Raises:
        ValueError: The lengths differ, or there is no example.
    """
    differences = [b - a for a, b in zip(before, after, strict=True)]
    p_value, is_clustered = None, clusters and len(set(clusters)) < len(clusters)
    if not is_clustered and all(score in (0, 1) for score in (*before, *after)):
        p_value = mcnemar(differences.count(-1), differences.count(1))
    return difference_of(differences, clusters, p_value=p_value)


def difference_of(
    differences: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    p_value: float | None = None,
    limit: float = 1.0,
) -> PairedDifference:
    """As `paired_difference`, from one difference, or other sum of scores, per example.

    `p_value` is that of a test made on the scores; the interval is cut to [-limit, limit].

    Raises:
        ValueError: There is no difference.
    """
    n = len(differences)
    if not n:
        raise ValueError("paired_difference: no examples. Score at least one both times.")
    labels = clusters or range(n)
    mean, se, num_clusters = fmean(differences), clustered_se(differences, labels), len(set(labels))
    if not se:
        reason = "every example changed by the same"
        if num_clusters == 1:
            reason = f"one {'example' if n == 1 else 'cluster'} has no spread"
        elif mean == 0:
            reason = "no example changed"
        elif p_value is None:  # sign test: all of them went the same way
            p_value = 2 * 0.5**num_clusters
        least = wilson(0, num_clusters).high
        return PairedDifference(n, mean, None, None, None, p_value, least, reason)
    low, high = max(-limit, mean - Z_95 * se), min(limit, mean + Z_95 * se)
    return PairedDifference(n, mean, se, low, high, p_value, Z_DETECT * se, None)


def clustered_se(values: Sequence[float], clusters: Sequence[Hashable]) -> float | None:
    """Standard error of the mean of values that come in clusters of one source each.

    sqrt(C/(C-1) sum_c (sum_{i in c} (d_i - mean))^2) / n with C clusters: the plain standard error
    when every cluster has one member, up to root of the cluster size larger when members agree.

    None with fewer than two clusters; unreliable with fewer than some ten.

    Source: Miller 2024 (arXiv 2411.00640), with the factor C/(C-1) added.
    """
    mean = fmean(values)
    sums: dict[Hashable, float] = defaultdict(float)
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] += value - mean
    if len(sums) < 2:
        return None
    # Sums of deviations that are only rounding would pass for a spread.
    total = math.fsum(deviation**2 for deviation in sums.values() if abs(deviation) > 1e-12)
    return math.sqrt(len(sums) / (len(sums) - 1) * total) / len(values)


def mean_difference(differences: Sequence[PairedDifference]) -> Interval | None:
    """95 % interval of the mean of several tasks' differences, the tasks taken as fixed.

    SE = sqrt(sum se_j^2) / m: it says how the mean would move with other examples of these same
    tasks, nothing about other tasks. A task whose differences have no spread adds none; None when
    no task has a spread.
    """
    squares = [d.se**2 for d in differences if d.se is not None]
    if not squares:
        return None
    mean = fmean(d.mean for d in differences)
    half = Z_95 * math.sqrt(sum(squares)) / len(differences)
    return Interval(mean - half, mean + half, "normal")


def mcnemar(right_to_wrong: int, wrong_to_right: int) -> float:
    """Exact two-sided McNemar test: could the discordant examples be coin flips?

    Takes their numbers, gives the p-value in (0, 1]; 1 when no example changed.
    """
    n, few = right_to_wrong + wrong_to_right, min(right_to_wrong, wrong_to_right)
    outcomes = sum(math.comb(n, i) for i in range(few + 1))
    return min(1.0, 2 * outcomes / (1 << n))
