"""Adherence of policies whose answers are known: copying, knowing, and reading prompts or not."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from fastslow.core.prompts import PromptProgram
from fastslow.core.types import Completion, Example, Grade
from fastslow.measure.model.adherence import measure_adherence, spread, text_influence
from fastslow.policy.policy import Policy, seed_program
from fastslow.task.definition import Task
from fastslow.task.graders import exact_match, numeric
from fastslow.task.guarded_grader import guard_graders, guards
from tests.support.tiny import tiny_model, tiny_tokenizer


class Scripted(Policy):
    """Answers as a rule says; the model behind it is a tiny one."""

    def __init__(self, rule: Any) -> None:
        super().__init__(tiny_model(), tiny_tokenizer())
        self.rule = rule

    def complete(
        self, requests: Sequence[tuple[PromptProgram, Example]], *_: Any, **__: Any
    ) -> list[Completion]:
        return [Completion((1,), (0.0,), self.rule(p, e), "stop") for p, e in requests]


def words(num_answers: int, grade: Any = exact_match) -> Task:
    """Questions with so many different answers, as many of each in every split."""

    def examples(split: str, count: int) -> tuple[Example, ...]:
        return tuple(
            Example(f"{split}-{i}", f"{split} question {i}", f"a{i % num_answers}")
            for i in range(count)
        )

    return Task(
        train=examples("train", 42),
        validation=examples("validation", 4),
        test=examples("test", 12),
        instruction="Answer.",
        grade=grade,
        max_tokens=8,
        name="words",
        version="words@1",
    )


def strict(example: Example, text: str) -> Grade:
    """Grades its own answers alone."""
    if example.answer != f"a{int(example.id.rpartition('-')[2]) % 3}":
        raise KeyError(example.answer)
    return Grade(float(text == example.answer), "")


def copying(prompt: PromptProgram, example: Example) -> str:
    """The last demonstration's answer."""
    return prompt.demonstrations[-1].answer


def knowing(prompt: PromptProgram, example: Example) -> str:
    """The true answer, whatever the prompt says."""
    return example.answer


def looking_up(prompt: PromptProgram, example: Example) -> str:
    """What demonstrations of the same true answer say: it follows any mapping."""
    number = int(example.id.rpartition("-")[2]) % 3
    return next(
        d.answer for d in prompt.demonstrations if int(d.question.rpartition(" ")[2]) % 3 == number
    )


def means(task: Task, rule: Any, demonstrations: int) -> dict[str, float]:
    result = measure_adherence(Scripted(rule), task, seed_program(task), task.test, demonstrations)
    return {name: sum(s.values()) / len(s) for name, s in result.scores.items()}


def test_a_policy_that_copies_the_only_answer_of_a_prompt_follows_it() -> None:
    assert means(words(3), copying, 1) == {
        "adherence_flipped": 1,
        "adherence_prior": 0,
        "adherence_nonsense": 1,
    }


def test_a_policy_that_ignores_prompts_follows_the_prior_and_is_not_influenced() -> None:
    task = words(3)
    assert means(task, knowing, 4) == {
        "adherence_flipped": 0,
        "adherence_prior": 1,
        "adherence_nonsense": 0,
    }
    policy = Policy(tiny_model(), tiny_tokenizer())
    prompt = PromptProgram("Something else.", ())
    before = text_influence(policy, task, prompt, task.test)
    assert min(before) > 1e-6
    for layer in policy.model.model.layers:  # nothing of earlier tokens reaches the last one
        torch.nn.init.zeros_(layer.self_attn.v_proj.weight)
    assert max(map(abs, text_influence(policy, task, prompt, task.test))) < 1e-9


def test_a_policy_that_reads_demonstrations_follows_flipped_and_nonsense_answers() -> None:
    assert means(words(3), looking_up, 3) == {
        "adherence_flipped": 1,
        "adherence_prior": 0,
        "adherence_nonsense": 1,
    }


def test_influence_is_the_divergence_of_the_first_token(moved: Policy) -> None:
    task = words(3)
    prompt = PromptProgram("Say no.")
    values = text_influence(moved, task, prompt, task.test[:2])
    logprobs = []
    for program in (prompt, seed_program(task)):
        ids = torch.tensor([moved.renderer.prompt_ids(program, task.test[1].question)])
        logits = moved.model(input_ids=ids).logits[0, -1].detach()
        logprobs.append(torch.log_softmax(logits.double(), -1))
    by_hand = float((logprobs[0].exp() * (logprobs[0] - logprobs[1])).sum())
    assert values[1] == pytest.approx(by_hand, abs=1e-5)
    assert text_influence(moved, task, seed_program(task), task.test[:2]) == (0, 0)


def test_demonstrations_show_different_answers_and_are_the_same_in_every_run() -> None:
    task = words(3)
    shown = spread(task, 4)
    assert {example.answer for example in shown[:3]} == {"a0", "a1", "a2"}
    assert shown == spread(task, 4)
    assert shown != spread(replace(task, version="words@2"), 4)


def test_open_answers_and_graders_that_take_no_others_have_influence_alone() -> None:
    policy = Scripted(knowing)
    for task, reason in (
        (words(21), "not a closed set of answers: 21 different ones in train"),
        (words(1), "not a closed set of answers: 1 different ones in train"),
        (
            words(3, lambda example, text: Grade(float(text == f"a{int(example.id[-1]) % 3}"), "")),
            "the grader does not take other answers than the task's own",
        ),
        (replace(words(3), max_tokens=2), "an exchanged answer takes more than max_tokens = 2"),
    ):
        result = measure_adherence(policy, task, PromptProgram("Go."), task.test, 4)
        assert result.scores == {}
        assert set(result.reasons.values()) == {reason}
        assert len(result.influence["text_influence"]) == len(task.test)
    guarded = guard_graders({"words": words(3, strict)}, 5.0, 0.0)["words"]
    result = measure_adherence(policy, guarded, PromptProgram("Go."), guarded.test, 4)
    assert set(result.reasons.values()) == {
        "the grader does not take other answers than the task's own"
    }
    [guard] = guards([guarded])
    assert guard.counts == [0, 0, 0]  # trying it out is no failure of the run's
    result = measure_adherence(policy, words(3, numeric), PromptProgram("Go."), words(3).test, 4)
    assert list(result.scores) == ["adherence_flipped", "adherence_prior"]
    assert list(result.reasons) == ["adherence_nonsense"]
