"""The fast channel: a population of K prompts, evolved with the weights frozen.

One phase: re-score the old prompts under the present weights, let an optimizer propose new ones
within the budget, keep the Pareto top K (arXiv 2605.12484, Algorithm 1).
"""

import time
from contextlib import AbstractContextManager, nullcontext

from fastslow.channels.base import Adaptation, Assessor, Channel, StepLog
from fastslow.channels.fast.feedback import correct_answers, evidence_playbook
from fastslow.channels.fast.optimizers.base import Optimizer
from fastslow.channels.fast.pool import Pool
from fastslow.channels.fast.reflection.lm import Reflection
from fastslow.channels.fast.scorer import TextScorer, build_guard, in_a_thread
from fastslow.channels.fast.settings import FastConfig, fitting_proposals
from fastslow.core.distributed import by_leader
from fastslow.core.errors import ChannelError
from fastslow.core.prompts import Candidate, Lineage, Population
from fastslow.core.types import Anchor
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task


class FastChannel(Channel):
    """Evolves a task's prompts with any optimizer, and its second language model if it has one.

    Its prompts belong to a task and to the policy, and each phase draws from its own seed: there is
    nothing to begin, to save or to load.
    """

    name = "fast"

    def __init__(
        self, settings: FastConfig, optimizer: Optimizer, reflection: Reflection | None = None
    ) -> None:
        self.settings = settings
        self.optimizer = optimizer
        self.reflection = reflection

    def end(self, policy: Policy, task: Task, stage: int, assessor: Assessor) -> tuple[()]:
        """No remedies."""
        return ()

    def adapt(
        self, policy: Policy, task: Task, anchor: Anchor, seed: int, log: StepLog
    ) -> Adaptation:
        """Replace the task's population by the best K of old and new prompts on the anchor set.

        Draws at most `metric_calls` completions. With several processes the leader does it alone,
        so that a reflection model is asked once. See `Channel.adapt`.

        Raises:
            ChannelError: The weights changed meanwhile, or the policy could not answer.
        """
        population, adaptation = by_leader(lambda: self._phase(policy, task, anchor, seed, log))
        policy.populations[task.name] = population
        return adaptation

    def _phase(
        self, policy: Policy, task: Task, anchor: Anchor, seed: int, log: StepLog
    ) -> tuple[Population, Adaptation]:
        """The prompts to keep, and the account of the phase; the policy does not change."""
        started, weights = time.monotonic(), policy.weights_fingerprint()
        old_prompts = policy.population(task)

        scorer = TextScorer(policy, task, anchor, self.settings, seed)
        with scorer.engine:
            sizes = len(scorer.anchor_set), len(scorer.pool), len(old_prompts)
            rescoring = len(scorer.anchor_set) * len(old_prompts)
            fits = sum(fitting_proposals(self.settings, scorer.limit - rescoring, *sizes))
            log(0, scorer.limit, {"proposals_fit": fits})

            def log_best(pool: Pool) -> None:
                log(scorer.spent, scorer.limit, {"score": max(c.mean for c in pool.candidates)})

            origin = Lineage(stage=anchor.stage, cycle=anchor.cycle, weights=weights)
            pool = Pool(build_guard(policy, task, anchor, self.settings), origin, log_best)

            # Algorithm 1: the old prompts under the present weights, then new ones
            programs = [old.program for old in old_prompts]
            for program, scores in zip(programs, scorer.score(*programs), strict=True):
                pool.keep(Candidate(program, scores))

            def search() -> None:
                with self._reflecting(policy, scorer, anchor, seed, log):
                    self.optimizer.search(scorer, pool, seed)

            def cancel() -> None:
                scorer.engine.cancel()
                if self.reflection is not None:
                    self.reflection.leave()

            if not pool.is_saturated:
                in_a_thread(search, cancel)

        if policy.weights_fingerprint() != weights:
            raise ChannelError("fast: the adapter changed while prompts evolved. This is a bug.")
        population, notes = pool.best(self.settings.population), pool.notes()
        if self.reflection is not None and (away := self.reflection.away) is not None:
            end = f"the reflection model stayed away, the phase ended with what it had: {away}"
            notes = (*notes, end)
        reused: dict[str, float] = {}  # rollouts of the last slow phase that could be shown
        if anchor.evidence:
            reused["reused_rollouts"] = float(len(correct_answers(task, anchor)))
        return population, Adaptation(
            rollouts=scorer.spent,
            tokens=scorer.tokens,
            seconds=time.monotonic() - started,
            metrics={
                "best_score": max(c.mean for c in population),
                "mean_score": sum(c.mean for c in population) / len(population),
                "texts": float(len(population)),
                "proposals_fit": float(fits),
                "cache_hits": float(scorer.cache.hits),
                **pool.figures(),
                **(self.reflection.figures() if self.reflection else {}),
                **reused,
            },
            notes=notes,
        )

    def _reflecting(
        self, policy: Policy, scorer: TextScorer, anchor: Anchor, seed: int, log: StepLog
    ) -> AbstractContextManager[None]:
        """The reflection model's phase, with a playbook if the last slow phase left evidence."""
        if self.reflection is None:
            return nullcontext()

        def log_answer(answers: int) -> None:
            log(scorer.spent, scorer.limit, {"reflections": answers})

        def count_tokens(text: str) -> int:
            return len(policy.renderer.answer_ids(text))

        limits = self.reflection.settings
        playbook = evidence_playbook(scorer.task, anchor, seed, limits, count_tokens)
        return self.reflection.phase(policy, seed, playbook, log_answer)
