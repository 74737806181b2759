"""Perturbation curve: how much does the loss rise a step away from the deployed weights?

Steps go in random directions that are built as the change is: products of Gaussian factors of its
rank, each matrix with a norm in proportion to that of its change. Source: ours.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt

from fastslow.core.keys import OURS, key
from fastslow.core.seeds import derive_seed
from fastslow.core.types import Example, Metric
from fastslow.measure.base import (
    Measure,
    MeasureConfig,
    Measured,
    MeasurePrice,
    RowSize,
    Snapshot,
    measure,
)
from fastslow.measure.model.keep_curve import EDIT_UNITS, answer_losses
from fastslow.measure.stats.intervals import mean_interval, named_limits

if TYPE_CHECKING:
    from torch import Tensor

    from fastslow.core.prompts import PromptProgram
    from fastslow.measure.model.magnitudes import Deltas
    from fastslow.policy.adapter.deltas import WeightDelta
    from fastslow.policy.policy import Policy

FORMULA = (
    "loss of a gold answer with its stop token, mean, nats, with the whole change and a random "
    "direction of {:g} times its norm, mean over directions"
)


class PerturbationConfig(MeasureConfig):
    """How much the loss rises in random directions; a pass and an edit of the base for each."""

    needs_change: ClassVar[bool] = True
    needs_whole_base: ClassVar[bool] = True

    kind: Literal["perturbation"] = key("perturbation", "name", OURS)
    """Which measure."""
    directions: PositiveInt = key(20, "directions", OURS)
    """Random ones, each taken to every norm."""
    norms: tuple[PositiveFloat, ...] = key(
        (0.5, 1.0, 2.0), "norm of the direction / norm of the change", OURS, min_length=1
    )
    """How far to go."""
    examples: PositiveInt = key(32, "validation examples", OURS)
    """Gold answers of the latest task whose loss is measured."""

    def price(self, size: RowSize) -> MeasurePrice:
        """A pass over all answers for each direction at each norm, and one as deployed."""
        passes = self.directions * len(self.norms) + 1
        return MeasurePrice(extra=passes * (self.examples + EDIT_UNITS) if size.row else 0)


@measure(name="perturbation", source="ours")
def perturbation(config: PerturbationConfig) -> Measure:
    """Loss of the latest task's gold answers in random directions from the deployed weights."""

    def take(snapshot: Snapshot) -> Iterable[Measured]:
        if snapshot.change is None or snapshot.latest is None:
            return
        task, policy = snapshot.tasks[snapshot.latest], snapshot.policy
        examples = snapshot.validation_sample(task, config.examples)
        seeds = [derive_seed(snapshot.seed, "direction", i) for i in range(config.directions)]
        program = policy.live_program(task)
        losses = losses_around(policy, program, examples, snapshot.change, config.norms, seeds)
        metrics: list[Metric] = []
        numbers: dict[str, float] = {}
        for norm in (0.0, *config.norms):
            name, values = f"loss_at_{norm:g}", losses.get(norm)
            value, reason = (fmean(values), None) if values else (None, "the change is zero")
            metrics.append(Metric(name, value, reason, FORMULA.format(norm)))
            if values:
                numbers |= named_limits(name, mean_interval(values, range(len(values))))
        yield Measured(task.name, tuple(metrics), numbers)

    return take


def losses_around(
    policy: "Policy",
    program: "PromptProgram",
    examples: Sequence[Example],
    deltas: "Deltas",
    norms: Sequence[float],
    seeds: Sequence[int],
) -> dict[float, list[float]]:
    """Mean loss of the gold answers by relative norm, in nats, in a direction for each seed.

    At 0 it is the loss with the change alone, once; a change of zeros has no directions. The policy
    is bit-identical afterwards. `deltas` need not be those of its present adapter.
    """
    from fastslow.measure.model.magnitudes import norm_of, random_products
    from fastslow.policy.adapter.intervening import base_changed_by

    losses: dict[float, list[float]] = {norm: [] for norm in (0.0, *norms)}

    def add_losses(direction: "Mapping[str, WeightDelta]", norms: Iterable[float]) -> None:
        for norm in norms:
            with base_changed_by(deltas(), partial(_moved, direction, norm)):
                losses[norm].append(fmean(answer_losses(policy, program, examples)))

    add_losses({}, [0.0])
    for seed in seeds if any(map(norm_of, deltas())) else ():
        add_losses({product.name: product for product in random_products(deltas, seed)}, norms)
    return losses


def _moved(
    direction: "Mapping[str, WeightDelta]", norm: float, name: str, change: "Tensor"
) -> "Tensor":
    """A matrix's change with so much of the direction added."""
    return change + norm * direction[name].dense() if norm else change
