"""Concentration: how much of an update's energy its largest entries hold, next to two nulls.

A product of two factors is concentrated without having learned anything: a null of Gaussian numbers
makes every LoRA update look concentrated. So the null is the product of Gaussian factors of the
adapter's rank, each matrix scaled to the norm of the real one.

The real shares are those of arXiv 2505.11711; the null of a product is ours.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean, median
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt

from fastslow.core.keys import OURS, key
from fastslow.core.seeds import derive_seed
from fastslow.core.types import Metric
from fastslow.measure.base import (
    Measure,
    MeasureConfig,
    Measured,
    MeasurePrice,
    RowSize,
    Snapshot,
    measure,
)

if TYPE_CHECKING:
    from fastslow.measure.model.magnitudes import Deltas

SHARES = (0.01, 0.05, 0.10)
"""Shares of the largest entries, of all adapted matrices together."""
WITHIN = 0.05
"""The same within each matrix: entries chosen over all matrices favour those of large norm."""
FORMULAS = {f"top{share * 100:g}": f"{share:.0%} of all entries" for share in SHARES} | {
    "top5_within": f"{WITHIN:.0%} of the entries of each matrix, median over matrices"
}
"""What an energy share is that of, by its name."""
DRAW_UNITS = 30
"""Work of a pass over all adapted entries."""


class ConcentrationConfig(MeasureConfig):
    """Energy in the largest entries of the change, next to what a random product has."""

    needs_change: ClassVar[bool] = True

    kind: Literal["concentration"] = key("concentration", "name", OURS)
    """Which measure."""
    draws: PositiveInt = key(19, "draws", "ours: the largest of 19 is passed by chance in 5 %")
    """Random products that the change is compared with."""

    def price(self, size: RowSize) -> MeasurePrice:
        """A pass over all entries for each draw, and one over the change."""
        return MeasurePrice(extra=DRAW_UNITS * (self.draws + 1) if size.row else 0)


@measure(name="concentration", source="arXiv 2505.11711; the null of a product is ours")
def concentration(config: ConcentrationConfig) -> Measure:
    """Energy of the largest entries of the whole change, next to random products of its rank."""

    def take(snapshot: Snapshot) -> Iterable[Measured]:
        from fastslow.measure.model.geometry import gaussian_energy_share

        if snapshot.change is None:
            return
        shares = energy_shares(snapshot.change)
        nulls = null_shares(snapshot.change, config.draws, snapshot.seed) if shares else []
        gaussian = {f"gaussian_top{100 * s:g}": gaussian_energy_share(s) for s in SHARES}
        numbers = {"draws": float(config.draws), **gaussian}
        yield Measured("the whole change", tuple(_figures(shares, nulls)), numbers)

    return take


def energy_shares(deltas: "Deltas") -> dict[str, float]:
    """Of the largest entries of an update, in [0, 1], by the names of `FORMULAS`; from one pass.

    Empty where the update is zero everywhere; matrices that are zero are no part of the median.
    """
    from fastslow.measure.model.magnitudes import Magnitudes, magnitudes_of

    together, within = Magnitudes(), []
    for delta in deltas():
        magnitudes = magnitudes_of(delta.dense())
        together.add(magnitudes)
        within.append(magnitudes.top_energy_share(WITHIN))
    shares = {f"top{share * 100:g}": together.top_energy_share(share) for share in SHARES}
    defined = [share for share in within if share is not None]
    shares["top5_within"] = median(defined) if defined else None
    return {name: share for name, share in shares.items() if share is not None}


def null_shares(deltas: "Deltas", draws: int, seed: int) -> list[dict[str, float]]:
    """The same of random products with the shapes, ranks and norms of an update, each a draw."""
    from fastslow.measure.model.magnitudes import random_products

    seeds = [derive_seed(seed, "product", draw) for draw in range(draws)]
    return [energy_shares(partial(random_products, deltas, seed)) for seed in seeds]


def _figures(shares: Mapping[str, float], nulls: Sequence[Mapping[str, float]]) -> Iterator[Metric]:
    """Each energy share, what the null has, and how many of its draws reach the share."""
    reason = None if shares else "the change is zero everywhere"
    for name, where in FORMULAS.items():
        share, null = shares.get(name), [draw[name] for draw in nulls]
        reached = None if share is None else fmean(value >= share for value in null)
        for suffix, value, formula in (
            ("frac", share, f"energy of the largest {where} / energy of the change"),
            ("null_lora", fmean(null) if null else None, "the same of random products, mean"),
            ("null_lora_max", max(null, default=None), "the same of random products, largest"),
            ("reached", reached, "share of the random products that have as much"),
        ):
            yield Metric(f"energy_{name}_{suffix}", value, reason, formula)
