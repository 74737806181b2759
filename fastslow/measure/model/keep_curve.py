"""The keep curve: how much of what an update brought is kept by a part of its entries?

On the base, the update is replaced by the largest p % of its entries, by the rest, by random ones,
by random ones that hold the same energy, or by all of it scaled to that energy. Gain is concave in
the change, so the largest entries are compared at equal energy only: with random ones (do they
carry more than their energy?) and with the scaled update (does choosing beat shrinking?), which has
an advantage of first order.

Source: ours.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt

from fastslow.core.keys import OURS, Rate, key
from fastslow.core.seeds import derive_seed, named_random
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
from fastslow.measure.stats.bootstrap import (
    LEAST_DEFINED,
    RESAMPLES,
    draw_again,
    percentile_interval,
)
from fastslow.measure.stats.intervals import Interval, named_limits

if TYPE_CHECKING:
    from torch import Tensor

    from fastslow.core.prompts import PromptProgram
    from fastslow.measure.model.magnitudes import Deltas, Top
    from fastslow.policy.adapter.intervening import Edit
    from fastslow.policy.policy import Policy

ARMS = ("top", "rest", "random", "random_energy", "scaled")
"""What stands in the place of the update."""
BASELINES = ("random_energy", "scaled")
"""Arms of the same energy, which the largest entries are compared with."""
EDIT_UNITS = 70
"""Work of editing and restoring all adapted weights."""
ANSWERS_AT_ONCE = 48
"""Answers of one pass."""
FORMULAS = (
    "(loss of the base - loss) / (loss of the base - loss of the change), means over gold answers "
    "in nats, with that part of the change",
    "share kept by the largest entries - by a part of the same energy",
)
"""Of a part, and of the difference of two."""


class KeepCurveConfig(MeasureConfig):
    """What parts of the change keep of its gain on the latest task: does the place matter?"""

    needs_change: ClassVar[bool] = True
    needs_whole_base: ClassVar[bool] = True

    kind: Literal["keep_curve"] = key("keep_curve", "name", OURS)
    """Which measure."""
    shares: tuple[Rate, ...] = key(
        (0.01, 0.05, 0.10, 0.25), "shares of the entries", OURS, min_length=1
    )
    """Sizes of the parts, of all adapted entries."""
    examples: PositiveInt = key(48, "validation examples", OURS)
    """Gold answers whose loss is measured."""

    def price(self, size: RowSize) -> MeasurePrice:
        """A pass over all answers for each part, the whole change and the base."""
        passes = len(ARMS) * len(self.shares) + 2
        return MeasurePrice(extra=passes * (self.examples + EDIT_UNITS) if size.row else 0)


@dataclass(frozen=True)
class KeepCurve:
    """What parts of an update keep of its gain."""

    losses: Mapping[str, tuple[float, ...]]
    """Of each gold answer in nats, by part: `base`, `change`, and e.g. `top5`, `scaled5`."""
    energies: Mapping[str, float]
    """Energy share of the largest entries, in [0, 1], e.g. of `top5`."""
    gains: Mapping[str, float]
    """Share of the gain kept by figure, e.g. `keep_top5`, `keep_top5_minus_scaled`; empty where the
    update does not lower the loss."""
    intervals: Mapping[str, Interval]
    """95 % over answers, of the same figures; empty where there are none."""


@measure(name="keep_curve", source="ours")
def keep_curve(config: KeepCurveConfig) -> Measure:
    """What the largest entries of the whole change keep of its gain on the latest answers."""

    def take(snapshot: Snapshot) -> Iterable[Measured]:
        if snapshot.change is None or snapshot.latest is None:
            return
        task, policy = snapshot.tasks[snapshot.latest], snapshot.policy
        examples = snapshot.validation_sample(task, config.examples)
        curve = measure_keep_curve(
            policy,
            policy.live_program(task),
            examples,
            snapshot.change,
            config.shares,
            snapshot.seed,
        )
        yield Measured(task.name, _metrics(curve, config.shares), _numbers(curve, examples))

    return take


def measure_keep_curve(
    policy: "Policy",
    program: "PromptProgram",
    examples: Sequence[Example],
    deltas: "Deltas",
    shares: Sequence[float],
    seed: int,
) -> KeepCurve:
    """The keep curve of an update of the policy's base, on the examples' gold answers.

    The policy is bit-identical afterwards. `deltas` need not be those of its present adapter.
    """
    from fastslow.measure.model.magnitudes import Magnitudes, magnitudes_of, top_entries
    from fastslow.policy.adapter.intervening import base_changed_by

    magnitudes = Magnitudes()
    for delta in deltas():
        magnitudes.add(magnitudes_of(delta.dense()))
    tops = top_entries(deltas, magnitudes, shares)
    energies = {share: top.energy / (magnitudes.energy or 1.0) for share, top in tops.items()}
    edits: dict[str, Edit] = {"change": lambda _, change: change}
    for share, top in tops.items():
        for arm in ARMS:
            edits[_part(arm, share)] = _edit(arm, share, top, energies[share], seed)
    losses = {"base": answer_losses(policy, program, examples)}
    for name, edit in edits.items():
        with base_changed_by(deltas(), edit):
            losses[name] = answer_losses(policy, program, examples)
    return KeepCurve(
        losses,
        {_part("top", share): energy for share, energy in energies.items()},
        gains_kept(losses, range(len(examples))),
        _intervals(losses, examples, named_random(seed, "bootstrap")),
    )


def _part(arm: str, share: float) -> str:
    return f"{arm}{100 * share:g}"


def _edit(arm: str, share: float, top: "Top", energy: float, seed: int) -> "Edit":
    """What an arm puts in the place of a change; `energy` is the share that its top entries hold.

    Random entries of a larger share contain those of a smaller one.
    """

    def edit(name: str, change: "Tensor") -> "Tensor":
        import torch

        if arm == "scaled":
            return change * math.sqrt(energy)
        generator = torch.Generator().manual_seed(derive_seed(seed, "mask", name))
        draws = torch.rand(change.shape, generator=generator).to(change.device)
        if arm == "random":
            return change * (draws < share)
        if arm == "random_energy":
            return change * (draws < energy)
        size = change.abs()
        is_top = (size > top.threshold) | ((size == top.threshold) & (draws < top.tie_rate))
        return change * (is_top if arm == "top" else ~is_top)

    return edit


def answer_losses(
    policy: "Policy", program: "PromptProgram", examples: Sequence[Example]
) -> tuple[float, ...]:
    """Of each gold answer with its stop token, in nats, under the base's weights as they are."""
    prompts = [policy.renderer.prompt_ids(program, example.question) for example in examples]
    answers = [policy.renderer.answer_ids(example.answer) for example in examples]
    losses: list[float] = []
    for start in range(0, len(prompts), ANSWERS_AT_ONCE):
        rows = slice(start, start + ANSWERS_AT_ONCE)
        logprobs = policy.scorer.logprobs(prompts[rows], answers[rows], adapter=False)
        losses += [-sum(row) for row in logprobs]
    return tuple(losses)


