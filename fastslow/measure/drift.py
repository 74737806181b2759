"""How far the tuned policy has moved from its base, on named inputs with a named direction.

Tuned is the policy as it is, base the same weights with the adapter off. Both get the same context,
so that weights are measured, not texts; `kl_system` alone compares deployments. Divergences are
exact over the vocabulary, temperature 1, means over generated tokens, the stop token included.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from fastslow.measure.divergences import sampled_kl
from fastslow.measure.uncertainty import clustered_se
from fastslow.policy.engine_interface import Engine, TokenComparison
from fastslow.policy.policy import Policy, seed_program
from fastslow.prompts import PromptProgram
from fastslow.seeds import derive_seed
from fastslow.task import Task
from fastslow.types import Example, Sampling, TokenIds

ROWS_AT_ONCE = 16
"""Rows whose whole distributions are held in memory together."""


@dataclass(frozen=True)
class Drift:
    """A divergence or an entropy, token mean."""

    value: float
    """Nats per token; a divergence is >= 0 up to rounding."""
    tokens: int
    """Tokens it is the mean of."""
    se: float | None = None
    """Standard error over completions, whose tokens are not independent; None with one."""


@dataclass(frozen=True)
class DriftPair:
    """Both directions on the same inputs, and the entropies that come with them."""

    kl_fst: Drift
    """KL(tuned || base) at tokens the tuned policy draws."""
    kl_razor: Drift
    """KL(base || tuned) at tokens the base draws; on a new task's inputs it goes with
    forgetting."""
    entropy: Drift
    """Policy entropy: of the tuned policy, at the tokens it draws."""
    entropy_base: Drift
    """The same of the base, at the tokens the base draws."""


def kl_fst(
    policy: Policy, task: Task, program: PromptProgram, examples: tuple[Example, ...], seed: int
) -> Drift:
    """KL(tuned || base) at tokens the tuned policy draws, same text in both contexts.

    Args:
        policy: The tuned policy; not changed.
        task: Gives the completion limit.
        program: The text both are given.
        examples: The inputs, at least one.
        seed: Of the draws.

    Source: Fast-Slow Training (arXiv 2605.12484); reference metric `kl_fst`.
    """
    prompts = [policy.renderer.prompt_ids(program, example.question) for example in examples]
    rows = _compare(policy.engine, prompts, task.max_tokens, seed, adapter=True)
    return token_mean([row.kl_tuned_base for row in rows])


def drift_on(engine: Engine, prompts: Sequence[TokenIds], max_tokens: int, seed: int) -> DriftPair:
    """Both directions and both entropies on any inputs: a new task's, an old one's, neutral ones.

    Args:
        engine: Over the tuned policy; not changed.
        prompts: Token ids of the inputs, at least one.
        max_tokens: Limit of each completion.
        seed: Of the draws; the tuned policy and the base share it row by row.

    Source: `kl_fst` Fast-Slow Training (arXiv 2605.12484), `kl_razor` RL's Razor (2509.04259).
    """
    tuned = _compare(engine, prompts, max_tokens, seed, adapter=True)
    base = _compare(engine, prompts, max_tokens, seed, adapter=False)
    return DriftPair(
        kl_fst=token_mean([row.kl_tuned_base for row in tuned]),
        kl_razor=token_mean([row.kl_base_tuned for row in base]),
        entropy=token_mean([row.entropy_tuned for row in tuned]),
        entropy_base=token_mean([row.entropy_base for row in base]),
    )


def drift_with_and_without_text(
    policy: Policy, task: Task, program: PromptProgram, examples: Sequence[Example], seed: int
) -> dict[str, DriftPair]:
    """`drift_on` a task's inputs `with_text` and `without_text`: the four divergences.

    Without means under the task's seed text, which is what is there when the fast channel is not:
    without any instruction most tasks ask for nothing.

    Args:
        policy: The tuned policy; not changed.
        task: Gives seed text and completion limit.
        program: The evolved text; both sides are given it.
        examples: The inputs, at least one.
        seed: Of the draws.
    """
    texts = {"with_text": program, "without_text": seed_program(task)}
    measured: dict[str, DriftPair] = {}
    for text in texts.values():
        if text.text_hash not in measured:
            prompts = [policy.renderer.prompt_ids(text, example.question) for example in examples]
            pair = drift_on(policy.engine, prompts, task.max_tokens, seed)
            measured[text.text_hash] = pair
    return {name: measured[text.text_hash] for name, text in texts.items()}


def kl_system(
    policy: Policy, task: Task, program: PromptProgram, examples: Sequence[Example], seed: int
) -> Drift:
    """KL(tuned under its text || base under the seed text) on outputs: weights and text together.

    The contexts differ, so it is estimated from the tokens drawn (k3): not to be compared with the
    exact divergences of weights alone.

    Args:
        policy: The tuned policy; not changed.
        task: Gives seed text and completion limit.
        program: The text in deployment.
        examples: The inputs, at least one.
        seed: Of the draws.
    """
    ours = [policy.renderer.prompt_ids(program, example.question) for example in examples]
    theirs = [
        policy.renderer.prompt_ids(seed_program(task), example.question) for example in examples
    ]
    drawn = _draw(policy.engine, ours, task.max_tokens, seed, adapter=True)
    terms = []
    for start in range(0, len(drawn), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        p = policy.engine.logprobs(ours[rows], drawn[rows])
        q = policy.engine.logprobs(theirs[rows], drawn[rows], adapter=False)
        for a, b in zip(p, q, strict=True):
            terms.append(tuple(sampled_kl([x], [y]).k3 for x, y in zip(a, b, strict=True)))
    return token_mean(terms)


def token_mean(rows: Sequence[Sequence[float]]) -> Drift:
    """Mean over all tokens of all rows, with a standard error whose clusters are the rows.

    Args:
        rows: One value per token; at least one token.
    """
    values = [value for row in rows for value in row]
    clusters = [index for index, row in enumerate(rows) for _ in row]
    assert all(map(math.isfinite, values)), "a probability of the model is not a number"
    return Drift(fmean(values), len(values), clustered_se(values, clusters))


def _draw(
    engine: Engine, prompts: Sequence[TokenIds], max_tokens: int, seed: int, *, adapter: bool
) -> list[TokenIds]:
    seeds = [derive_seed(seed, "kl", index) for index in range(len(prompts))]
    sampling = Sampling(max_tokens, temperature=1.0)
    drawn = engine.sample(prompts, sampling, seeds, adapter=adapter)
    return [completion.token_ids for completion in drawn]


def _compare(
    engine: Engine, prompts: Sequence[TokenIds], max_tokens: int, seed: int, *, adapter: bool
) -> list[TokenComparison]:
    """Tuned and base at tokens that one of them draws."""
    drawn = _draw(engine, prompts, max_tokens, seed, adapter=adapter)
    compared = []
    for start in range(0, len(prompts), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        compared += engine.compare_to_base(prompts[rows], drawn[rows])
    return compared
