"""Partial rank correlations over the units of several layers, with a permutation null.

Pure functions of numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from fastslow.measure.stats.intervals import Interval, mean_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Column: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Correlation:
    """Mean over layers of a partial correlation, or of the difference of two."""

    layers: tuple[float, ...]
    """The value of each layer, in [-1, 1] or, for a difference, [-2, 2]."""
    mean: float
    interval: Interval | None
    """95 % over layers; None with a single one."""
    p_value: float
    """Share of the permutations, the observed order among them, whose mean is as far from 0."""


def correlate_layers(
    layers: Sequence[tuple["Column", Mapping[str, "Column"], "Column"]],
    differences: Mapping[str, tuple[str, str]],
    permutations: int,
    seed: int,
) -> dict[str, Correlation]:
    """Partial Spearman of x with each y given z, and differences of two of them, by name.

    A layer is x, the ys by name, and z: columns with an entry per unit. The null permutes x within
    each layer, in the same way for every y. A layer in which a figure is not defined is no part of
    it; a figure that is defined nowhere is left out.
    """
    import numpy as np

    from fastslow.measure.stats.rank_figures import centred_ranks, partial_correlations

    generator = np.random.default_rng(seed)
    # by figure, a list over layers of [1 + permutations]: the observed value first
    columns: dict[str, list[Column]] = {}
    for x, ys, z in layers:
        rank, controls = centred_ranks(x[np.newaxis]), centred_ranks(z[np.newaxis])  # [1, units]
        shuffled = generator.permuted(np.tile(rank, (permutations, 1)), axis=1)
        orders = np.concatenate([rank, shuffled])  # [1 + permutations, units]
        values = {
            name: partial_correlations(orders, centred_ranks(y[np.newaxis])[0], controls)
            for name, y in ys.items()
        }
        pairs = {n: ab for n, ab in differences.items() if ab[0] in values and ab[1] in values}
        values |= {name: values[a] - values[b] for name, (a, b) in pairs.items()}
        for name, value in values.items():
            if np.isfinite(value).all():
                columns.setdefault(name, []).append(value)
    return {name: _correlation(np.stack(rows)) for name, rows in columns.items()}


def _correlation(values: "NDArray[np.float64]") -> Correlation:
    """Of values [layers, 1 + permutations]."""
    import numpy as np

    means, layers = values.mean(0), tuple(values[:, 0].tolist())
    interval = mean_interval(layers, range(len(layers)), least=-2.0, most=2.0)
    p_value = float((np.abs(means) >= abs(means[0])).mean())
    return Correlation(layers, float(means[0]), interval, p_value)
