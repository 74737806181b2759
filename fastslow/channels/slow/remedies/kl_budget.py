"""A budget of KL to the base: the adaptation of a stage ends where the budget is spent."""

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import TypeAlias

import torch

from fastslow.channels.slow.remedies.base import Figures, Memory, Remedy, Stage, Update
from fastslow.channels.slow.remedies.shrink import FACTORS
from fastslow.core.distributed import from_all
from fastslow.core.seeds import named_random
from fastslow.core.types import TokenIds
from fastslow.policy.policy import Policy

Row: TypeAlias = tuple[TokenIds, TokenIds]
"""A prompt and its completion."""

TOKENS_AT_ONCE = 512
"""Completion tokens whose distributions are held in memory together, unless one row is longer."""


def kl_budget(limit: float, num_rows: int) -> Remedy:
    """Ends the adaptation of a stage when KL(tuned || base) passes a limit.

    After every update the KL is measured on the rows the update was made from: the stage's own
    inputs under its present texts, drawn one update before the weights that are measured. Exact
    over the vocabulary at each of their tokens, at the cost of two forward passes over `num_rows`
    rows. An update that passes the limit is undone, adapter and optimizer both, and no more are
    made in this stage. New texts or inputs can put an adapter over the limit that was under it
    before: it then goes back along the straight line to where the stage found it, until it is
    under; a stage that begins over its budget so ends as it began.

    Figures of every update: `kl_tuned_base` of the adapter as it is, in nats per token;
    `kl_budget_hit`, 1 once an update was undone; `kl_budget_kept`, the share of the stage's change
    that was kept when it had to go back further, in [0, 1]. The limit is a mean over rows and
    tokens, in nats; `num_rows` is per process.
    """

    def begin(stage: Stage, memory: Memory) -> None:
        memory.facts = {"is_hit": False, "kl": None, "kept_share": 1.0}

    def attempt(
        update: Update,
        memory: Memory,
        optimizer: torch.optim.Optimizer,
        make: Callable[[], Figures],
    ) -> Figures:
        policy = update.stage.policy
        weights = policy.adapters.copied()
        moments = deepcopy(optimizer.state_dict())  # which shares the optimizer's tensors
        figures = make()
        if not figures.get("skipped_updates"):
            kl = measured_kl(policy, update.rows(), num_rows)
            if kl > limit:
                policy.adapters.put(weights)
                optimizer.load_state_dict(moments)
                memory.facts["is_hit"] = True
                kl, memory.facts["kept_share"] = go_under(policy, update.rows(), limit, num_rows)
            memory.facts["kl"] = kl
        return figures | _figures(memory)

    return Remedy(
        begin=begin,
        is_over=lambda memory: bool(memory.facts.get("is_hit")),
        attempt=attempt,
        standing=_figures,
        is_silent=True,
        needs_start=True,
    )


def measured_kl(policy: Policy, rows: Sequence[Row], num_rows: int) -> float:
    """KL(tuned || base) in nats per token over some of `rows`, all processes' together."""
    size = min(num_rows, len(rows))
    chosen = sorted(named_random(0, "kl_budget").sample(range(len(rows)), size))
    values: list[float] = []
    for portion in _portions([rows[index] for index in chosen]):
        prompts, completions = zip(*portion, strict=True)
        for divergence in policy.scorer.kl_to_base(prompts, completions):
            values += divergence
    sums = from_all((math.fsum(values), len(values)))
    return math.fsum(total for total, _ in sums) / sum(count for _, count in sums)


def go_under(
    policy: Policy, rows: Sequence[Row], limit: float, num_rows: int
) -> tuple[float, float]:
    """Take the adapter back towards the start of the stage until its KL is under the limit.

    Gives its KL then, and the share of the stage's change that is left.
    """
    kl, share, start = measured_kl(policy, rows, num_rows), 1.0, policy.adapters.start
    end = policy.adapters.copied()
    for factor in (*FACTORS, 0.0):
        if kl <= limit or start is None:
            break
        policy.adapters.blend(start, end, factor)
        kl, share = measured_kl(policy, rows, num_rows), factor
    return kl, share


def _figures(memory: Memory) -> Figures:
    """Where the budget stands; no KL before the first update."""
    facts = memory.facts
    if not facts:  # no stage has begun
        return {}
    measured = {} if facts["kl"] is None else {"kl_tuned_base": facts["kl"]}
    return measured | {
        "kl_budget_hit": float(facts["is_hit"]),
        "kl_budget_kept": facts["kept_share"],
    }


def _portions(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows in order, cut so that each portion has at most `TOKENS_AT_ONCE` or one row."""
    portion: list[Row] = []
    for row in rows:
        if portion and sum(len(tokens) for _, tokens in [*portion, row]) > TOKENS_AT_ONCE:
            yield portion
            portion = []
        portion.append(row)
    if portion:
        yield portion
