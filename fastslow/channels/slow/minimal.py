"""Keeping the change of the weights small: a budget of KL per stage, and shrinking after it.

`KlBudget` belongs to the slow channel and stands around each of its updates; `shrink` is a step of
the loop at the end of a stage, since it needs the deployed text and the evaluator.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from fastslow.core.distributed import from_all, from_leader
from fastslow.core.errors import ChannelError
from fastslow.core.seeds import named_random
from fastslow.core.types import Json, TokenIds
from fastslow.policy.adapter.parts import blend_weights, copied_weights, put_weights, scale_weights
from fastslow.policy.policy import Policy

Row: TypeAlias = tuple[TokenIds, TokenIds]
"""A prompt and its completion."""

FACTORS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Factors that `shrink` tries, in this order."""
ROUNDING = 1e-9
"""Scores this close are the same score."""
TOKENS_AT_ONCE = 512
"""Completion tokens whose whole distributions are held in memory together, unless one row is
longer."""


class KlBudget:
    """Ends the adaptation of a stage when KL(tuned || base) passes a limit.

    Args:
        limit: Nats per generated token, mean over rows and tokens; > 0.
        num_rows: Rollouts of an update on which it is measured, at most.
    """

    def __init__(self, limit: float, num_rows: int) -> None:
        self.limit = limit
        self.num_rows = num_rows
        self.is_hit = False
        """Whether an update of this stage was undone; no more are made then."""
        self.kl: float | None = None
        """KL of the adapter as it is, by the last measurement; None before the first update."""
        self.kept = 1.0
        """Share of the stage's change that was kept when it had to go back further, in [0, 1]."""

    def start_stage(self) -> None:
        """Every stage has the whole budget."""
        self.is_hit, self.kl, self.kept = False, None, 1.0

    def spend(
        self,
        policy: Policy,
        optimizer: torch.optim.Optimizer,
        update: Callable[[], dict[str, float]],
        rows: Callable[[], Sequence[Row]],
    ) -> dict[str, float]:
        """Make an update; undo it, adapter and optimizer both, if it passes the budget.

        Measured on the rollouts the update was made from: the stage's own inputs under its present
        texts, drawn one update before the weights that are measured. Exact over the vocabulary at
        each of their tokens, at the cost of two forward passes over `num_rows` rows.

        New texts or inputs can put an adapter over the budget that was under it before. It then
        goes back along the straight line to where the stage found it, until it is under; a stage
        that begins over its budget so ends as it began.

        Args:
            policy: Changed in place by `update`.
            optimizer: Steps in `update`.
            update: Makes one update and gives its figures.
            rows: Prompts and completions of the update just made, in this process.

        Returns:
            The update's figures, and those of `figures`.
        """
        weights, moments = copied_weights(policy.model), _copied_state(optimizer)
        figures = update()
        if figures.get("skipped_updates"):
            return figures | self.figures()
        measured = self.measure(policy, rows())
        if measured > self.limit:
            put_weights(policy.model, weights)
            optimizer.load_state_dict(moments)
            self.is_hit = True
            measured = self._go_under(policy, rows())
        self.kl = measured
        return figures | self.figures()

    def _go_under(self, policy: Policy, rows: Sequence[Row]) -> float:
        """The KL after undoing, once the adapter has gone back as far as it must and can."""
        kl, start = self.measure(policy, rows), policy.adapters.start
        end = copied_weights(policy.model)
        for share in (*FACTORS, 0.0):
            if kl <= self.limit or start is None:
                break
            blend_weights(policy.model, start, end, share)
            kl, self.kept = self.measure(policy, rows), share
        return kl

    def measure(self, policy: Policy, rows: Sequence[Row]) -> float:
        """KL(tuned || base) in nats per token over some of `rows`, all processes' together."""
        size = min(self.num_rows, len(rows))
        chosen = sorted(named_random(0, "kl_budget").sample(range(len(rows)), size))
        values: list[float] = []
        for portion in _portions([rows[at] for at in chosen]):
            prompts, completions = zip(*portion, strict=True)
            for divergence in policy.engine.kl_to_base(prompts, completions):
                values += divergence
        sums = from_all((math.fsum(values), len(values)))
        return math.fsum(total for total, _ in sums) / sum(count for _, count in sums)

    def figures(self) -> dict[str, float]:
        """Where the budget stands, for the metrics.

        `kl_tuned_base` of the adapter as it is, in nats per token; `kl_budget_hit`, 1 once an
        update was undone; `kl_budget_kept`, see `kept`.
        """
        known = {} if self.kl is None else {"kl_tuned_base": self.kl}
        return known | {"kl_budget_hit": float(self.is_hit), "kl_budget_kept": self.kept}

    def to_json(self) -> dict[str, Json]:
        """What a resumed stage needs to know."""
        return {"is_hit": self.is_hit, "kl": self.kl, "kept": self.kept}

    def load(self, state: dict[str, Any] | None) -> None:
        """Take back what `to_json` gave; None, from a run without a budget, starts afresh."""
        self.start_stage()
        if state is not None:
            self.is_hit, self.kl, self.kept = state["is_hit"], state["kl"], state["kept"]


