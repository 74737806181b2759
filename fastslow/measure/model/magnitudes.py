"""Sizes of an update, streamed matrix by matrix: how much energy the largest entries hold, norms.

Energy is the sum of squares. Shares are of the entries of all matrices together.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from torch import Tensor

from fastslow.policy.adapter.deltas import WeightDelta

Deltas: TypeAlias = Callable[[], Iterable[WeightDelta]]
"""Starts one more pass over the changes of all matrices, in the same order every time."""
BINS = 1 << 15
"""Bins of |change|: the upper half of a float's bits, sign aside; each is under 1 % wide."""


@dataclass
class Magnitudes:
    """A histogram of the sizes of entries, of one matrix or of several."""

    size: int = 0
    """Entries."""
    counts: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.int64))
    """Entries of each bin."""
    energies: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.float64))
    """Their energy."""

    @property
    def energy(self) -> float:
        """Of all entries."""
        return float(self.energies.sum())

    def add(self, more: "Magnitudes") -> None:
        """Take in the entries of other matrices."""
        self.size += more.size
        self.counts += more.counts
        self.energies += more.energies

    def num_top(self, share: float) -> int:
        """How many entries the largest `share` of them are; at least one."""
        return max(1, math.floor(share * self.size))

    def bin_of_rank(self, rank: int) -> int:
        """The bin that holds the entry of that rank, 1 the largest."""
        # [bins] from the largest sizes down: how many entries lie in a bin or above it
        from_top = self.counts.flip(0).cumsum(0)
        return BINS - 1 - int(torch.searchsorted(from_top, rank))

    def top_energy_share(self, share: float) -> float | None:
        """Energy share of the largest `share` of the entries, to within one part in a hundred.

        Entries of the bin in which they end count as equal. None where all entries are 0.
        """
        count, energy = self.num_top(share), self.energy
        if not energy:
            return None
        place = self.bin_of_rank(count)
        missing = count - int(self.counts[place + 1 :].sum())
        in_bin = missing / int(self.counts[place]) * float(self.energies[place])
        return (float(self.energies[place + 1 :].sum()) + in_bin) / energy


def magnitudes_of(change: Tensor) -> Magnitudes:
    """The histogram of a change, of any shape, in float32."""
    size = change.flatten().abs()
    bins = bins_of(size)
    energies = torch.bincount(bins, weights=size.double().square_(), minlength=BINS).cpu()
    return Magnitudes(len(size), torch.bincount(bins, minlength=BINS).cpu(), energies)


def bins_of(sizes: Tensor) -> Tensor:
    """Bin of each size; larger sizes are in the same or a later bin."""
    return sizes.view(torch.int32).bitwise_right_shift(16)


def in_bin(sizes: Tensor, place: int) -> Tensor:
    """Those of the sizes that lie in a bin: it holds every float from its first to the next's."""
    first, end = torch.tensor([place << 16, (place + 1) << 16], dtype=torch.int32).view(torch.float)
    return sizes[(sizes >= float(first)) & (sizes < float(end))]


@dataclass(frozen=True, slots=True)
class Top:
    """The largest entries of an update, of which there is a share."""

    threshold: float
    """Size of the smallest of them."""
    energy: float
    """Sum of their squares."""
    tie_rate: float
    """Of the entries exactly at the threshold, the share that belongs to them; in (0, 1]."""


def top_entries(
    deltas: Deltas, magnitudes: Magnitudes, shares: Sequence[float]
) -> Mapping[float, Top]:
    """The largest entries of an update by share: exact, from one more pass.

    The histogram, which is that of these deltas, says in which bin the smallest of the top entries
    lies and what lies above it; the pass collects that bin alone.
    """
    counts = {share: magnitudes.num_top(share) for share in shares}
    places = {share: magnitudes.bin_of_rank(count) for share, count in counts.items()}

    # all sizes of the bins in which a top share ends; bin 0 holds no change at all
    sizes: dict[int, list[Tensor]] = {place: [] for place in places.values() if place > 0}
    if sizes:
        for delta in deltas():
            size = delta.dense().flatten().abs_()
            for place, members in sizes.items():
                members.append(in_bin(size, place).cpu())

    # whole bins above by their sums, and of the bin itself the largest that are still missing
    tops = {}
    for share, place in places.items():
        above = int(magnitudes.counts[place + 1 :].sum())
        energy, threshold, tie_rate = magnitudes.energies[place + 1 :].sum(), 0.0, 1.0
        if place > 0:
            members_of_bin = torch.cat(sizes[place])
            largest = torch.topk(members_of_bin, counts[share] - above).values
            threshold = float(largest[-1])
            energy = energy + largest.double().square().sum()
            tie_rate = float((largest == threshold).sum() / (members_of_bin == threshold).sum())
        tops[share] = Top(threshold, float(energy), tie_rate)
    return tops


def random_products(deltas: Deltas, seed: int) -> Iterator[WeightDelta]:
    """A product of Gaussian factors in the place of every matrix, of its shape, rank and norm."""
    generator = torch.Generator().manual_seed(seed)
    for delta in deltas():
        # Gaussian factors [rows, rank] and [rank, columns], scaled to the norm of their matrix
        factors = [
            torch.randn(factor.shape, generator=generator).to(factor.device)
            for factor in (delta.left_factor, delta.right_factor)
        ]
        product = replace(delta, left_factor=factors[0], right_factor=factors[1])
        scale = norm_of(delta) / norm_of(product)
        yield replace(product, left_factor=factors[0] * scale)


def norm_of(delta: WeightDelta) -> float:
    """Frobenius norm of a change, from its factors: the sum of (B^T B) * (A A^T)."""
    b, a = delta.left_factor.double(), delta.right_factor.double()
    return math.sqrt(max(0.0, float(((b.T @ b) * (a @ a.T)).sum())))
