"""Budgets of KL: the adaptation of a stage ends where one is spent.

One of KL to the base on the stage's own inputs, one of KL to the stage's start on earlier tasks'.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TypeAlias

import torch

from fastslow.channels.slow.remedies.base import (
    Ended,
    Figures,
    Memory,
    Remedy,
    Stage,
    TaughtRow,
    Teacher,
    Update,
)
from fastslow.channels.slow.remedies.own_completions import earlier_rows, own_completions
from fastslow.channels.slow.remedies.shrink import FACTORS
from fastslow.channels.slow.teaching import mean_loss
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

    def measure(update: Update, memory: Memory) -> float:
        return measured_kl(update.stage.policy, update.rows(), num_rows)

    budget = _budget(limit, measure, ("kl_tuned_base", "kl_budget_hit", "kl_budget_kept"))
    return replace(budget, is_silent=True)


def kl_budget_earlier(limit: float, num_rows: int) -> Remedy:
    """Ends the adaptation of a stage when it has moved too far on earlier tasks' inputs.

    As `kl_budget`, with KL(tuned || the policy as the stage found it) along completions that the
    policy drew for training examples of each task when its stage ended; `num_rows` of all earlier
    tasks' together. Figures: `kl_tuned_start`, `kl_earlier_hit`, `kl_earlier_kept`.
    """

    def measure(update: Update, memory: Memory) -> float:
        answers, random = memory.facts.get("answers", {}), named_random(0, "kl_budget")
        rows = earlier_rows(update.stage, answers, num_rows, random)
        taught = [TaughtRow(p, tokens, teacher=Teacher("start", p)) for p, tokens in rows]
        return mean_loss(update.stage.policy, taught)

    def end(ended: Ended, memory: Memory) -> dict[str, float | None]:
        answers = {
            example.id: list(completion.token_ids)
            for example, completion in own_completions(ended.stage, num_rows)
        }
        memory.facts.setdefault("answers", {})[ended.stage.task.name] = answers
        return {"kept": float(len(answers))}

    budget = _budget(limit, measure, ("kl_tuned_start", "kl_earlier_hit", "kl_earlier_kept"))
    return replace(budget, end=end)


def _budget(
    limit: float, measure: Callable[[Update, Memory], float], names: tuple[str, str, str]
) -> Remedy:
    """A budget of what `measure` says after every update; `names` are those of its figures."""

    def begin(stage: Stage, memory: Memory) -> None:
        memory.facts |= {"is_hit": False, "kl": None, "kept_share": 1.0}

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
            kl = measure(update, memory)
            if kl > limit:
                policy.adapters.put(weights)
                optimizer.load_state_dict(moments)
                memory.facts["is_hit"] = True
                kl, share = go_under(policy, lambda: measure(update, memory), limit)
                memory.facts["kept_share"] = share
            memory.facts["kl"] = kl
        return figures | standing(memory)

    def standing(memory: Memory) -> Figures:
        facts = memory.facts
        if "kl" not in facts:  # no stage has begun
            return {}
        values = (facts["kl"], float(facts["is_hit"]), facts["kept_share"])
        return {n: v for n, v in zip(names, values, strict=True) if v is not None}

    return Remedy(
        begin=begin,
        is_over=lambda memory: bool(memory.facts.get("is_hit")),
        attempt=attempt,
        standing=standing,
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


def go_under(policy: Policy, measure: Callable[[], float], limit: float) -> tuple[float, float]:
    """Take the adapter back towards the start of the stage until its KL is under the limit.

    Gives its KL then, and the share of the stage's change that is left.
    """
    kl, share, start = measure(), 1.0, policy.adapters.start
    end = policy.adapters.copied()
    for factor in (*FACTORS, 0.0):
        if kl <= limit or start is None:
            break
        policy.adapters.blend(start, end, factor)
        kl, share = measure(), factor
    return kl, share


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
