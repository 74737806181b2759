"""The `simba` optimizer: rules and demonstrations from uneven answers, through DSPy's SIMBA.

It draws several answers to each example of a batch and learns where they differ: from a good one it
takes a demonstration, from a good and a bad one the reflection model writes a rule. It works on the
pool; its winners are then scored on the anchor set.
"""

from dataclasses import dataclass

import dspy

from fastslow.channels.fast.dspy_bridge import GuardedModule
from fastslow.channels.fast.pool import Pool
from fastslow.channels.fast.reflection.lm import Reflection
from fastslow.channels.fast.scorer import TextScorer
from fastslow.channels.fast.settings import SimbaKeys
from fastslow.core.seeds import named_random


@dataclass(frozen=True)
class SimbaSearch:
    """Stochastic mini-batch ascent from the best prompt; see `SimbaKeys`.

    SIMBA does not say which of its prompts a winner was made from, so all winners count as children
    of the prompt it started from.
    """

    keys: SimbaKeys
    reflection: Reflection
    """Writes rules."""

    def search(self, scorer: TextScorer, pool: Pool, seed: int) -> None:
        """See `Optimizer.search`.

        SIMBA passes over a rule that was not written. Once the reflection model stays away, all
        prompts are refused, so that the rest of the budget is not spent on a search without rules.
        """
        parent, keys = pool.best(1)[0].program, self.keys
        steps = keys.num_steps(scorer.remaining, len(scorer.anchor_set), len(scorer.pool))
        if not steps:
            return
        examples = list(scorer.pool)
        named_random(seed, "pool").shuffle(examples)
        with scorer.asking():
            optimizer = dspy.SIMBA(
                metric=scorer.metric,
                bsize=keys.batch,
                num_candidates=keys.candidates,
                max_steps=steps,
                max_demos=keys.demonstrations,
                prompt_model=self.reflection.lm,
                num_threads=scorer.threads,
            )
            best = optimizer.compile(
                GuardedModule(parent, lambda text: self.reflection.away or pool.forbids(text)),
                trainset=examples[: steps * keys.batch],
                seed=seed,
            )
        for candidate in best.candidate_programs:
            program = candidate["program"].program()
            if program != parent and not pool.refuses(program):
                pool.enter(program, scorer.score(program)[0], parent.text_hash, "simba")
