"""The `demos` optimizer: demonstrations by random search, through DSPy; no second language model.

Two kinds of proposals take turns: *labelled* takes gold answers from the pool, *bootstrapped*
takes the policy's own correct answers, as DSPy's BootstrapFewShotWithRandomSearch does. One
proposal is one candidate of that optimizer, so that the budget is kept to the rollout. With
evidence of the slow phase before, *reused* takes the place of bootstrapped: the policy's correct
answers are then at hand, and none is drawn again.
"""

import contextlib
import io
import logging
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dspy

from fastslow.channels.dspy_bridge import (
    Metric,
    PolicyEngine,
    PromptModule,
    language_model,
    to_dspy,
)
from fastslow.channels.reuse import correct_answers
from fastslow.policy.policy import Policy
from fastslow.prompts import Candidate, PromptProgram
from fastslow.seeds import named_random
from fastslow.task import Task
from fastslow.types import Anchor, Sampling

Kind = Literal["labelled", "bootstrapped", "reused"]
RANDOM_SEARCH_SEED: dict[Kind, int] = {"labelled": -2, "bootstrapped": 0}
"""DSPy's own number of the candidate that is made this way."""


@dataclass(frozen=True)
class DemosSettings:
    """Settings of the demonstration search; see `config.models.DemosConfig`."""

    population: int
    """K: texts kept after each fast phase."""
    demonstrations: int
    """Demonstrations in one text, at most."""
    metric_calls: int
    """Most rollouts of one fast phase."""
    threads: int
    """Requests in flight."""


class DemosSearch:
    """Scores and proposes texts on one anchor set under the present weights. A context manager.

    Args:
        policy: Answers; not changed.
        task: Gives instruction, grader and limits.
        anchor: Texts are scored on its examples, demonstrations come from its pool.
        settings: Sizes.
    """

    def __init__(self, policy: Policy, task: Task, anchor: Anchor, settings: DemosSettings) -> None:
        self.settings = settings
        self.anchor_set = [to_dspy(example) for example in anchor.examples]
        self.pool = [to_dspy(example) for example in anchor.pool]
        self.reused = correct_answers(task, anchor)
        self.metric = Metric(task, (*anchor.examples, *anchor.pool))
        self.engine = PolicyEngine(policy.engine, policy.renderer, Sampling(task.max_tokens))

    def __enter__(self) -> "DemosSearch":
        """Start answering."""
        self.engine.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop; raises what went wrong in the engine (see `PolicyEngine.__exit__`)."""
        self.engine.__exit__(*exception)

    def affordable(self, round_: int, rollouts: int) -> Kind | None:
        """What the next proposal may be, with `rollouts` left; None when not even a cheap one."""
        cost = len(self.anchor_set)
        if round_ % 2 and self.reused:
            return "reused" if rollouts >= cost else None
        if round_ % 2 and rollouts >= cost + len(self.pool):
            return "bootstrapped"
        return "labelled" if rollouts >= cost else None

    def score(self, program: PromptProgram) -> dict[str, float]:
        """Score of `program` on each anchor example, by id."""
        evaluate = dspy.Evaluate(
            devset=self.anchor_set,
            metric=self.metric,
            num_threads=self.settings.threads,
            max_errors=1,
            display_progress=False,
        )
        with isolated(), dspy.context(lm=language_model(self.engine)):
            results = evaluate(PromptModule(program)).results
        return {example.id: float(score) for example, _, score in results}

    def propose(self, kind: Kind, parent: PromptProgram, seed: int) -> Candidate:
        """One new text with its scores.

        Args:
            kind: How its demonstrations are made.
            parent: Gives the instruction.
            seed: Of the order in which the pool is gone through.
        """
        if kind == "reused":
            found = list(self.reused)
            named_random(seed, "reused").shuffle(found)
            shown = tuple(spread_answers(found)[: self.settings.demonstrations])
            program = PromptProgram(parent.instruction, shown)
            return Candidate(program, self.score(program))
        pool = list(self.pool)
        named_random(seed, "pool").shuffle(pool)
        pool = spread_answers(pool)
        optimizer_arguments = {
            "metric": self.metric,
            "metric_threshold": 1.0,
            "max_labeled_demos": self.settings.demonstrations,
            "max_bootstrapped_demos": self.settings.demonstrations,
            "num_candidate_programs": 1,
            "num_threads": self.settings.threads,
            "max_errors": 1,
        }
        with isolated(), dspy.context(lm=language_model(self.engine)):
            optimizer = dspy.BootstrapFewShotWithRandomSearch(**optimizer_arguments)
            best = optimizer.compile(
                PromptModule(PromptProgram(parent.instruction)),
                trainset=pool,
                valset=self.anchor_set,
                restrict=[RANDOM_SEARCH_SEED[kind]],
                labeled_sample=False,
            )
        subscores = best.candidate_programs[0]["subscores"]
        scores = {e.id: float(s) for e, s in zip(self.anchor_set, subscores, strict=True)}
        return Candidate(best.program(), scores)


def spread_answers(pool: Sequence[Any]) -> list[Any]:
    """The pool in rounds: each distinct answer once, then each again, in the order given.

    Demonstrations are taken from the front. Four that share one answer teach a small model to give
    that answer always; four different ones show the convention.
    """
    seen: Counter[str] = Counter()
    rounds = []
    for example in pool:
        rounds.append(seen[example.answer])
        seen[example.answer] += 1
    order = sorted(range(len(pool)), key=lambda i: rounds[i])
    return [pool[i] for i in order]


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Keep DSPy's prints to itself and Python's global random stream as it was."""
    logger = logging.getLogger("dspy")
    level, state = logger.level, random.getstate()
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        random.setstate(state)
