"""Consolidation: when a stage has ended, its text's gain is carried into the bare weights.

A last phase of distillation (FST-distill, after arXiv 2601.20802): the policy under the deployed
prompt, as the phase found it, teaches the policy without it. Then the prompt may go.
"""

from functools import partial
from statistics import fmean
from typing import ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt

from fastslow.channels.slow.remedies.base import (
    Ended,
    EndReport,
    Memory,
    Remedy,
    RemedyConfig,
    RemedyPrice,
    StageSize,
    Update,
    remedy,
)
from fastslow.core.keys import FST, OURS, key
from fastslow.core.prompts import Candidate
from fastslow.core.seeds import derive_seed, named_random
from fastslow.core.types import Batch


class ConsolidateConfig(RemedyConfig):
    """A last phase of a stage that distils the deployed prompt into the weights."""

    needs_earlier: ClassVar[bool] = False

    kind: Literal["consolidate"] = key("consolidate", "name", "FST-distill, after arXiv 2601.20802")
    """Which remedy."""
    updates: PositiveInt = key(8, "optimizer updates", OURS)
    """Updates of the phase."""
    problems: PositiveInt = key(8, "problems per update", OURS)
    """Training examples of an update."""
    group: PositiveInt = key(8, "rollouts per problem", "as slow.group")
    """Completions of the student for each of them."""
    lr: PositiveFloat = key(3e-4, "1 / update", "as slow.lr")
    """Learning rate of AdamW."""
    student: Literal["seed", "bare"] = key("seed", "name", "ours: what is deployed without a text")
    """What the student is shown: the task's seed prompt, or the bare problem."""
    keep_text: bool = key(True, "switch", FST + ": texts are deployed")
    """Whether the prompt stays deployed; false deploys the seed prompt. The report has both."""

    def price(self, stage: StageSize) -> RemedyPrice:
        """Draws and updates of the phase, and four scores on the validation sample."""
        draws = stage.text * self.updates * self.problems * self.group
        return RemedyPrice(rollouts=draws + 4 * stage.text * stage.validation, trained=draws)


@remedy(name="consolidate", source="FST-distill, after arXiv 2601.20802")
def consolidate(config: ConsolidateConfig) -> Remedy:
    """Distils the deployed prompt into the weights at the end of a stage."""

    def end(ended: Ended, memory: Memory) -> EndReport:
        from fastslow.policy.policy import seed_program

        task, policy = ended.stage.task, ended.stage.policy
        seed, text = seed_program(task), policy.live_program(task)
        if text.text_hash == seed.text_hash:
            return EndReport({"updates": 0.0}, ("consolidate: the seed prompt is deployed.",))

        def scores(when: str) -> dict[str, float]:
            return {
                f"without_text_{when}": fmean(ended.score(task, seed).values()),
                f"with_text_{when}": fmean(ended.score(task, text).values()),
            }

        before = scores("before")
        losses = distil_text(ended, config)
        figures = {
            "updates": float(len(losses)),
            "loss_first": losses[0] if losses else None,
            "loss_last": losses[-1] if losses else None,
            **before,
            **scores("after"),
        }
        return EndReport(figures, text=None if config.keep_text else seed)

    return Remedy(end=end)


def distil_text(ended: Ended, config: ConsolidateConfig) -> list[float]:
    """Make the updates of the phase; the loss of each that was made, in nats per token."""
    import torch

    from fastslow.channels.slow.distill import DistillTrainer
    from fastslow.channels.slow.remedies.stack import Remedies
    from fastslow.channels.slow.settings import DistillConfig
    from fastslow.channels.slow.trainer import finish_update

    stage = ended.stage
    task, policy = stage.task, stage.policy
    settings = DistillConfig(student=config.student, group=config.group, lr=config.lr)
    size = min(config.problems, len(task.train))
    stage_start, population = policy.adapters.start, policy.populations.get(task.name)
    policy.adapters.start = policy.adapters.copied()  # the teacher: as this phase found them
    policy.populations[task.name] = (Candidate(policy.live_program(task), {}),)
    trainer = DistillTrainer(policy, {task.name: task}, size, settings)
    weights = list(policy.adapters.trainable().values())
    optimizer = torch.optim.AdamW(weights, lr=config.lr, weight_decay=settings.weight_decay)
    losses = []
    for step in range(config.updates):
        seed = derive_seed(stage.seed, "update", step)
        examples = named_random(seed, "problems").sample(list(task.train), size)
        batch = Batch(tuple((task.name, example) for example in examples))
        update = Update(stage, batch, step, seed, config.lr, trainer.scored_rows)
        finish = partial(finish_update, settings.max_grad_norm, optimizer, Remedies(), update)
        figures = trainer.update(batch, seed, finish)
        losses += [figures["loss"]] if "loss" in figures else []
    policy.adapters.start = stage_start
    policy.populations.pop(task.name)
    if population is not None:
        policy.populations[task.name] = population
    return losses
