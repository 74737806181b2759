"""Shrinking the adapter after a stage, on a tiny model."""

from collections.abc import Callable

import pytest
import torch

from fastslow.channels.slow.remedies.kl_budget import measured_kl
from fastslow.channels.slow.remedies.shrink import FACTORS, scale_down
from fastslow.config import ledger
from fastslow.core.prompts import PromptProgram
from fastslow.policy.adapter.parts import trainable_weights
from fastslow.policy.policy import Policy
from tests.support.adapters import begin, move

TEXT = PromptProgram("Write letters.")


def scored_by(policy: Policy, scores: dict[float, float], at_start: float) -> Callable[[], float]:
    """A score that depends on the factor the adapter is scaled by, which it reads off a weight."""
    name = next(n for n in trainable_weights(policy.model) if "lora_B" in n)
    full = float(policy.adapters.copied()[name].norm())

    def validate() -> float:
        factor = round(float(trainable_weights(policy.model)[name].detach().norm()) / full, 4)
        return at_start if factor == 0 else scores[factor]

    return validate


@pytest.mark.parametrize(
    ("scores", "at_start", "share", "expected"),
    [
        ({1.0: 0.8, 0.9: 0.8, 0.8: 0.8, 0.7: 0.79, 0.6: 0.5}, 0.4, 0.95, 0.7),
        ({1.0: 0.8, 0.9: 0.8, 0.8: 0.5, 0.7: 0.8}, 0.4, 0.95, 0.9),  # 0.7 is a lone lucky point
        (dict.fromkeys([1.0, *FACTORS], 0.8), 0.4, 0.95, 0.1),
        ({1.0: 0.8, 0.9: 0.5}, 0.4, 0.95, 1.0),
        ({1.0: 0.8}, 0.8, 0.95, 1.0),
        ({1.0: 0.3}, 0.8, 0.95, 1.0),
    ],
)
def test_shrinking_takes_the_smallest_factor_down_to_which_the_share_is_kept(
    policy: Policy, scores: dict[float, float], at_start: float, share: float, expected: float
) -> None:
    begin(policy, "first")
    move(policy, 1)
    weights = policy.adapters.copied()
    result = scale_down(policy, share, scored_by(policy, scores, at_start), dict)
    assert result.factor == expected
    assert (result.start, result.before, result.after) == (at_start, scores[1.0], scores[expected])
    assert (result.reason is None) == (expected < 1)
    for name, weight in trainable_weights(policy.model).items():
        scaled = weights[name] * expected if "lora_B" in name else weights[name]
        assert torch.equal(weight, scaled), name


def test_scaling_b_scales_the_update_of_the_weights_and_its_kl(moved: Policy) -> None:
    weights = moved.adapters.copied()
    rows = [(moved.renderer.prompt_ids(TEXT, q), (5, 6)) for q in "abc"]
    kls = []
    for factor in (1.0, 0.5, 0.1):
        moved.adapters.scale(weights, factor)
        kls.append(measured_kl(moved, rows, 3))
    assert kls[0] > kls[1] > kls[2] > 0


def test_the_estimate_knows_how_many_factors_there_are() -> None:
    assert len(FACTORS) == ledger.SHRINK_FACTORS
