"""Figures of many signals at once, computed from ranks: AUROC, Spearman, partial Spearman, ridge.

Shapes: S signals, n problems, c controls, d numbers of a state. A figure that has no value is NaN
within these functions only.
"""

from collections.abc import Hashable, Sequence
from random import Random

import numpy as np
from jaxtyping import Bool, Float

FOLDS = 5
_NOTHING = 1e-9
"""Share of the spread below which a remainder is rounding."""
_PENALTIES = 10.0 ** np.arange(-2, 5)
"""Penalties that ridge chooses among, in mean squared singular values."""


def centred_ranks(values: Float[np.ndarray, "rows n"]) -> Float[np.ndarray, "rows n"]:
    """Ranks within each row, ties sharing their mean rank, less the mean of all ranks."""
    from scipy.stats import rankdata

    ranks: Float[np.ndarray, "rows n"] = rankdata(values, axis=1) - (values.shape[1] + 1) / 2
    return ranks


def aurocs(
    ranks: Float[np.ndarray, "S n"], wrong: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, " S"]:
    """Share of (wrong, right) pairs with the higher value on the wrong one, ties half; in [0, 1].

    `ranks` are centred. NaN where all are right, or all are wrong.

    Source: Mann and Whitney 1947.
    """
    num_wrong = int(wrong.sum())
    pairs = num_wrong * (wrong.size - num_wrong)
    if not pairs:
        return np.full(len(ranks), np.nan)
    shares: Float[np.ndarray, " S"] = 0.5 + ranks[:, wrong].sum(axis=1) / pairs
    return shares


def correlations(
    rows: Float[np.ndarray, "S n"], target: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " S"]:
    """Correlation of each centred row with a centred target, in [-1, 1]; NaN without a spread.

    Of ranks it is Spearman's.
    """
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(target)
    with np.errstate(invalid="ignore", divide="ignore"):
        values: Float[np.ndarray, " S"] = np.where(norms > 0, rows @ target / norms, np.nan)
    return values


def partial_correlations(
    rows: Float[np.ndarray, "S n"],
    target: Float[np.ndarray, " n"],
    controls: Float[np.ndarray, "c n"],
) -> Float[np.ndarray, " S"]:
    """`correlations` of what least squares on the controls leaves of rows and target.

    All are centred; of ranks it is the partial Spearman correlation. NaN for a row, or all, that
    the controls determine.
    """
    _, sizes, directions = np.linalg.svd(controls, full_matrices=False)
    span = directions[sizes > _NOTHING * max(sizes, default=0)]  # [rank, n], orthonormal
    both = np.vstack([rows, target])
    rest = both - (both @ span.T) @ span
    has_rest = np.linalg.norm(rest, axis=1) > np.sqrt(_NOTHING) * np.linalg.norm(both, axis=1)
    rest[~has_rest] = 0
    return correlations(rest[:-1], rest[-1])


def ridge_out_of_fold(
    states: Float[np.ndarray, "n d"],
    targets: Float[np.ndarray, "n t"],
    clusters: Sequence[Hashable],
    generator: Random,
) -> Float[np.ndarray, "n t"]:
    """What ridge regression on the states predicts of each problem, learned on the other folds.

    Five folds of whole clusters, of which there must be as many at least. States are standardised
    on the problems learned from.
    """
    labels = list(dict.fromkeys(clusters))
    generator.shuffle(labels)
    fold_of = {label: number % FOLDS for number, label in enumerate(labels)}
    folds = np.array([fold_of[cluster] for cluster in clusters])
    predictions = np.empty_like(targets)
    for fold in range(FOLDS):
        rest = folds != fold
        mean, spread = states[rest].mean(axis=0), states[rest].std(axis=0)
        scaled = (states - mean) / np.where(spread > 0, spread, 1)
        centre = targets[rest].mean(axis=0)
        weights = _ridge(scaled[rest], targets[rest] - centre)  # [d, t]
        predictions[~rest] = scaled[~rest] @ weights + centre
    return predictions


def _ridge(
    inputs: Float[np.ndarray, "m d"], targets: Float[np.ndarray, "m t"]
) -> Float[np.ndarray, "d t"]:
    """Ridge weights, each target with the penalty that generalised cross-validation prefers.

    Source: Golub, Heath and Wahba 1979.
    """
    U, sizes, Vt = np.linalg.svd(inputs, full_matrices=False)
    squares, coordinates = sizes**2, U.T @ targets  # [r], [r, t]
    penalties = _PENALTIES * max(squares.mean(), 1e-12)
    kept_shares = squares / (squares + penalties[:, None])  # [penalties, r]
    freedom = 1 - (kept_shares.sum(axis=1) + 1) / len(inputs)  # [penalties]
    # squared residuals: what lies outside the inputs' span, and what the penalty keeps from within
    outside = (targets**2).sum(axis=0) - (coordinates**2).sum(axis=0)  # [t]
    within = (1 - kept_shares) ** 2 @ coordinates**2  # [penalties, t]
    errors = (outside + within) / np.maximum(freedom, 1e-6)[:, None] ** 2
    best = penalties[errors.argmin(axis=0)]  # [t]
    shrunk = sizes[:, None] * coordinates / (squares[:, None] + best)  # [r, t]
    weights: Float[np.ndarray, "d t"] = Vt.T @ shrunk
    return weights
