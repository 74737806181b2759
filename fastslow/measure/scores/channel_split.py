"""Channel split: how much of a gain or a loss is the weights', and how much the text's.

a(w, p) is the score on task j with the weights of stage w and the text p: `seed` the task's first
text, p_j the one chosen when it was learned, p_T the one in deployment at the end, p* one optimised
again on the final weights, chosen on validation. Every figure is a weighted sum of such scores, so
the same weights on the scores of each example give its paired interval.

Source: ours; extends the 2x2 table of Fast-Slow Training (arXiv 2605.12484).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from fastslow.core.types import Metric
from fastslow.measure.stats.figure import Undefined, figure
from fastslow.measure.stats.intervals import PairedDifference, difference_of

T = TypeVar("T")
CellName: TypeAlias = Literal[
    "base_seed",
    "base_own",
    "learned_seed",
    "learned_own",
    "learned_live",
    "final_own",
    "final_live",
    "final_reopt",
]
"""Weights and text of a score. Weights: `base` is stage 0, `learned` stage j, `final` stage T.
Texts: `seed`, `own` is p_j, `live` is p_T, `reopt` is p*."""


@dataclass(frozen=True, slots=True)
class Split:
    """One figure: a weighted sum of cells."""

    weights: Mapping[CellName, float]
    """They sum to 0, so that a constant added to every score changes nothing."""
    formula: str


SPLITS: Mapping[str, Split] = {
    "gain_slow": Split({"learned_seed": 1, "base_seed": -1}, "a(j,seed) - a(0,seed)"),
    "gain_fast": Split({"base_own": 1, "base_seed": -1}, "a(0,p_j) - a(0,seed)"),
    "gain_joint": Split({"learned_own": 1, "base_seed": -1}, "a(j,p_j) - a(0,seed)"),
    "synergy": Split(
        {"learned_own": 1, "learned_seed": -1, "base_own": -1, "base_seed": 1},
        "gain_joint - gain_slow - gain_fast",
    ),
    "tf": Split({"learned_own": 1, "final_live": -1}, "a(j,p_j) - a(T,p_T): total forgetting"),
    "wf": Split({"learned_own": 1, "final_own": -1}, "a(j,p_j) - a(T,p_j): the weights' part"),
    "pf": Split({"learned_own": 1, "learned_live": -1}, "a(j,p_j) - a(j,p_T): the text's part"),
    "ix": Split(
        {"final_own": 1, "learned_live": 1, "learned_own": -1, "final_live": -1},
        "tf - wf - pf: interaction",
    ),
    "wf_s": Split(
        {"learned_own": 0.5, "final_own": -0.5, "learned_live": 0.5, "final_live": -0.5},
        "1/2 [(a(j,p_j) - a(T,p_j)) + (a(j,p_T) - a(T,p_T))]: the weights' part in either order",
    ),
    "pf_s": Split(
        {"learned_own": 0.5, "learned_live": -0.5, "final_own": 0.5, "final_live": -0.5},
        "1/2 [(a(j,p_j) - a(j,p_T)) + (a(T,p_j) - a(T,p_T))]: the text's part in either order",
    ),
    "rec": Split(
        {"final_reopt": 1, "final_live": -1},
        "a(T,p*) - a(T,p_T): recoverable by optimising the text again",
    ),
    "residual": Split(
        {"learned_own": 1, "final_reopt": -1}, "a(j,p_j) - a(T,p*) = tf - rec: not recoverable"
    ),
}
"""All figures, in score units; of losses, positive = lost. `wf_s + pf_s = tf` exactly."""
TEXT_PARTS = ("pf", "ix", "pf_s")
SAME_TEXT = "the task's text is still the one it was learned with: its part is 0 and wf = tf"


def channel_split(
    cells: Mapping[CellName, float | None], *, same_text: bool, budget: int | None = None
) -> dict[str, Metric]:
    """Every figure of the split of one task, by name; see `SPLITS`.

    `cells` are mean scores in [0, 1], `budget` the rollouts p* was optimised with. With `same_text`
    p_T is p_j: cells that differ in that alone stand for each other, and the text's part has a
    reason in place of a zero.
    """
    scores = _filled(cells, same_text)
    figures = {}
    for name, split in SPLITS.items():

        def value(name: str = name, split: Split = split) -> float:
            if same_text and name in TEXT_PARTS:
                raise Undefined(SAME_TEXT)
            if budget is None and "final_reopt" in split.weights:
                raise Undefined("not measured: the text was not optimised again")
            if missing := [cell for cell in split.weights if cell not in scores]:
                raise Undefined(f"not measured: {missing[0]}")
            return sum(weight * scores[cell] for cell, weight in split.weights.items())

        is_reopt = budget is not None and "final_reopt" in split.weights
        spent = f", p* found in {budget} rollouts" if is_reopt else ""
        figures[name] = figure(name, f"{split.formula} (ours){spent}", value)
    return figures


def split_difference(
    name: str,
    examples: Mapping[CellName, Sequence[float]],
    *,
    same_text: bool,
    clusters: Sequence[Hashable] | None = None,
) -> PairedDifference:
    """Mean and 95 % interval of one of `SPLITS` over the examples, which every cell shares.

    `examples` has the score of each example in each cell the figure needs, in one order, and
    `clusters` the cluster of each.

    Raises:
        KeyError: A cell that the figure needs is missing.
        ValueError: The cells have different numbers of examples.
    """
    scores = _filled(examples, same_text)
    weights = SPLITS[name].weights
    rows = zip(*(scores[cell] for cell in weights), strict=True)
    values = [sum(w * s for w, s in zip(weights.values(), row, strict=True)) for row in rows]
    return difference_of(values, clusters, limit=sum(map(abs, weights.values())) / 2)


def _filled(cells: Mapping[CellName, T | None], same_text: bool) -> dict[CellName, T]:
    """The cells; with one text all along, each stands for its twin where that is missing."""
    scores = {cell: score for cell, score in cells.items() if score is not None}
    if same_text:
        twins: dict[CellName, CellName] = {"learned_own": "learned_live", "final_own": "final_live"}
        for cell, twin in (*twins.items(), *((twin, cell) for cell, twin in twins.items())):
            if twin in scores:
                scores.setdefault(cell, scores[twin])
    return scores
