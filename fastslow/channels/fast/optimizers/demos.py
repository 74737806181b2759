"""The `demos` optimizer: demonstrations by random search, through DSPy; no second language model.

Two kinds of proposals take turns: *labelled* takes gold answers from the pool, *bootstrapped*
takes the policy's own correct answers, as DSPy's BootstrapFewShotWithRandomSearch does. *reused*
takes those of the last slow phase in place of the latter. One proposal is one candidate of that
optimizer, so that the budget is kept to the rollout.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dspy

from fastslow.channels.fast.demo_order import (
    Order,
    as_found,
    by_difficulty,
    by_similarity,
)
from fastslow.channels.fast.dspy_bridge import Metric, PromptModule
from fastslow.channels.fast.feedback import correct_answers
from fastslow.channels.fast.pool import Pool
from fastslow.channels.fast.scorer import TextScorer, scores_by_id
from fastslow.channels.fast.settings import DemosKeys
from fastslow.core.prompts import Candidate, Demonstration, PromptProgram
from fastslow.core.seeds import derive_seed, named_random
from fastslow.policy.signals import signal_of
from fastslow.task.splits import spread_answers

Drawn = Literal["labelled", "bootstrapped"]
RANDOM_SEARCH_SEED: dict[Drawn, int] = {"labelled": -2, "bootstrapped": 0}
"""DSPy's own number of the candidate that is made this way."""
FULL_SCORE = 1.0
"""Score that an answer of the policy needs to be shown as a demonstration."""


@dataclass(frozen=True)
class DemosSearch:
    """Random search over demonstrations."""

    keys: DemosKeys

    def search(self, scorer: TextScorer, pool: Pool, seed: int) -> None:
        """See `Optimizer.search`: every proposal has the best prompt's instruction."""
        parent = pool.best(1)[0].program
        order = self._arrange(scorer, parent)
        cost, budget, number = len(scorer.anchor_set), scorer.remaining, 0
        reused = correct_answers(scorer.task, scorer.anchor)
        while budget >= cost:
            before = scorer.spent
            draws = derive_seed(seed, "proposal", number)
            if number % 2 == 1 and reused:
                kind, child = "reused", self._reuse(scorer, reused, parent, order, draws)
            elif number % 2 == 1 and budget >= cost + len(scorer.pool):
                kind = "bootstrapped"
                child = self._propose(scorer, "bootstrapped", parent, order, draws)
            else:
                kind, child = "labelled", self._propose(scorer, "labelled", parent, order, draws)
            if not pool.refuses(child.program):
                pool.enter(child.program, child.scores, parent.text_hash, f"demos-{kind}")
            budget -= max(cost, scorer.spent - before)  # repeated prompts must end the search too
            number += 1

    def _arrange(self, scorer: TextScorer, parent: PromptProgram) -> Order:
        """How this phase orders demonstrations; pass rates of the pool cost a rollout each."""
        order, examples = self.keys.demonstration_order, scorer.anchor.pool
        if order == "random":
            return as_found
        if order == "similar":
            return by_similarity([example.question for example in scorer.anchor.examples])
        difficulty: Mapping[str, float | None]
        if (use := self.keys.demonstration_signal) is not None:
            difficulty = scorer.read(PromptProgram(parent.instruction), examples, signal_of(use)[1])
        else:
            [scores] = scorer.score(parent, examples=examples)
            difficulty = {name: 1 - score for name, score in scores.items()}
        values = {example.question: difficulty[example.id] for example in examples}
        return by_difficulty(values, hardest_first=order.endswith("hard_first"))

    def _reuse(
        self,
        scorer: TextScorer,
        answers: Sequence[Demonstration],
        parent: PromptProgram,
        order: Order,
        seed: int,
    ) -> Candidate:
        """A prompt that shows answers of the last slow phase, with its scores."""
        answers = list(answers)
        named_random(seed, "reused").shuffle(answers)
        demonstrations = order(spread_answers(answers)[: self.keys.demonstrations])
        program = PromptProgram(parent.instruction, demonstrations)
        return Candidate(program, scorer.score(program)[0])

    def _propose(
        self, scorer: TextScorer, kind: Drawn, parent: PromptProgram, order: Order, seed: int
    ) -> Candidate:
        """One new prompt with its scores; `seed` orders the pool."""
        pool = list(scorer.pool)
        named_random(seed, "pool").shuffle(pool)
        pool = spread_answers(pool)
        optimizer_arguments = {
            "metric": AnswerQuota(scorer.metric, pool, self.keys.demonstrations),
            "metric_threshold": FULL_SCORE,
            "max_labeled_demos": self.keys.demonstrations,
            "max_bootstrapped_demos": self.keys.demonstrations,
            "num_candidate_programs": 1,
            "num_threads": scorer.threads,
            "max_errors": 1,
        }
        with scorer.asking():
            optimizer = dspy.BootstrapFewShotWithRandomSearch(**optimizer_arguments)
            best = optimizer.compile(
                PromptModule(PromptProgram(parent.instruction), order),
                trainset=pool,
                valset=scorer.anchor_set,
                restrict=[RANDOM_SEARCH_SEED[kind]],
                labeled_sample=False,
            )
        subscores = best.candidate_programs[0]["subscores"]
        return Candidate(best.program(), scores_by_id(scorer.anchor_set, subscores))


class AnswerQuota:
    """A metric that lets DSPy bootstrap from a full range of answers, not from the easiest one.

    A policy that gives one answer to everything is right where that is the answer, and prompts made
    of those successes teach it nothing else. While DSPy gathers demonstrations, which shows in that
    it hands over a trace, a right answer counts until its share of the prompt is taken.
    """

    def __init__(self, metric: Metric, pool: Sequence[Any], demonstrations: int) -> None:
        self.metric = metric
        self.quota = math.ceil(demonstrations / len({example.answer for example in pool}))
        self.taken: Counter[str] = Counter()

    def __call__(self, example: Any, prediction: Any, trace: object = None) -> float:
        """Score in [0, 1]; 0 while gathering once the answer's share is taken."""
        score = self.metric(example, prediction)
        if trace is None or score < FULL_SCORE:
            return score
        self.taken[example.answer] += 1
        return score if self.taken[example.answer] <= self.quota else 0.0
