"""A token is drawn where the cumulative distribution passes the row's number."""

import pytest
import torch

from fastslow.policy.engine.decoding import SPAN, draw


def plain(
    logits: torch.Tensor, temperature: float, uniform: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in float64 over the whole vocabulary."""
    logits = logits.double()
    tokens = logits.argmax(-1)
    if temperature:
        cumulative = torch.softmax(logits / temperature, -1).cumsum(-1)
        tokens = torch.searchsorted(cumulative, uniform[:, None], right=True)[:, 0]
    return tokens, torch.log_softmax(logits, -1).gather(-1, tokens[:, None])[:, 0]


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


@pytest.mark.parametrize("vocabulary", [2, SPAN - 1, SPAN, SPAN + 1, 1000])
@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 3.0])
def test_draws_and_log_probabilities_are_those_of_the_whole_distribution(
    vocabulary: int, temperature: float
) -> None:
    logits = 4 * torch.randn(300, vocabulary, generator=torch.Generator().manual_seed(5))
    uniform = torch.stack(
        [torch.rand((), generator=g, dtype=torch.float64) for g in generators(300)]
    )
    tokens, logprobs = draw(logits, temperature, generators(300))
    expected, expected_logprobs = plain(logits, temperature, uniform)
    assert torch.equal(tokens, expected)
    torch.testing.assert_close(logprobs, expected_logprobs, rtol=0, atol=1e-6)


def test_the_first_of_two_equal_tokens_is_the_greedy_one_and_logits_stay_as_they_are() -> None:
    logits = torch.zeros(1, 200)
    logits[0, [70, 150]] = 5.0
    before = logits.clone()
    assert draw(logits, 0.0, generators(1))[0].tolist() == [70]
    draw(logits, 1.0, generators(1))
    assert torch.equal(logits, before)


def test_tokens_without_any_probability_are_not_drawn() -> None:
    logits = torch.full((500, 3 * SPAN), float("-inf"))
    logits[:, [SPAN + 3, 2 * SPAN]] = 0.0
    tokens, logprobs = draw(logits, 1.0, generators(500))
    assert set(tokens.tolist()) == {SPAN + 3, 2 * SPAN}
    torch.testing.assert_close(logprobs.exp(), torch.full((500,), 0.5, dtype=torch.float64))
