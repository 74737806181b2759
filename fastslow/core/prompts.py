"""The fast weights as pure data: prompts, prompts with their scores, the population.

Their JSON form is that of `dataclasses.asdict`; `core/decode.py` reads it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A worked example shown to the policy as one user turn and one assistant turn."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a prompt came from. Not part of its identity."""

    optimizer: str = "seed"
    """What proposed it: `seed`, or the name of a fast optimizer."""
    parent: str | None = None
    """`text_hash` of the prompt it was made from."""
    stage: int | None = None
    """Index of the stage that made it."""
    cycle: int | None = None
    """Index of the cycle within the stage."""
    weights: str | None = None
    """Fingerprint of the weights it was first scored under."""


@dataclass(frozen=True, slots=True)
class PromptProgram:
    """One prompt: an instruction and its demonstrations."""

    instruction: str
    """System text; empty means no system turn, and the chat template decides."""
    demonstrations: tuple[Demonstration, ...] = ()
    lineage: Lineage = field(default=Lineage(), compare=False)

    @property
    def text_hash(self) -> str:
        """Twelve hex digits of the SHA-256 of instruction and demonstrations, in order."""
        texts = [self.instruction, [[d.question, d.answer] for d in self.demonstrations]]
        canonical = json.dumps(texts, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()[:12]

    @property
    def num_chars(self) -> int:
        """Length of all its texts, in characters; the tie-break of selection."""
        return len(self.instruction) + sum(
            len(d.question) + len(d.answer) for d in self.demonstrations
        )


BARE = PromptProgram("")
"""A problem without any text of ours: no instruction, no demonstrations. A chat template that puts
in a system turn of its own still does, since that is what a user without a text gets."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A prompt with its score on each example it was tried on."""

    program: PromptProgram
    scores: Mapping[str, float]
    """Example id to score in [0, 1]; empty when not scored yet."""

    @property
    def mean(self) -> float:
        """Mean score, 0 when unscored."""
        return fmean(self.scores.values()) if self.scores else 0.0


Population: TypeAlias = tuple[Candidate, ...]
"""Prompt population: candidates in rank order, best first; never empty."""


def dominates(a: Candidate, b: Candidate) -> bool:
    """Whether `a` is at least as good as `b` on every example and better on one.

    Both must have been scored on the same examples.
    """
    pairs = [(a.scores[key], b.scores[key]) for key in b.scores]
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


def pareto_front(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The candidates that none dominates, in their order.

    Source: GEPA (arXiv 2507.19457), per-instance Pareto frontier.
    """
    return tuple(c for c in candidates if not any(dominates(rival, c) for rival in candidates))


def coverage(candidate: Candidate, candidates: Iterable[Candidate]) -> int:
    """Number of examples on which `candidate` reaches the best score of all `candidates`.

    An example that nobody scores above 0 covers no one.
    """
    pool = list(candidates)
    best = {key: max(c.scores[key] for c in pool) for key in candidate.scores}
    return sum(candidate.scores[key] == top > 0 for key, top in best.items())


def select(candidates: Sequence[Candidate], size: int) -> Population:
    """Keep the `size` best: the Pareto front first, then the rest, each in rank order.

    Rank is coverage, then mean score, then the shorter prompt, then its hash (so that equal
    candidates order the same way everywhere). Duplicate prompts count once. There is at least one
    candidate, and all are scored on the same examples.

    Source: Fast-Slow Training (arXiv 2605.12484), Algorithm 1: top K of the per-instance Pareto
        frontier. Filling up from behind the front when it is smaller than K is ours.
    """
    unique = list({c.program.text_hash: c for c in candidates}.values())
    if not unique:
        raise ValueError("select: no candidates, got an empty sequence. Score one prompt first.")
    front = {c.program.text_hash for c in pareto_front(unique)}
    return tuple(
        sorted(
            unique,
            key=lambda c: (
                c.program.text_hash not in front,
                -coverage(c, unique),
                -c.mean,
                c.program.num_chars,
                c.program.text_hash,
            ),
        )[:size]
    )


def best_by_mean(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate to deploy: highest mean, ties to the shorter prompt, then to the hash."""
    return min(candidates, key=lambda c: (-c.mean, c.program.num_chars, c.program.text_hash))


def assign_slots(population: Population, group: int) -> tuple[PromptProgram, ...]:
    """The prompt of each of a problem's `group` rollouts: G/K consecutive slots per prompt.

    A population that is still smaller than K (the first cycle starts from one prompt) shares the
    group as evenly as its size allows, better-ranked prompts first; it may not be larger than G.
    """
    size = len(population)
    share, extra = divmod(group, size)
    return tuple(
        candidate.program
        for rank, candidate in enumerate(population)
        for _ in range(share + (rank < extra))
    )
