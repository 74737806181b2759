"""How far the tuned policy has moved from its base, on named inputs with a named direction.

Tuned is the policy as it is, base the same weights with the adapter off. Both get the same context,
so that weights are measured, not prompts; `kl_system` alone compares deployments. Divergences are
exact over the vocabulary, temperature 1, means over generated tokens, the stop token included.

All inputs are drawn and compared together: with few rows a pass costs what reading the weights
costs, and inputs under the same prompt share its tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from fastslow.core.prompts import PromptProgram
from fastslow.core.seeds import derive_seed
from fastslow.core.types import Completion, Example, Sampling, TokenIds
from fastslow.measure.model.divergences import k3
from fastslow.measure.stats.intervals import clustered_se
from fastslow.policy.engine.interface import Sampler, Scorer, TokenComparison
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task

ROWS_AT_ONCE = 64
"""Rows compared in one pass; whole distributions are held for some positions at a time only."""


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


@dataclass(frozen=True)
class DriftInputs:
    """Inputs with one figure: some of a task's under one prompt, or prose of no task."""

    prompts: tuple[TokenIds, ...]
    """Token ids, at least one prompt."""
    max_tokens: int
    """Limit of each completion."""


def task_inputs(
    policy: Policy, task: Task, program: PromptProgram, examples: Sequence[Example]
) -> DriftInputs:
    """A task's inputs under one prompt, the same for tuned policy and base."""
    prompts = (policy.renderer.prompt_ids(program, example.question) for example in examples)
    return DriftInputs(tuple(prompts), task.max_tokens)


def draw(
    sampler: Sampler, inputs: Sequence[DriftInputs], seeds: Sequence[int], *, adapter: bool
) -> list[tuple[Completion, ...]]:
    """One completion per prompt of each of `inputs`, at temperature 1; the base without `adapter`.

    Inputs with the same limit are drawn in one call; each has a seed, each row a stream.
    """
    by_row: dict[tuple[int, int], Completion] = {}
    for limit in dict.fromkeys(group.max_tokens for group in inputs):
        rows = [
            (index, row)
            for index, group in enumerate(inputs)
            if group.max_tokens == limit
            for row in range(len(group.prompts))
        ]
        prompts = [inputs[index].prompts[row] for index, row in rows]
        row_seeds = [derive_seed(seeds[index], "kl", row) for index, row in rows]
        completions = sampler.sample(prompts, Sampling(limit, 1.0), row_seeds, adapter=adapter)
        by_row |= zip(rows, completions, strict=True)
    return [
        tuple(by_row[index, row] for row in range(len(group.prompts)))
        for index, group in enumerate(inputs)
    ]


def drift_on(
    scorer: Scorer,
    inputs: Sequence[DriftInputs],
    tuned: Sequence[Sequence[TokenIds]],
    base: Sequence[Sequence[TokenIds]],
) -> list[DriftPair]:
    """Both directions and both entropies on any inputs: a new task's, old ones', neutral ones.

    `tuned` are completions that the tuned policy drew on each of `inputs`, `base` the base's.

    Source: `kl_fst` Fast-Slow Training (arXiv 2605.12484), `kl_razor` RL's Razor (2509.04259).
    """
    prompts: list[TokenIds] = []
    completions: list[TokenIds] = []
    for group, *draws in zip(inputs, tuned, base, strict=True):
        for rows in draws:  # both under the same prompts, one after the other, so that they share
            prompts += group.prompts
            completions += rows
    comparisons = iter(_compare(scorer, prompts, completions))
    pairs = []
    for group in inputs:
        of_tuned = [next(comparisons) for _ in group.prompts]
        of_base = [next(comparisons) for _ in group.prompts]
        pairs.append(
            DriftPair(
                kl_fst=token_mean([row.kl_tuned_base for row in of_tuned]),
                kl_razor=token_mean([row.kl_base_tuned for row in of_base]),
                entropy=token_mean([row.entropy_tuned for row in of_tuned]),
                entropy_base=token_mean([row.entropy_base for row in of_base]),
            )
        )
    return pairs


def kl_fst(
    policy: Policy, task: Task, program: PromptProgram, examples: Sequence[Example], seed: int
) -> Drift:
    """`kl_fst` alone: KL(tuned || base) at tokens the tuned policy draws (arXiv 2605.12484)."""
    inputs = task_inputs(policy, task, program, examples)
    [completions] = draw(policy.sampler, [inputs], [seed], adapter=True)
    rows = _compare(policy.scorer, inputs.prompts, [c.token_ids for c in completions])
    return token_mean([row.kl_tuned_base for row in rows])


def kl_system(
    scorer: Scorer, completions: Sequence[Sequence[Completion]], theirs: Sequence[DriftInputs]
) -> list[Drift]:
    """KL(tuned under its prompt || base under the seed prompt), of weights and prompt together.

    The contexts differ, so it is estimated from the tokens that were drawn (k3): do not compare it
    with the exact divergences of weights alone. `completions` were drawn by the tuned policy on
    each task's inputs under the deployed prompt; `theirs` are these inputs under the seed prompt.
    """
    rows = [
        (prompt, completion)
        for group, draws in zip(theirs, completions, strict=True)
        for prompt, completion in zip(group.prompts, draws, strict=True)
    ]
    terms: list[tuple[float, ...]] = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        batch = rows[start : start + ROWS_AT_ONCE]
        prompts = [prompt for prompt, _ in batch]
        base = scorer.logprobs(prompts, [c.token_ids for _, c in batch], adapter=False)
        for (_, completion), base_logprobs in zip(batch, base, strict=True):
            pairs = zip(completion.logprobs, base_logprobs, strict=True)
            terms.append(tuple(k3(p, q) for p, q in pairs))
    rows_of_terms = iter(terms)
    return [token_mean([next(rows_of_terms) for _ in group.prompts]) for group in theirs]


def token_mean(rows: Sequence[Sequence[float]]) -> Drift:
    """Mean over all tokens of all rows, with a standard error whose clusters are the rows."""
    values = [value for row in rows for value in row]
    clusters = [index for index, row in enumerate(rows) for _ in row]
    assert all(map(math.isfinite, values)), "a probability of the model is not a number"
    return Drift(fmean(values), len(values), clustered_se(values, clusters))


def _compare(
    scorer: Scorer, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
) -> list[TokenComparison]:
    """Tuned and base at given tokens."""
    compared = []
    for start in range(0, len(prompts), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        compared += scorer.compare_to_base(prompts[rows], completions[rows])
    return compared
