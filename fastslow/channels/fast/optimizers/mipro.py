"""The `mipro` optimizer: instructions and demonstrations combined, through DSPy's MIPROv2.

The reflection model writes instructions from examples of the pool; sets of demonstrations are
bootstrapped from the pool; a Bayesian search scores combinations of both on the anchor set.
"""

import warnings
from dataclasses import dataclass

import dspy

from fastslow.channels.fast.dspy_bridge import GuardedModule
from fastslow.channels.fast.pool import Pool
from fastslow.channels.fast.reflection.lm import Reflection
from fastslow.channels.fast.scorer import TextScorer
from fastslow.channels.fast.settings import MiproKeys
from fastslow.core.seeds import named_random


@dataclass(frozen=True)
class MiproSearch:
    """Search over instructions times demonstrations; see `MiproKeys`."""

    keys: MiproKeys
    reflection: Reflection
    """Writes instructions."""

    def search(self, scorer: TextScorer, pool: Pool, seed: int) -> None:
        """See `Optimizer.search`: it starts from the best prompt."""
        parent, keys = pool.best(1)[0].program, self.keys
        sizes = len(scorer.anchor_set), len(scorer.pool)
        trials = keys.proposals(scorer.remaining, *sizes, old=1)
        if not trials:
            return
        examples = list(scorer.pool)
        named_random(seed, "pool").shuffle(examples)
        with scorer.asking(), warnings.catch_warnings():
            # DSPy uses an argument that optuna calls experimental
            warnings.filterwarnings("ignore", message=r".*multivariate.* experimental")
            optimizer = dspy.MIPROv2(
                metric=scorer.metric,
                prompt_model=self.reflection.lm,
                auto=None,
                num_candidates=keys.candidates,
                max_bootstrapped_demos=keys.demonstrations,
                max_labeled_demos=keys.demonstrations,
                metric_threshold=1.0,
                num_threads=scorer.threads,
                max_errors=1,
                seed=1 + seed % (2**32 - 1),
            )
            try:
                best = optimizer.compile(
                    GuardedModule(parent, pool.forbids),
                    trainset=examples,
                    valset=scorer.anchor_set,
                    num_trials=trials,
                    minibatch=False,
                    program_aware_proposer=False,
                )
            except Exception:
                if self.reflection.away is None:
                    raise
                return  # it is asked before anything is scored, so nothing is lost
        for candidate in best.candidate_programs:
            program = candidate["program"].program()
            if program != parent and not pool.refuses(program):
                pool.enter(program, scorer.score(program)[0], parent.text_hash, "mipro")
