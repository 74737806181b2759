"""The bridge: do changes fall on units that are sparsely active, or selective for the task?

Per layer, of the units u of the feed-forward block with activity h_u in the base:

    sparseness   s_u = 1 - (E|h_u|)^2 / E h_u^2        on the task's inputs (lifetime sparseness)
    selectivity  v_u = ln E_task|h_u| - ln E_neutral|h_u|

each correlated by ranks, given E|h_u|, with the energy of a gradient or of a change at the unit.
Control: the gradient of the same inputs with answers rotated among problems. Without it the
statistic is mechanical: the gradient of the reader is an outer product with h, so quiet units get
little, whatever the task. The bridge is the difference to the control.

Source: ours; lifetime sparseness after Rolls & Tovee 1995 and Vinje & Gallant 2000.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt

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
from fastslow.measure.stats.intervals import named_limits

if TYPE_CHECKING:
    from fastslow.core.prompts import PromptProgram
    from fastslow.measure.model.magnitudes import Deltas
    from fastslow.measure.stats.partial import Column, Correlation
    from fastslow.policy.activations import Activations, Units
    from fastslow.policy.policy import Policy

EXAMPLE_UNITS, FIXED_UNITS = 12, 80
"""Work of an example: a reading and two backward passes; and of neutral prose and permutations."""
PROPERTIES = {"": "sparseness", "_selectivity": "selectivity"}
"""Properties of units, by the end of their figures' names."""
FIGURES = {
    "bridge": "gradient - control, rows of gate and up",
    "gradient": "energy of the gradient, rows of gate and up",
    "control": "energy of the gradient of rotated answers, rows of gate and up",
    "bridge_columns": "gradient - control, columns of down",
    "gradient_columns": "energy of the gradient, columns of down",
    "control_columns": "energy of the gradient of rotated answers, columns of down",
    "change": "energy of the stage's change, rows of gate and up",
}
"""What is correlated with a property, by the figure."""
DIFFERENCES = {
    "bridge": ("gradient", "control"),
    "bridge_columns": ("gradient_columns", "control_columns"),
}


class BridgeConfig(MeasureConfig):
    """Whether gradient and change fall on units that are sparsely active or selective."""

    needs_whole_base: ClassVar[bool] = True

    kind: Literal["bridge"] = key("bridge", "name", OURS)
    """Which measure."""
    examples: PositiveInt = key(32, "validation examples", OURS)
    """Inputs on which units are active, and gold answers of the gradient."""
    permutations: PositiveInt = key(999, "permutations", "ours: passes at 1 % and below")
    """Orders of the units within their layers that the figures are compared with."""

    def price(self, size: RowSize) -> MeasurePrice:
        """A reading and two backward passes for each example."""
        return MeasurePrice(extra=EXAMPLE_UNITS * self.examples + FIXED_UNITS if size.row else 0)


@measure(name="bridge", source="ours; lifetime sparseness after Vinje & Gallant 2000")
def bridge(config: BridgeConfig) -> Measure:
    """Partial rank correlation of sparseness with gradient and change, less that of a control."""

    def take(snapshot: Snapshot) -> Iterable[Measured]:
        if snapshot.latest is None:
            return
        task, policy = snapshot.tasks[snapshot.latest], snapshot.policy
        examples = snapshot.validation_sample(task, config.examples)
        correlations = measure_bridge(
            policy,
            policy.live_program(task),
            examples,
            snapshot.stage_change,
            config.permutations,
            snapshot.seed,
        )
        golds = [example.answer for example in examples]
        moved = [a != b for a, b in zip(golds, rotated(golds), strict=True)]
        numbers = {"examples": len(golds), "rotated_frac": fmean(moved), **_numbers(correlations)}
        yield Measured(task.name, tuple(_metrics(correlations)), numbers)

    return take


