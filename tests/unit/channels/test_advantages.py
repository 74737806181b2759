"""Weights and advantages of an update, against values worked out by hand."""

import pytest
import torch

from fastslow.channels.slow.advantages import (
    WEIGHT,
    cut_passes,
    gated_advantages,
    loss_tokens,
    loss_weights,
)

TOKENS = torch.tensor([[1.0, 3.0], [10.0, 6.0], [2.0, 2.0]])  # 4, 16 and 4 of 24
KEPT = torch.tensor([True, False, True])


def test_problem_weights_give_every_kept_problem_the_same_share() -> None:
    weights = loss_weights(TOKENS, torch.tensor([True, True, False]), "problem")
    expected = torch.tensor([[24 / (2 * 4)] * 2, [24 / (2 * 16)] * 2, [0.0, 0.0]])
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close((weights * TOKENS).sum(dim=1), torch.tensor([12.0, 12.0, 0.0]))


def test_token_weights_give_every_kept_token_the_same_share() -> None:
    weights = loss_weights(TOKENS, KEPT, "token")
    torch.testing.assert_close(weights, torch.tensor([[3.0] * 2, [0.0] * 2, [3.0] * 2]))


@pytest.mark.parametrize("averaging", ["problem", "token"])
def test_nothing_kept_weighs_nothing(averaging: str) -> None:
    weights = loss_weights(TOKENS, torch.zeros(3, dtype=torch.bool), averaging)  # type: ignore[arg-type]  # parametrized
    assert torch.equal(weights, torch.zeros(3, 2))


def test_dropped_groups_get_exact_zeros_and_lucky_ones_are_scaled_as_a_whole() -> None:
    advantages = torch.tensor([[1.5, -0.5, -0.5, -0.5], [3e-4] * 4, [1.0, 1.0, -1.0, -1.0]])
    lucky = torch.tensor([True, False, True])
    gated = gated_advantages(advantages, KEPT, lucky, cap=1.2)
    expected = torch.tensor([[1.2, -0.4, -0.4, -0.4], [0.0] * 4, [1.0, 1.0, -1.0, -1.0]])
    torch.testing.assert_close(gated, expected)
    assert torch.equal(gated[1], torch.zeros(4))
    assert torch.equal(gated_advantages(advantages, KEPT, lucky, cap=None)[0], advantages[0])


def test_passes_leave_out_rows_without_weight_but_are_never_empty() -> None:
    weight = torch.tensor([0.0, 2.0, 0.0, 0.0, 3.0, 1.0])[:, None].expand(6, 2)
    rows = {
        "advantages": torch.arange(6.0),
        "completion_mask": torch.ones(6, 2),
        "num_items_in_batch": torch.tensor(12.0),
        WEIGHT: weight,
    }
    passes = cut_passes(rows, 2)
    assert [part["advantages"].tolist() for part in passes] == [[1.0], [2.0], [4.0, 5.0]]
    assert [loss_tokens(part) for part in passes] == [4.0, 0.0, 8.0]
    assert all(part["num_items_in_batch"] == 12 for part in passes)


def test_passes_without_weights_hold_every_row_in_order() -> None:
    rows = {"advantages": torch.arange(5.0), "completion_mask": torch.ones(5, 3)}
    passes = cut_passes(rows, 2)
    assert [part["advantages"].tolist() for part in passes] == [[0.0, 1.0], [2.0, 3.0], [4.0]]
    assert [loss_tokens(part) for part in passes] == [6.0, 6.0, 3.0]
