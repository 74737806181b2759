"""Readings of problems against a plain pass over each prompt with its answer."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch

from fastslow.core.prompts import Demonstration, PromptProgram
from fastslow.core.types import Example
from fastslow.policy.policy import Policy, with_adapter
from fastslow.policy.readings import final_norm
from tests.support.tiny import tiny_model, tiny_tokenizer

near = partial(pytest.approx, abs=1e-4)
PROMPT = PromptProgram("Say it.", (Demonstration("one", "1"), Demonstration("two", "2")))
QUESTIONS = ("three", "thirty-three", "two", "a  b\n", "€")
EXAMPLES = [Example(f"e{i}", question, str(i)) for i, question in enumerate(QUESTIONS)]


def policy_of(family: str) -> Policy:
    policy = Policy(tiny_model(family, seed=3).requires_grad_(False), tiny_tokenizer())
    with torch.no_grad():  # a norm whose scale differs from unit to unit
        for name, weight in policy.module.named_parameters():
            if "norm" in name:
                weight.copy_(torch.linspace(0.5, 2, weight.numel()))
    return policy


@pytest.mark.parametrize("family", ["llama", "gemma", "gpt_neox", "cohere"])
def test_a_reading_is_what_a_plain_pass_says(family: str) -> None:
    policy = policy_of(family)
    _agree(policy, EXAMPLES)


def test_readings_are_those_of_the_present_weights() -> None:
    policy = with_adapter(policy_of("llama"), rank=2, alpha=4, target_modules="all-linear", seed=1)
    before = policy.read_prompts(PROMPT, EXAMPLES)
    with torch.no_grad():
        for weight in policy.adapters.trainable().values():
            weight.add_(0.1)
    assert policy.read_prompts(PROMPT, EXAMPLES)[0].gold_logprob != before[0].gold_logprob
    _agree(policy, EXAMPLES)


def test_a_question_that_a_demonstration_answers_is_read_without_it() -> None:
    policy = policy_of("llama")
    [shown] = policy.read_prompts(PROMPT, [EXAMPLES[2]])
    [other] = policy.read_prompts(
        replace(PROMPT, demonstrations=PROMPT.demonstrations[:1]), [EXAMPLES[2]]
    )
    assert shown.gold_logprob == near(other.gold_logprob)
    assert shown.prompt_tokens == other.prompt_tokens


def test_no_problems_have_no_readings() -> None:
    assert policy_of("llama").read_prompts(PROMPT, []) == []


def test_a_norm_without_a_final_one_is_not_found() -> None:
    policy = policy_of("llama")
    assert final_norm(policy.module) is not None
    policy.module.model.norm = torch.nn.Identity()
    assert final_norm(policy.module) is None
    assert policy.read_prompts(PROMPT, EXAMPLES)[0].unscaled is None


def _agree(policy: Policy, examples: Sequence[Example]) -> None:
    renderer = policy.renderer
    for example, reading in zip(examples, policy.read_prompts(PROMPT, examples), strict=True):
        prompt = renderer.prompt_ids(PROMPT, example.question)
        answer = renderer.answer_ids(example.answer)
        ids = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            out = policy.module(input_ids=ids, output_hidden_states=True)
        last = len(prompt) - 1
        state = out.hidden_states[-1][0, last]
        torch.testing.assert_close(reading.state, state, atol=1e-4, rtol=0)
        logprobs = torch.log_softmax(out.logits[0].double(), -1)
        first = logprobs[last]
        best = first.topk(2).values
        gold = [float(logprobs[last + i, token]) for i, token in enumerate(answer)]
        before, question = renderer.question_ids(example.question, PROMPT)
        assert prompt[: len(before) + len(question)] == before + question
        assert example.question.strip() in renderer.tokenizer.decode(question)
        asked = [float(logprobs[len(before) + i - 1, t]) for i, t in enumerate(question)]
        assert reading.example == example.id
        assert reading.prompt_tokens == len(prompt)
        assert reading.question_tokens == len(question)
        assert reading.question_logprob == near(sum(asked) / len(asked))
        entropy = float(-(first.exp() * first).sum())
        assert reading.first_entropy == near(entropy)
        assert reading.first_logprob == near(float(best[0]))
        assert reading.first_margin == near(float(best[0].exp() - best[1].exp()))
        assert reading.gold_logprob == near(sum(gold))
        greedy = all(int(logprobs[last + i].argmax()) == t for i, t in enumerate(answer))
        assert reading.gold_is_greedy == greedy
        _agrees_unscaled(policy, prompt, reading.unscaled)


def _agrees_unscaled(policy: Policy, prompt: Sequence[int], unscaled: torch.Tensor | None) -> None:
    """It is the input of the last norm but for its length (and mean, where the norm takes that)."""
    base = (
        policy.module.get_base_model() if hasattr(policy.module, "peft_config") else policy.module
    )
    norm = [m for m in base.get_decoder().children() if "norm" in type(m).__name__.lower()][-1]
    inputs: list[torch.Tensor] = []
    hook = norm.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.no_grad():
        policy.module(input_ids=torch.tensor([prompt]))
    hook.remove()
    raw = inputs[-1][0, -1]
    if "LayerNorm" in type(norm).__name__:
        raw = raw - raw.mean()
    assert unscaled is not None
    assert float(torch.cosine_similarity(raw, unscaled, dim=0)) > 1 - 1e-5