def require_effect(policy: Policy, row: Row) -> None:
    """Make sure that the adapter changes the logits, on one prompt and completion.

    Raises:
        ChannelError: At every token they equal the base's.

    Source: EleutherAI/lm-evaluation-harness issues 511 and 808: adapters that were never applied.
    """
    (divergence,) = policy.engine.kl_to_base([row[0]], [row[1]])
    if not any(divergence):
        raise ChannelError(
            "slow: after the first update of the stage the adapter changes no logit: "
            f"KL(tuned || base) is exactly 0 at {len(divergence)} tokens. It is switched off, not "
            "attached to the model that is scored, its B matrices are 0, or slow.lr is too small "
            "for their resolution. Check slow.lr, slow.lora and what else touches the adapter."
        )


@dataclass(frozen=True)
class Shrunk:
    """What shrinking found."""

    factor: float
    """The adapter's update is multiplied by it, in (0, 1]."""
    reason: str | None
    """Why it stayed 1; None when it did not."""
    start: float
    """Validation score with the adapter as the stage found it, in [0, 1]."""
    before: float
    """With the adapter as the stage left it."""
    after: float
    """With the scaled adapter."""
    observed_before: Mapping[str, float]
    """What else was observed with the adapter as the stage left it."""
    observed_after: Mapping[str, float]
    """And with the scaled one."""


def shrink(
    policy: Policy,
    share: float,
    validate: Callable[[], float],
    observe: Callable[[], Mapping[str, float]],
) -> Shrunk:
    """Scale the adapter down as far as `share` of the stage's validation gain is kept.

    Goes down `FACTORS` and stops at the first that keeps less, so that every factor tried between
    the one chosen and 1 keeps enough too: scores need not fall steadily, and a lone lucky point
    below a gap is not taken. Scaling multiplies every B of the trainable part: under `continue`
    that is the whole adapter, measured from the base; under the other policies it is exactly what
    this stage trained.

    Args:
        policy: Its adapter is scaled in place; knows how the stage found it.
        share: Of the gain that is to be kept, in (0, 1].
        validate: Scores the policy as it is on the task's validation sample, in [0, 1].
        observe: Other figures of the policy as it is, for the record.

    Returns:
        What was found; the adapter is left scaled by its factor, and its start is let go.
    """
    start, policy.adapters.start = policy.adapters.start, None
    assert start is not None, "the stage began without keeping its start"
    weights = copied_weights(policy.model)
    observed, before = observe(), from_leader(validate())
    put_weights(policy.model, start)
    at_start = from_leader(validate())
    put_weights(policy.model, weights)
    gain = before - at_start
    if gain <= ROUNDING:
        reason = f"no validation gain to keep a share of: {at_start:.3f} to {before:.3f}"
        return Shrunk(1.0, reason, at_start, before, before, observed, observed)
    factor, after = 1.0, before
    for smaller in FACTORS:
        scale_weights(policy.model, weights, smaller)
        score = from_leader(validate())
        if score - at_start < share * gain - ROUNDING:
            break
        factor, after = smaller, score
    if factor == 1.0:
        put_weights(policy.model, weights)
        reason = f"{FACTORS[0]} already keeps less than {share:g} of the gain"
        return Shrunk(1.0, reason, at_start, before, before, observed, observed)
    scale_weights(policy.model, weights, factor)
    return Shrunk(factor, None, at_start, before, after, observed, observe())


def _portions(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows in order, cut so that each portion has at most `TOKENS_AT_ONCE` or one row."""
    portion: list[Row] = []
    for row in rows:
        if portion and sum(len(done) for _, done in [*portion, row]) > TOKENS_AT_ONCE:
            yield portion
            portion = []
        portion.append(row)
    if portion:
        yield portion


def _copied_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A deep copy of the optimizer's state; `state_dict` alone shares its tensors."""
    state = optimizer.state_dict()
    moments = {
        index: {
            name: value.clone() if isinstance(value, torch.Tensor) else value
            for name, value in values.items()
        }
        for index, values in state["state"].items()
    }
    return {"state": moments, "param_groups": state["param_groups"]}