def measure_bridge(
    policy: "Policy",
    program: "PromptProgram",
    examples: Sequence[Example],
    change: "Deltas | None",
    permutations: int,
    seed: int,
) -> "dict[str, Correlation]":
    """Every correlation by its figure's name; those that are not defined are left out.

    Activity and gradient are the base's, under the prompt; the policy is bit-identical afterwards.
    """
    from fastslow.measure.model.neutral import neutral_ids
    from fastslow.measure.stats.partial import correlate_layers

    prompts = [policy.renderer.prompt_ids(program, example.question) for example in examples]
    golds = [example.answer for example in examples]
    texts = {"gradient": golds, "control": rotated(golds)}
    if texts["control"] == golds:
        del texts["control"]
    energies: dict[str, Units] = {}
    for name, of_problems in texts.items():
        answers = [policy.renderer.answer_ids(text) for text in of_problems]
        with policy.scorer.base_weights():
            rows, columns = policy.feed_forward.gradient_energies(prompts, answers)
        energies |= {name: rows, f"{name}_columns": columns}
    if change is not None:
        energies["change"] = policy.feed_forward.row_energies(change())
    activity = policy.activations(prompts, adapter=False)
    neutral = policy.activations(neutral_ids(policy), adapter=False)
    correlations: dict[str, Correlation] = {}
    for ending, name in PROPERTIES.items():
        layers = [
            _layer(name, reader, activity, neutral, energies)
            for reader in energies["gradient"]
            if reader in activity.mean_abs and reader in neutral.mean_abs
        ]
        values = correlate_layers(layers, DIFFERENCES, permutations, derive_seed(seed, name))
        correlations |= {figure + ending: value for figure, value in values.items()}
    return correlations


def rotated(answers: Sequence[str]) -> list[str]:
    """The same answers, each moved to another problem whose answer differs, if that is possible.

    Sorted, they move on by as many places as the most frequent one has.
    """
    order = sorted(range(len(answers)), key=lambda index: answers[index])
    most = max(Counter(answers).values())
    moved = list(answers)
    for place, index in enumerate(order):
        moved[index] = answers[order[(place + most) % len(order)]]
    return moved


def _layer(
    name: str,
    layer: str,
    task: "Activations",
    neutral: "Activations",
    energies: "Mapping[str, Units]",
) -> "tuple[Column, dict[str, Column], Column]":
    """A property of the units that ever act, energies at them, and their activity."""
    import numpy as np

    activity, square = np.array(task.mean_abs[layer]), np.array(task.mean_square[layer])
    activity_neutral = np.array(neutral.mean_abs[layer])
    acts = (activity > 0) & (activity_neutral > 0)
    if name == "sparseness":
        values = 1 - activity[acts] ** 2 / square[acts]
    else:
        values = np.log(activity[acts]) - np.log(activity_neutral[acts])
    at_units = {n: np.array(units[layer])[acts] for n, units in energies.items() if layer in units}
    return values, at_units, activity[acts]


def _metrics(correlations: "Mapping[str, Correlation]") -> Iterator[Metric]:
    """Every figure, or why it is not defined."""
    for ending, name in PROPERTIES.items():
        for figure, energy in FIGURES.items():
            correlation, reason = correlations.get(figure + ending), None
            value = None if correlation is None else correlation.mean
            if not correlations:
                reason = "the model has no feed-forward blocks of linear modules"
            elif correlation is None:
                reason = "the stage changed no rows of gate and up"
                if figure != "change":
                    reason = "all gold answers are the same: none can be rotated"
            formula = f"partial Spearman of {name} and {energy}, given activity, mean over layers"
            yield Metric(figure + ending, value, reason, formula)


def _numbers(correlations: "Mapping[str, Correlation]") -> dict[str, float]:
    """Intervals over layers, permutation tests, and the number of layers."""
    numbers: dict[str, float] = {}
    for name, correlation in correlations.items():
        numbers |= {f"{name}/layers": len(correlation.layers), f"{name}/p": correlation.p_value}
        numbers |= named_limits(name, correlation.interval)
    return numbers