def gains_kept(losses: Mapping[str, Sequence[float]], answers: Sequence[int]) -> dict[str, float]:
    """Every figure of a keep curve, from the answers of some indices; see `KeepCurve.gains`."""
    means = {name: fmean(values[i] for i in answers) for name, values in losses.items()}
    base = means.pop("base")
    gain = base - means.pop("change")
    if gain <= 0:
        return {}
    gains = {f"keep_{name}": (base - mean) / gain for name, mean in means.items()}
    for name in [name for name in means if name.startswith("top")]:
        for arm in BASELINES:
            baseline = gains[f"keep_{name.replace('top', arm)}"]
            gains[f"keep_{name}_minus_{arm}"] = gains[f"keep_{name}"] - baseline
    return gains


def _intervals(
    losses: Mapping[str, Sequence[float]], examples: Sequence[Example], generator: random.Random
) -> dict[str, Interval]:
    """Of every figure, from answers drawn again with replacement, whole clusters at a time."""
    clusters = [example.cluster or (example.id,) for example in examples]
    resamples = (draw_again(generator, len(examples), clusters) for _ in range(RESAMPLES))
    draws = [gains for answers in resamples if (gains := gains_kept(losses, answers))]
    if len(examples) < 2 or len(draws) < LEAST_DEFINED * RESAMPLES:
        return {}
    return {name: percentile_interval([draw[name] for draw in draws]) for name in draws[0]}


def _metrics(curve: KeepCurve, shares: Sequence[float]) -> tuple[Metric, ...]:
    names = [f"keep_{_part(arm, share)}" for share in shares for arm in ARMS]
    names += [f"keep_{_part('top', share)}_minus_{arm}" for share in shares for arm in BASELINES]
    reason = None if curve.gains else "the change does not lower the loss of the gold answers"
    return tuple(
        Metric(name, curve.gains.get(name), reason, FORMULAS["_minus_" in name]) for name in names
    )


def _numbers(curve: KeepCurve, examples: Sequence[Example]) -> dict[str, float]:
    """Intervals, energy shares and the loss of each answer, for readers of the record."""
    numbers = {"examples": float(len(examples))}
    numbers |= {f"{name}/energy": energy for name, energy in curve.energies.items()}
    for name, interval in curve.intervals.items():
        numbers |= named_limits(name, interval)
    for name, losses in curve.losses.items():
        for example, loss in zip(examples, losses, strict=True):
            numbers[f"loss/{name}/{example.id}"] = round(loss, 5)
    return numbers
