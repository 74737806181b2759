"""Reference spread of reasonings whose effect is known, and of a tiny real model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from fastslow.core.prompts import PromptProgram
from fastslow.core.types import Completion, Example, TokenIds
from fastslow.measure.base import Measured, Snapshot
from fastslow.measure.model.reference_spread import (
    ReferenceSpreadConfig,
    reference_spread,
    spreads_and_rates,
)
from fastslow.policy.policy import Policy
from fastslow.policy.render import Renderer
from fastslow.task.definition import Task
from fastslow.task.graders import BOX, boxed_match
from fastslow.task.guarded_grader import guard_graders
from tests.support.tiny import tiny_model, tiny_tokenizer


def sums(count: int = 4, max_tokens: int = 40) -> Task:
    """Questions whose gold answer is a boxed number."""
    examples = tuple(Example(f"q{i}", f"Sum {i}", rf"\boxed{{{40 + i}}}") for i in range(count))
    return Task(
        train=examples,
        validation=tuple(replace(e, id=f"v{e.id}", question=f"{e.question}!") for e in examples),
        test=tuple(replace(e, id=f"t{e.id}", question=f"{e.question}?") for e in examples),
        instruction="Reason, then box.",
        grade=boxed_match,
        max_tokens=max_tokens,
        name="sums",
        version="sums@1",
    )


class Scripted(Policy):
    """Writes what a table says; an answer is likely behind a reasoning that has it, else not."""

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        super().__init__(tiny_model(), tiny_tokenizer())
        self.texts = texts
        self.rows: list[tuple[str, str]] = []
        """What was read before each answer, from the prompt on, and the answer."""
        self.scorer: Any = self

    def complete(
        self, requests: Sequence[tuple[PromptProgram, Example]], *_: Any, **__: Any
    ) -> list[Completion]:
        turns: dict[str, int] = {}
        completions = []
        for request in requests:
            problem = request[1].id
            turn = turns[problem] = turns.get(problem, -1) + 1
            text = self.texts[problem][turn]
            ids = self.renderer.answer_ids(text)
            ends = not text.endswith("...")
            completions.append(
                Completion(
                    ids if ends else ids[:-1],
                    (0.0,) * len(ids),
                    text,
                    "stop" if ends else "length",
                )
            )
        return completions

    def logprobs(
        self, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
    ) -> list[tuple[float, ...]]:
        pairs = [
            (self.tokenizer.decode(p).rpartition("assistant\n")[2], self.renderer.decode(c))
            for p, c in zip(prompts, completions, strict=True)
        ]
        self.rows += pairs
        likely = [answer.removesuffix("}") in context for context, answer in pairs]
        return [
            ((-0.1 if is_likely else -3.0),) * len(c)
            for is_likely, c in zip(likely, completions, strict=True)
        ]


def test_a_reasoning_that_fixes_the_answer_gives_more_than_one_that_does_not() -> None:
    texts = {
        "vq0": [r"It is 40. \boxed{40}", r"It is 9. \boxed{9}"],  # decides
        "vq1": [r"Well. \boxed{41}", r"Hm. \boxed{7}"],  # differs, and decides nothing
        "vq2": [r"It is 42. \boxed{42}"] * 2,  # identical
        "vq3": ["It is 43 and so on...", r"\boxed{1} or \boxed{43}"],  # no box; two boxes
    }
    task, policy = sums(), Scripted(texts)
    decisive = pytest.approx(2.9 / 2**0.5)
    assert spreads_and_rates(policy, task, task.validation, 2, 0) == [
        (decisive, 0.5),
        (0, 0.5),
        (0, 1),
        (decisive, 0.5),
    ]
    # the answer's own box never stands before it, identical reasonings are read once
    assert policy.rows == [
        (rf"It is 40. {BOX}", "40}"),
        (rf"It is 9. {BOX}", "40}"),
        (rf"Well. {BOX}", "41}"),
        (rf"Hm. {BOX}", "41}"),
        (rf"It is 42. {BOX}", "42}"),
        (rf"It is 43 and so on...{BOX}", "43}"),
        (rf"\boxed{{1}} or {BOX}", "43}"),
    ]


def test_a_reasoning_leaves_room_for_the_answer() -> None:
    task = sums(1, max_tokens=20)
    policy = Scripted({"vq0": ["x" * 17 + "...", "no"]})
    spreads_and_rates(policy, task, task.validation, 2, 0)
    # 10 + len(r"\boxed{40}") = 20; a stop token is no part of a reasoning
    assert policy.rows == [("x" * 10 + BOX, "40}"), ("no" + BOX, "40}")]


def test_tokens_that_reach_over_the_start_of_the_mark_are_not_before_it() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([r" \b", "}."])
    renderer = Renderer(tokenizer)
    ids = renderer.text_ids(r"so é \boxed{1}. or \boxed{22}.", inside=True)
    assert renderer.decode(renderer.ids_before(ids, BOX)) == r"so é \boxed{1}. or"
    assert renderer.ids_before(ids[:-9], BOX) == renderer.text_ids("so é", inside=True)
    assert renderer.ids_before(ids[:3], BOX) == ids[:3]
    assert renderer.ids_before((), BOX) == ()


def figures(measured: Measured) -> dict[str, tuple[Any, str | None]]:
    return {metric.name: (metric.value, metric.reason) for metric in measured.figures}


def taken(policy: Policy, tasks: Mapping[str, Task], seed: int = 0) -> list[Measured]:
    """What the measure says of a policy that visited all of the tasks."""
    snapshot = Snapshot(
        policy,
        1,
        tasks,
        tuple(tasks),
        list(tasks)[-1],
        test_sample=lambda task: task.test,
        scores=lambda task: {},
        arm_scores=lambda task, arm: {},
        validation_sample=lambda task, size: task.validation[:size],
        stage_change=None,
        change=None,
        seed=seed,
    )
    config = ReferenceSpreadConfig(rollouts=3, examples=4)
    return list(reference_spread.build(config)(snapshot))


def test_a_real_policy_has_the_same_figures_again_and_others_with_another_seed(
    moved: Policy, task: Task
) -> None:
    boxed = guard_graders({"sums": sums(max_tokens=16)}, 5.0, 1.0)["sums"]
    tasks = {"letters": replace(task, name="letters"), "sums": boxed}
    weights, before = moved.weights_fingerprint(), moved.sampler.num_rollouts
    bare, measured = taken(moved, tasks)
    assert moved.sampler.num_rollouts - before == 12
    assert moved.weights_fingerprint() == weights
    reason = r"completions hold no reasoning: the grader reads no \boxed{...}"
    assert set(figures(bare).values()) == {(None, reason)}
    mean, _ = figures(measured)["reference_spread"]
    assert mean is not None
    assert (
        0
        < measured.numbers["reference_spread/low"]
        < mean
        < measured.numbers["reference_spread/high"]
    )
    # a tiny model never boxes an answer, so there is nothing to correlate with
    _, why_not = figures(measured)["reference_spread_spearman"]
    assert why_not == "every problem has the same spread, or the same pass rate"
    assert taken(moved, tasks)[1] == measured
    assert figures(taken(moved, tasks, seed=1)[1])["reference_spread"][0] != mean


def test_spread_and_pass_rate_are_correlated_by_rank_where_there_are_problems_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def correlation(*pairs: tuple[float, float]) -> tuple[Any, str | None]:
        module = "fastslow.measure.model.reference_spread.spreads_and_rates"
        monkeypatch.setattr(module, lambda *_: list(pairs))
        [measured] = taken(Scripted({}), {"sums": sums(len(pairs))})
        return figures(measured)["reference_spread_spearman"]

    assert correlation((0.0, 0.25), (0.5, 0.5), (9.0, 1.0)) == (pytest.approx(1), None)
    falling = correlation((0.0, 1.0), (0.7, 0.25), (0.5, 0.5), (9.0, 0.0))
    assert falling == (pytest.approx(-1), None)
    assert correlation((0.0, 0.25), (0.5, 0.5)) == (None, "fewer than three problems")
