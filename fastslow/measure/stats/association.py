"""How well one number tells another: pure functions on lists."""

from collections.abc import Sequence


def auroc(scores: Sequence[float], positive: Sequence[bool]) -> float | None:
    """Area under the receiver operating characteristic: P(score of a positive > of a negative).

    Ties count half. By ranks (Mann and Whitney 1947).

    Args:
        scores: Higher speaks for positive.
        positive: The truth of each.

    Returns:
        In [0, 1], 0.5 for scores that tell nothing; None where one of the classes is empty.
    """
    from scipy.stats import rankdata

    ranks = rankdata(scores)  # equal scores share the mean of their ranks
    num_positive = sum(positive)
    num_negative = len(positive) - num_positive
    if not (num_positive and num_negative):
        return None
    rank_sum = sum(rank for rank, is_positive in zip(ranks, positive, strict=True) if is_positive)
    wins = rank_sum - num_positive * (num_positive + 1) / 2
    return float(wins / (num_positive * num_negative))
