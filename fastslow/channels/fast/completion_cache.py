"""Scores prompts on examples under the present weights; no completion is drawn twice.

DSPy draws from the same cache as we do, so a prompt that it proposes again costs nothing.
"""

import threading
from collections.abc import Sequence
from typing import TypeAlias

from fastslow.core.errors import ChannelError
from fastslow.core.prompts import PromptProgram
from fastslow.core.types import Completion, Example, Sampling, TokenIds
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task
from fastslow.task.guarded_grader import grade_all

Request: TypeAlias = tuple[TokenIds, Sampling, int]
"""All that a completion depends on along with the weights: token ids, decoding, seed."""


class CompletionCache:
    """Draws each completion once while the weights do not change; thread-safe.

    The key is the exact token sequence of prompt and example, the decoding and the seed (which
    greedy decoding does not depend on). Answers from the cache are not rollouts: the engine counts
    its draws. New weights empty the cache.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._weights = ""
        self._cache: dict[Request, Completion] = {}
        self._lock = threading.Lock()
        self.hits = 0
        """Completions that did not have to be drawn."""

    def sample(
        self, prompts: Sequence[TokenIds], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """See `Sampler.sample`; equal requests get the same completion."""
        with self._lock:
            weights = self._policy.weights_fingerprint()
            if weights != self._weights:
                self._cache.clear()
                self._weights = weights
            requests = [
                (prompt, sampling, seed if sampling.temperature else 0)
                for prompt, seed in zip(prompts, seeds, strict=True)
            ]
            new = [request for request in dict.fromkeys(requests) if request not in self._cache]
            if new:
                completions = self._policy.sampler.sample(
                    [prompt for prompt, _, _ in new], sampling, [seed for _, _, seed in new]
                )
                self._cache |= dict(zip(new, completions, strict=True))
            self.hits += len(requests) - len(new)
            return [self._cache[request] for request in requests]


def score_programs(
    policy: Policy,
    task: Task,
    programs: Sequence[PromptProgram],
    examples: Sequence[Example],
    cache: CompletionCache | None = None,
) -> list[dict[str, float]]:
    """Score in [0, 1] of each prompt on each example by its id, greedy, in one call of the engine.

    The scores are those of `dspy.Evaluate` over the same policy, renderer and grader. Without a
    cache every completion is drawn.

    Raises:
        ChannelError: The engine could not draw.
    """
    sampler = cache or policy.sampler
    prompts = [
        policy.renderer.prompt_ids(program, example.question)
        for program in programs
        for example in examples
    ]
    try:
        completions = sampler.sample(prompts, Sampling(task.max_tokens), [0] * len(prompts))
    except (RuntimeError, MemoryError) as err:  # torch runs out of memory with a RuntimeError
        raise ChannelError(f"fast: the policy could not answer a request: {err}") from err
    repeated = [*examples] * len(programs)
    answers = [(example, c.text) for example, c in zip(repeated, completions, strict=True)]
    grades = iter(grade_all(task.grade, answers))
    return [{example.id: next(grades).score for example in examples} for _ in programs]
