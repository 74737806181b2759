"""The fast channel: a population of K prompt programs, evolved with the weights frozen.

One phase: re-score the old texts under the present weights, propose new ones while the budget
lasts, keep the Pareto top K (arXiv 2605.12484, Algorithm 1).
"""

import time
from dataclasses import replace
from pathlib import Path

from fastslow.channels.base import Adaptation, StepLog
from fastslow.channels.demos import DemosSearch, DemosSettings
from fastslow.errors import ChannelError
from fastslow.policy.policy import Policy
from fastslow.processes import from_leader
from fastslow.prompts import Candidate, Lineage, select
from fastslow.seeds import derive_seed
from fastslow.task import Task
from fastslow.types import Anchor


class FastChannel:
    """Evolves a task's texts with the `demos` optimizer.

    Args:
        settings: Sizes and budget.
    """

    name = "fast"

    def __init__(self, settings: DemosSettings) -> None:
        self.settings = settings

    def adapt(
        self, policy: Policy, task: Task, anchor: Anchor, seed: int, log: StepLog
    ) -> Adaptation:
        """Replace the task's population by the best K of old and new texts on the anchor set.

        Draws at most `metric_calls` completions. See `Channel.adapt`.

        Raises:
            ChannelError: The weights changed meanwhile, or the policy could not answer.
        """
        started, before = time.monotonic(), policy.engine.num_rollouts
        weights = policy.weights_fingerprint()
        budget = self.settings.metric_calls
        candidates: list[Candidate] = []

        def spent() -> int:
            return policy.engine.num_rollouts - before

        def enter(candidate: Candidate) -> None:
            candidates.append(candidate)
            log(spent(), budget, {"score": max(c.mean for c in candidates)})

        with DemosSearch(policy, task, anchor, self.settings) as search:
            for old in policy.population(task):
                enter(Candidate(old.program, search.score(old.program)))
            parent, proposals = candidates[0].program, 0
            while (kind := search.affordable(proposals, budget - spent())) is not None:
                found = search.propose(kind, parent, derive_seed(seed, "proposal", proposals))
                lineage = Lineage(
                    f"demos-{kind}", parent.text_hash, anchor.stage, anchor.cycle, weights
                )
                enter(replace(found, program=replace(found.program, lineage=lineage)))
                proposals += 1

        if policy.weights_fingerprint() != weights:
            raise ChannelError("fast: the adapter changed while texts were evolved. This is a bug.")
        population = from_leader(select(candidates, self.settings.population))
        policy.populations[task.name] = population
        return Adaptation(
            rollouts=spent(),
            seconds=time.monotonic() - started,
            metrics={
                "best_score": max(c.mean for c in population),
                "mean_score": sum(c.mean for c in population) / len(population),
                "texts": float(len(population)),
                "proposals": float(proposals),
                **({"reused_rollouts": float(len(search.reused))} if anchor.evidence else {}),
            },
        )

    def save(self, folder: Path) -> None:
        """Nothing: the population is the policy's, and each phase draws from its own seed."""

    def load(self, folder: Path) -> None:
        """Nothing to take back."""
