"""Scores texts on examples under the present weights; no completion is drawn twice.

All pairs of text and example go to the engine together, so that each text is computed once and the
rows of all texts are decoded in the same batches. `dspy_bridge.py` draws from the same cache, so a
text that DSPy proposes again costs nothing. Called by the fast channel.
"""

import threading
from collections.abc import Sequence
from typing import Protocol, TypeAlias

from fastslow.core.errors import ChannelError
from fastslow.core.prompts import PromptProgram
from fastslow.core.types import Completion, Example, Sampling, TokenIds
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task

Request: TypeAlias = tuple[TokenIds, Sampling, int]
"""What a completion depends on beside the weights: prompt, decoding, seed."""


class Sampler(Protocol):
    """Draws completions: an engine, or a cache before one."""

    def sample(
        self, prompts: Sequence[TokenIds], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """See `Engine.sample`."""
        ...


class CompletionCache:
    """Draws each completion once for as long as the weights stay what they are; thread-safe.

    The key is the exact token sequence of text and example, the decoding and the seed (which greedy
    decoding does not depend on). Answers from the cache are no rollouts: the engine counts what it
    draws. Other weights empty the cache.

    Args:
        policy: Its engine draws, its fingerprint says whether the weights changed.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._weights = ""
        self._kept: dict[Request, Completion] = {}
        self._lock = threading.Lock()
        self.hits = 0
        """Completions that did not have to be drawn."""

    def sample(
        self, prompts: Sequence[TokenIds], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """See `Engine.sample`; equal requests get the same completion."""
        with self._lock:
            weights = self._policy.weights_fingerprint()
            if weights != self._weights:
                self._kept.clear()
                self._weights = weights
            requests = [
                (prompt, sampling, seed if sampling.temperature else 0)
                for prompt, seed in zip(prompts, seeds, strict=True)
            ]
            new = [request for request in dict.fromkeys(requests) if request not in self._kept]
            if new:
                drawn = self._policy.sampler.sample(
                    [prompt for prompt, _, _ in new], sampling, [seed for _, _, seed in new]
                )
                self._kept |= dict(zip(new, drawn, strict=True))
            self.hits += len(requests) - len(new)
            return [self._kept[request] for request in requests]


def score_programs(
    policy: Policy,
    task: Task,
    programs: Sequence[PromptProgram],
    examples: Sequence[Example],
    cache: CompletionCache | None = None,
) -> list[dict[str, float]]:
    """Score each text on each example, greedily, all of them in one call of the engine.

    The scores are those of `dspy.Evaluate` over the same policy, renderer and grader.

    Args:
        policy: Answers; not changed.
        task: Gives grader and limit.
        programs: The texts.
        examples: What they are asked.
        cache: Of the phase; None draws everything anew.

    Returns:
        For each text, the score in [0, 1] of each example by its id.

    Raises:
        ChannelError: The engine could not draw.
    """
    sampler: Sampler = cache or policy.sampler
    prompts = [
        policy.renderer.prompt_ids(program, example.question)
        for program in programs
        for example in examples
    ]
    try:
        drawn = iter(sampler.sample(prompts, Sampling(task.max_tokens), [0] * len(prompts)))
    except (RuntimeError, MemoryError) as err:  # torch's own word for no memory is RuntimeError
        raise ChannelError(f"fast: the policy could not answer a request: {err}") from err
    return [
        {example.id: task.grade(example, next(drawn).text).score for example in examples}
        for _ in programs
    ]
