"""Routing as functions of numbers: the task that an input is sent to.

A *route* is the name of a task. Of several equally good ones the first in the order of the mapping
is taken: the task that was visited first.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float


def best_routes(values: Mapping[str, Sequence[float]]) -> list[str]:
    """For each input the task with the highest value; `values` has one per input, by task."""
    return [
        max(zip(values, of_input, strict=True), key=lambda pair: pair[1])[0]
        for of_input in zip(*values.values(), strict=True)
    ]


def nearest_means(
    states: Float[np.ndarray, "inputs hidden"], means: Mapping[str, Float[np.ndarray, " hidden"]]
) -> list[str]:
    """For each input the task whose mean has the highest cosine with its state.

    Source: nearest mean of exemplars (Rebuffi et al. 2017, arXiv 1611.07725), with the base's
    states as features, and tasks in place of classes.
    """
    directions = states / np.linalg.norm(states, axis=1, keepdims=True)

    def cosines(mean: Float[np.ndarray, " hidden"]) -> list[float]:
        values: list[float] = (directions * (mean / np.linalg.norm(mean))).sum(axis=1).tolist()
        return values

    return best_routes({task: cosines(mean) for task, mean in means.items()})
