"""The `gepa` optimizer: instructions by reflection on feedback, through DSPy's GEPA.

GEPA evolves one component here, the instruction. A second one that never changes names the old
prompt whose demonstrations a candidate shows, so that a population can be brought in and each child
keeps its parent's demonstrations. Feedback comes from the pool, scores from the anchor set: no
prompt is scored on a problem whose answer the reflection model saw.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy

from fastslow.channels.fast.dspy_bridge import EMPTY, PromptModule, RendererAdapter, program_of
from fastslow.channels.fast.pool import Pool
from fastslow.channels.fast.reflection.lm import Reflection
from fastslow.channels.fast.scorer import TextScorer, scores_by_id
from fastslow.channels.fast.settings import GepaKeys
from fastslow.core.prompts import PromptProgram

REFUSED_IN_A_ROW = 10
"""After this many refused prompts in a row the reflection model is asked no more.

Source: ours; one that repeats itself would be asked, and paid, over a hundred times in a phase."""
INSTRUCTION, SHOWN = "respond", "shown"
"""GEPA's components: the instruction, and the prompt whose demonstrations are shown."""


@dataclass(frozen=True)
class GepaSearch:
    """Reflective evolution of the instruction; see `GepaKeys`.

    Source: GEPA (arXiv 2507.19457): Pareto choice of parents; a proposal reaches the anchor set
        if it beats its parent on the minibatch it was made from. No crossover.
    """

    keys: GepaKeys
    population: int
    """K: prompts it starts from, at most."""
    reflection: Reflection
    """Writes instructions."""

    def search(self, scorer: TextScorer, pool: Pool, seed: int) -> None:
        """See `Optimizer.search`.

        The metric calls of GEPA that cost no rollout, because old prompts are scored already, come
        on top of the budget; it stops before a proposal that might not fit.
        """
        old = [candidate.program for candidate in pool.best(self.population)]
        anchor, minibatch = len(scorer.anchor_set), self.keys.minibatch
        if not self.keys.proposals(scorer.remaining, anchor, len(scorer.pool), len(old)):
            return
        # GEPA counts metric calls. Those that score the old prompts on the anchor set draw nothing,
        # so they come on top. A proposal of 2M + V calls may start below the limit, and must fit.
        free = len(old) * anchor
        limit = free + scorer.remaining - (2 * minibatch + anchor) + 1
        proposer = Proposer(old, pool, self.reflection)
        with scorer.asking():
            optimizer = dspy.GEPA(
                metric=scorer.feedback,
                max_metric_calls=limit,
                reflection_minibatch_size=minibatch,
                reflection_lm=self.reflection.lm,
                instruction_proposer=proposer,
                component_selector=lambda *unused: [INSTRUCTION],
                skip_perfect_score=False,
                use_merge=False,
                num_threads=scorer.threads,
                track_stats=True,
                warn_on_score_mismatch=False,
                seed=seed,
                gepa_kwargs={
                    "acceptance_criterion": proposer,
                    "stop_callbacks": lambda state: proposer.is_done,
                },
            )
            results = optimizer.compile(
                PopulationModule(old), trainset=scorer.pool, valset=scorer.anchor_set
            ).detailed_results
        offer(results, proposer, pool, scorer)


def offer(results: Any, proposer: "Proposer", pool: Pool, scorer: TextScorer) -> None:
    """Let GEPA's candidates enter in the order it found them, each against its parent."""
    programs = [module.program() for module in results.candidates]
    old = {program.text_hash for program in proposer.old}
    children = [i for i, program in enumerate(programs) if program.text_hash not in old]
    pool.refuse("not_better", proposer.admitted - len(children))  # on their minibatch
    for index in children:
        subscores = results.val_subscores[index]
        scores = scores_by_id(scorer.anchor_set, [subscores[i] for i in sorted(subscores)])
        parent = programs[results.parents[index][0]].text_hash
        pool.enter(programs[index], scores, parent, "gepa")


class PopulationModule(PromptModule):
    """Several distinct prompts as one module with two components; it starts as the first."""

    def __init__(self, programs: Sequence[PromptProgram]) -> None:
        super().__init__(programs[0])
        self.shown = dspy.Predict(dspy.Signature("name -> text", programs[0].text_hash))
        self.demonstrations = {p.text_hash: PromptModule(p).respond.demos for p in programs}

    def forward(self, question: str) -> Any:
        """Ask with the present instruction and the named prompt's demonstrations."""
        demos = self.demonstrations[self.shown.signature.instructions]
        with dspy.context(adapter=RendererAdapter()):
            return self.respond(question=question, demos=demos)

    def program(self) -> PromptProgram:
        """The prompt this module stands for now, without lineage."""
        demos = self.demonstrations[self.shown.signature.instructions]
        return program_of(self.respond.signature.instructions, demos)


class Proposer:
    """GEPA's instruction proposer and acceptance criterion: old prompts first, then reflection.

    The first of the old prompts is GEPA's seed. The pool judges proposals before they cost a
    rollout.
    """

    def __init__(self, old: Sequence[PromptProgram], pool: Pool, reflection: Reflection) -> None:
        from dspy.teleprompt.gepa import InstructionProposer

        self.old = tuple(old)
        self.admitted = 0
        self._refused = 0
        self._pool = pool
        self._reflection = reflection
        self._by_hash = {program.text_hash: program for program in old}
        self._imports = [
            {INSTRUCTION: program.instruction or EMPTY, SHOWN: program.text_hash}
            for program in old[1:]
        ]
        self._imported: list[dict[str, str]] = []
        self._ask = InstructionProposer()

    def __call__(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> dict[str, str]:
        """New components of a child of `candidate`; empty when there is nothing to try.

        Never raises: GEPA would swallow the error and spend the budget on nothing.
        """
        if self._imports:
            self._imported.append(self._imports.pop(0))
            return dict(self._imported[-1])
        try:
            texts = self._ask(candidate, reflective_dataset, components_to_update)
        except Exception:  # an endpoint that is away says so itself; else the answer was not JSON
            if self._reflection.away is None:
                self._pool.proposals += 1
                self._pool.refuse("garbage")
                self._refused += 1
            return {}
        instruction = inspect.cleandoc(texts.get(INSTRUCTION, "").strip())
        demonstrations = self._by_hash[candidate[SHOWN]].demonstrations
        if self._pool.refuses(PromptProgram(instruction, demonstrations)):
            self._refused += 1
            return {}
        self.admitted += 1
        self._refused = 0
        return {INSTRUCTION: instruction}

    @property
    def is_done(self) -> bool:
        """Whether more requests are of no use."""
        return self._reflection.away is not None or self._refused >= REFUSED_IN_A_ROW

    def should_accept(self, proposal: Any, state: Any) -> bool:
        """Old prompts come in as they are; new ones must beat their parent on the minibatch."""
        if proposal.candidate in self._imported:
            return True
        before, after = proposal.subsample_scores_before, proposal.subsample_scores_after
        return bool(sum(after) > sum(before))
