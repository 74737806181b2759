"""The prompts of one fast phase: which enter, which are refused and why, where each came from."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from fastslow.channels.fast.text_guards import CAUSES, Cause, Guard, identity
from fastslow.core.prompts import Candidate, Lineage, Population, PromptProgram, select


class Pool:
    """Candidates with their scores on one anchor set, in the order they entered.

    `origin` has stage, cycle and weights of the phase, for the lineage of new prompts; `changed` is
    called whenever a candidate was judged.
    """

    def __init__(self, guard: Guard, origin: Lineage, changed: Callable[["Pool"], None]) -> None:
        self.guard = guard
        self.candidates: list[Candidate] = []
        self.refused: Counter[Cause] = Counter()
        self.proposals = 0
        self._origin = origin
        self._changed = changed
        self._seen: set[object] = set()
        self._entered: dict[str, Candidate] = {}
        self._parents: dict[str, str] = {}

    def __deepcopy__(self, memo: dict[int, object]) -> "Pool":
        """DSPy copies programs with everything they hold; there is one pool."""
        return self

    def keep(self, old: Candidate) -> None:
        """Take in a prompt of the last population, re-scored under the present weights."""
        self._seen.add(identity(old.program))
        self._take(old)

    def refuses(self, program: PromptProgram) -> bool:
        """Judge a new prompt before it is scored; refusals and repetitions are counted."""
        self.proposals += 1
        cause = "duplicate" if identity(program) in self._seen else self.forbids(program)
        self._seen.add(identity(program))
        if cause is not None:
            self.refuse(cause)
        return cause is not None

    def forbids(self, program: PromptProgram) -> Cause | None:
        """The guard's cause against a prompt that is not in the pool; nothing is counted."""
        if program.text_hash in self._entered:
            return None
        is_old = any(c.program.instruction == program.instruction for c in self.candidates)
        return self.guard.cause(program, has_new_instruction=not is_old)

    def refuse(self, cause: Cause, count: int = 1) -> None:
        """Count prompts that do not enter."""
        self.refused[cause] += count

    def enter(
        self, program: PromptProgram, scores: Mapping[str, float], parent: str, optimizer: str
    ) -> bool:
        """Let a child in if its mean is higher than its parent's, on the same examples.

        A child of a refused prompt is measured against the nearest ancestor that is in the pool.
        `parent` is the `text_hash` of the prompt it was made from, which this pool has met.
        """
        lineage = replace(self._origin, optimizer=optimizer, parent=parent)
        child = Candidate(replace(program, lineage=lineage), scores)
        while parent not in self._entered:
            parent = self._parents[parent]
        rival = self._entered[parent]
        assert child.scores.keys() == rival.scores.keys()
        is_better = child.mean > rival.mean
        if is_better:
            self._take(child)
        else:
            self._parents[program.text_hash] = parent
            self.refuse("not_better")
            self._changed(self)
        return is_better

    def best(self, size: int) -> Population:
        """The `size` best prompts so far; see `prompts.select`."""
        return select(self.candidates, size)

    @property
    def is_saturated(self) -> bool:
        """Whether every prompt scores 1 on every example, so that none can be better."""
        return all(s == 1.0 for c in self.candidates for s in c.scores.values())

    @property
    def is_all_zero(self) -> bool:
        """Whether every prompt scores 0 on every example, so that they cannot be told apart."""
        return not any(s for c in self.candidates for s in c.scores.values())

    def figures(self) -> dict[str, float]:
        """Counts for the records, every cause of refusal among them."""
        counts: dict[str, float] = {f"refused_{cause}": self.refused[cause] for cause in CAUSES}
        return counts | {
            "proposals": self.proposals,
            "saturated": float(self.is_saturated),
            "all_zero": float(self.is_all_zero),
        }

    def notes(self) -> tuple[str, ...]:
        """Warnings for the report."""
        if self.is_saturated:
            return (
                "every prompt scores 1 on every anchor problem: the search has nothing to gain",
            )
        if self.is_all_zero:
            return (
                "every prompt scores 0 on every anchor problem: no new prompt could enter, "
                "and the old ones were kept",
            )
        return ()

    def _take(self, candidate: Candidate) -> None:
        self.candidates.append(candidate)
        self._entered[candidate.program.text_hash] = candidate
        self._changed(self)
