"""The fast optimizers on the real DSPy and GEPA, over a policy that follows a scripted rule."""

import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from dspy.lm15 import Message, Request, Response, Usage

from fastslow.channels.fast.channel import FastChannel
from fastslow.channels.fast.dspy_bridge import GuardedModule
from fastslow.channels.fast.optimizers.base import Optimizer, SequenceSearch
from fastslow.channels.fast.optimizers.demos import DemosSearch
from fastslow.channels.fast.optimizers.gepa import REFUSED_IN_A_ROW, GepaSearch
from fastslow.channels.fast.optimizers.mipro import MiproSearch
from fastslow.channels.fast.optimizers.simba import SimbaSearch
from fastslow.channels.fast.reflection.endpoint import Answer, NoAnswer
from fastslow.channels.fast.reflection.lm import Reflection
from fastslow.channels.fast.scorer import TextScorer
from fastslow.channels.fast.settings import (
    DemosConfig,
    DemosKeys,
    GepaKeys,
    MiproKeys,
    ReflectionSettings,
    SimbaKeys,
)
from fastslow.core.prompts import Candidate, Demonstration, PromptProgram
from fastslow.core.seeds import named_random
from fastslow.core.types import Anchor, Completion, Example, Grade, Sampling, TokenIds
from fastslow.loop.stream import Stream
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task

RULE = "Double the number."
FAST = DemosConfig(population=2, metric_calls=60, threads=4)


def silent(done: int, total: int, figures: object) -> None:
    """A log that keeps nothing."""


