"""How far the tuned policy has moved from its base, on named inputs with a named direction."""

from dataclasses import dataclass

from fastslow.policy.policy import Policy
from fastslow.prompts import PromptProgram
from fastslow.seeds import derive_seed
from fastslow.task import Task
from fastslow.types import Example, Sampling

ROWS_AT_ONCE = 16
"""Rows whose whole distributions are held in memory together."""


@dataclass(frozen=True)
class Drift:
    """A divergence, token mean."""

    value: float
    """Nats per generated token; >= 0 up to rounding."""
    tokens: int
    """Generated tokens it is the mean of."""


def kl_fst(
    policy: Policy, task: Task, program: PromptProgram, examples: tuple[Example, ...], seed: int
) -> Drift:
    """KL(tuned || base) at tokens the tuned policy draws, same text in both contexts.

    Exact over the whole vocabulary at each position, temperature 1, mean over generated tokens,
    the stop token included. The base is the same weights with the adapter switched off.

    Args:
        policy: The tuned policy; not changed.
        task: Gives the completion limit.
        program: The text both are given.
        examples: The inputs, at least one.
        seed: Of the draws.

    Source: Fast-Slow Training (arXiv 2605.12484); reference metric `kl_fst`.
    """
    sampling = Sampling(task.max_tokens, temperature=1.0)
    seeds = [derive_seed(seed, "kl", index) for index in range(len(examples))]
    completions = policy.complete([(program, example) for example in examples], sampling, seeds)
    prompts = [policy.renderer.prompt_ids(program, example.question) for example in examples]
    values: list[float] = []
    for start in range(0, len(examples), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        drawn = [completion.token_ids for completion in completions[rows]]
        for divergence in policy.engine.kl_to_base(prompts[rows], drawn):
            values += divergence
    return Drift(sum(values) / len(values), len(values))