class Obedient:
    """A sampler that doubles the number if it is told to, or shown; else it repeats it.

    Above temperature 0 it may also forget what it was told.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self.decode = decode
        self.num_rollouts = self.num_tokens = 0

    def sample(
        self,
        prompts: Sequence[TokenIds],
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        adapter: bool = True,
    ) -> list[Completion]:
        self.num_rollouts += len(prompts)
        return [
            self.answer(self.decode(prompt), sampling.temperature, seed)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def answer(self, prompt: str, temperature: float, seed: int) -> Completion:
        number = int(re.findall(r"\d+", prompt)[-1])
        knows = "Double" in prompt or "assistant" in prompt.rsplit("user", 1)[0]
        if temperature:
            knows = named_random(seed, prompt).random() < 0.5
        if "Halve" in prompt:
            number = -number
        text = str(2 * number if knows and number % 4 else number)
        return Completion((1,), (0.0,), text, "stop")


class Scripted(Reflection):
    """A reflection model that says what it is told to."""

    def __init__(self, replies: Sequence[str]) -> None:
        super().__init__(ReflectionSettings(attempts=1))
        self.script = Script(replies)
        self._endpoint = self.script  # type: ignore[assignment]  # in place of a server


class Script:
    """Answers one reply after the other; "away" is none."""

    def __init__(self, replies: Sequence[str]) -> None:
        self.replies = replies
        self.asked = 0

    def complete(self, request: Request) -> Answer:
        reply = self.replies[self.asked % len(self.replies)]
        self.asked += 1
        if reply == "away":
            raise NoAnswer("no route to host", "again")
        response = Response(
            id=None,
            model=request.model,
            message=Message.assistant(reply),
            finish_reason="stop",
            usage=Usage(),
        )
        return Answer(response, cost_usd=None)


def says(instruction: str) -> str:
    return json.dumps({"new_instruction": instruction})


@pytest.fixture
def task() -> Task:
    """Numbers to be doubled, of which the policy knows three in four."""

    def examples(split: str, start: int, count: int) -> tuple[Example, ...]:
        return tuple(
            Example(f"{split}-{n}", f"number {n}", str(2 * n)) for n in range(start, start + count)
        )

    def grade(example: Example, text: str) -> Grade:
        right = text == example.answer
        return Grade(float(right), "correct" if right else f"should be {example.answer}")

    return Task(
        name="double",
        version="double@1",
        train=examples("train", 100, 20),
        validation=examples("validation", 200, 4),
        test=examples("test", 300, 4),
        instruction="Answer.",
        grade=grade,
        max_tokens=6,
    )


@pytest.fixture
def anchor(task: Task) -> Anchor:
    """Eight problems to be scored on, eight in the pool."""
    return Stream(
        "double", task.train, seed=0, stage=0, start=0, num_cycles=1, steps=2, problems=4, pool=8
    ).anchor(0)


@pytest.fixture
def obedient(policy: Policy) -> Policy:
    policy.sampler = Obedient(policy.tokenizer.decode)
    return policy


def adapt(policy: Policy, task: Task, anchor: Anchor, optimizer: Optimizer, **settings: Any) -> Any:
    reflection = getattr(optimizer, "reflection", None)
    channel = FastChannel(FAST.model_copy(update=settings), optimizer, reflection)
    return channel.adapt(policy, task, anchor, 1, silent)


def gepa(*replies: str) -> GepaSearch:
    return GepaSearch(GepaKeys(minibatch=2), 2, Scripted(list(replies)))


def test_gepa_takes_the_rule_that_the_reflection_model_supplies(
    obedient: Policy, task: Task, anchor: Anchor
) -> None:
    adaptation = adapt(obedient, task, anchor, gepa(says(RULE)))
    best = obedient.populations["double"][0]
    assert best.program.instruction == RULE
    assert best.mean == 0.75
    lineage = best.program.lineage
    assert (lineage.optimizer, lineage.stage, lineage.cycle) == ("gepa", 0, 0)
    assert lineage.parent == PromptProgram("Answer.").text_hash
    assert lineage.weights == obedient.weights_fingerprint()
    assert adaptation.rollouts == obedient.sampler.num_rollouts <= 60
    assert adaptation.metrics["refused_duplicate"] > 0  # it only ever says the same


def test_gepa_does_not_take_a_rule_that_makes_it_worse(
    obedient: Policy, task: Task, anchor: Anchor
) -> None:
    seed = Candidate(PromptProgram(RULE), {})
    obedient.populations["double"] = (seed,)
    adaptation = adapt(obedient, task, anchor, gepa(says("Double or Halve the number.")))
    assert [c.program.instruction for c in obedient.populations["double"]] == [RULE]
    assert adaptation.metrics["refused_not_better"] == 1


def test_gepa_starts_from_the_whole_population_and_a_child_keeps_its_parents_demonstrations(
    obedient: Policy, task: Task, anchor: Anchor
) -> None:
    shown = PromptProgram("Write.", (Demonstration("number 7", "14"),))
    bare = PromptProgram("Answer.")
    obedient.populations["double"] = (Candidate(bare, {}), Candidate(shown, {}))
    adapt(obedient, task, anchor, gepa(says("Halve"), says(RULE), says("Double!")), metric_calls=90)
    assert {c.program.demonstrations for c in obedient.populations["double"]} <= {
        shown.demonstrations,
        (),
    }
    assert obedient.populations["double"][0].mean == 0.75


@pytest.mark.parametrize("reply", ["no JSON at all", says(""), says('{"new_instruction": "x"}')])
def test_garbage_of_the_reflection_model_costs_no_answers_and_is_counted(
    obedient: Policy, task: Task, anchor: Anchor, reply: str
) -> None:
    adaptation = adapt(obedient, task, anchor, gepa(reply))
    assert [c.program.instruction for c in obedient.populations["double"]] == ["Answer."]
    assert adaptation.metrics["refused_garbage"] > 0
    assert adaptation.rollouts <= 8 + 8  # old text on the anchor set, parent on the pool


def test_a_reflection_model_that_repeats_itself_is_not_asked_for_ever(
    obedient: Policy, task: Task, anchor: Anchor
) -> None:
    optimizer = gepa(says("Repeat the number."))
    adaptation = adapt(obedient, task, anchor, optimizer, metric_calls=1000)
    assert adaptation.metrics["refused_duplicate"] == REFUSED_IN_A_ROW
    assert adaptation.metrics["reflection_calls"] == 1 + REFUSED_IN_A_ROW


def test_a_reflection_model_that_goes_away_ends_the_phase_with_what_was_found(
    obedient: Policy, task: Task, anchor: Anchor
) -> None:
    optimizer = gepa(says(RULE), "away")
    adaptation = adapt(obedient, task, anchor, optimizer, metric_calls=200)
    assert obedient.populations["double"][0].program.instruction == RULE
    [note] = adaptation.notes
    assert note.startswith("the reflection model stayed away")
    assert note.endswith("with what it had: self: no route to host")
    assert adaptation.metrics["reflection_away"] == 1
    assert isinstance(optimizer.reflection, Scripted)
    assert optimizer.reflection.script.asked <= 4  # the JSON adapter may try twice


def test_a_score_of_zero_everywhere_keeps_the_seed_text_and_is_said(
    obedient: Policy, task: Task, anchor: Anchor
) -> None:
    hopeless = replace(task, grade=lambda *unused: Grade(0.0, "never"))
    adaptation = adapt(obedient, hopeless, anchor, DemosSearch(DemosKeys(demonstrations=2)))
    assert [c.program for c in obedient.populations["double"]] == [PromptProgram("Answer.")]
    assert adaptation.metrics["all_zero"] == 1
    assert "scores 0 on every anchor problem" in adaptation.notes[0]


def test_nothing_is_searched_where_every_text_has_full_marks(
    obedient: Policy, task: Task, anchor: Anchor
) -> None:
    easy = replace(task, grade=lambda *unused: Grade(1.0, "correct"))
    adaptation = adapt(obedient, easy, anchor, DemosSearch(DemosKeys(demonstrations=2)))
    assert adaptation.rollouts == 8
    assert adaptation.metrics["saturated"] == 1
    assert "scores 1 on every anchor problem" in adaptation.notes[0]


def simba(*replies: str) -> SimbaSearch:
    rule = {"discussion": "x", "module_advice": {"respond": RULE}}
    chat = "".join(
        f"[[ ## {name} ## ]]\n{value if isinstance(value, str) else json.dumps(value)}\n\n"
        for name, value in rule.items()
    )
    keys = SimbaKeys(demonstrations=2, batch=2, candidates=2)
    return SimbaSearch(keys, Scripted(replies or [chat + "[[ ## completed ## ]]"]))


def test_simba_finds_demonstrations_or_rules_where_answers_differ(
    obedient: Policy, task: Task, anchor: Anchor
) -> None:
    adaptation = adapt(obedient, task, anchor, simba(), metric_calls=120)
    best = obedient.populations["double"][0]
    assert best.mean == 0.75
    assert best.program.lineage.optimizer == "simba"
    pool = {example.question for example in anchor.pool}
    assert {d.question for d in best.program.demonstrations} <= pool
    assert adaptation.rollouts == obedient.sampler.num_rollouts <= 120


def test_simba_asks_the_policy_no_more_once_the_reflection_model_is_away(
    obedient: Policy, task: Task, anchor: Anchor
) -> None:
    gone, there = simba("away"), simba()
    plain = adapt(obedient, task, anchor, there, metric_calls=120)
    obedient.populations.clear()
    adaptation = adapt(obedient, task, anchor, gone, metric_calls=120)
    assert gone.reflection.away is not None
    assert len(anchor.examples) < adaptation.rollouts < plain.rollouts / 2


def test_a_text_that_is_refused_asks_no_model(obedient: Policy, task: Task, anchor: Anchor) -> None:
    scorer = TextScorer(obedient, task, anchor, FAST)
    with scorer.engine, scorer.asking():
        refused = GuardedModule(PromptProgram(RULE), lambda program: "too_long")
        assert refused(question="number 3").answer == ""
        assert scorer.spent == 0
        allowed = GuardedModule(PromptProgram(RULE), lambda program: None)
        assert allowed.deepcopy()(question="number 3").answer == "6"
        assert scorer.spent == 1


@pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="needs fastslow[mipro]")
def test_mipro_combines_instructions_and_demonstrations(
    obedient: Policy, task: Task, anchor: Anchor
) -> None:
    reply = "[[ ## observations ## ]]\nx\n\n[[ ## summary ## ]]\nx\n\n"
    reply += f"[[ ## proposed_instruction ## ]]\n{RULE}\n\n[[ ## completed ## ]]"
    optimizer = MiproSearch(MiproKeys(demonstrations=2, candidates=3), Scripted([reply]))
    adaptation = adapt(obedient, task, anchor, optimizer, metric_calls=120)
    best = obedient.populations["double"][0]
    assert best.mean == 0.75
    assert best.program.lineage.optimizer == "mipro"
    assert adaptation.rollouts == obedient.sampler.num_rollouts <= 120


def test_a_sequence_gives_the_second_what_the_first_found(
    obedient: Policy, task: Task, anchor: Anchor
) -> None:
    both = SequenceSearch(
        [
            (0.4, DemosSearch(DemosKeys(demonstrations=1))),
            (0.6, gepa(says(RULE), says("Do Double."))),
        ]
    )
    adaptation = adapt(obedient, task, anchor, both, metric_calls=100)
    origins = {c.program.lineage.optimizer for c in obedient.populations["double"]}
    assert origins <= {"demos-labelled", "demos-bootstrapped", "gepa"}
    assert obedient.populations["double"][0].mean == 0.75
    assert adaptation.rollouts <= 100


@pytest.mark.parametrize("make", [simba, lambda: gepa(says("Halve"), says(RULE), says("Double!"))])
@pytest.mark.parametrize("budget", [24, 37, 61, 110])
def test_the_budget_holds_to_the_rollout_and_threads_do_not_matter(
    obedient: Policy, task: Task, anchor: Anchor, make: Callable[[], Optimizer], budget: int
) -> None:
    found = []
    for threads in (1, 8):
        obedient.populations.clear()
        adaptation = adapt(obedient, task, anchor, make(), metric_calls=budget, threads=threads)
        assert adaptation.rollouts <= budget
        found.append((obedient.populations["double"], adaptation.rollouts, adaptation.metrics))
    assert found[0] == found[1]
