"""Rules between the keys of the slow channel and those of the run around it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fastslow.channels.slow.settings import DistillConfig, SlowConfig
from fastslow.core.plugins import CustomUse

if TYPE_CHECKING:
    from fastslow.config.models import RunConfig


def broken_remedies(config: "RunConfig") -> Iterator[tuple[str, str]]:
    """Rules of remedies: something earlier to protect, and weights they make sense for."""
    if config.slow is None:
        return
    for index, use in enumerate(config.slow.remedies):
        if isinstance(use, CustomUse):  # its class is known once plug-ins were found
            continue
        if reason := config.why_unfit(use.kind, type(use)):
            yield f"slow.remedies.{index}.kind", reason
    if any(use.kind == "merge" for use in config.slow.remedies):
        yield from _broken_merging(config, config.slow)
    if isinstance(config.slow, DistillConfig):
        yield from _broken_distillation(config, config.slow)


def _broken_merging(config: "RunConfig", slow: SlowConfig) -> Iterator[tuple[str, str]]:
    """Rules of merging: what is deployed after a stage is not what the stage trained."""
    if slow.shrink is not None:
        yield (
            "slow.shrink",
            f"slow.shrink ({slow.shrink}) scales the adapter that a stage trained, but after "
            "slow.remedies merge the combination of all is deployed. Remove one of them.",
        )
    if config.evaluation.routers:
        yield (
            "evaluation.routers",
            "evaluation.routers choose between adapters of single tasks, but slow.remedies "
            "merge deploys one for all. Remove one of them.",
        )


def _broken_distillation(config: "RunConfig", slow: DistillConfig) -> Iterator[tuple[str, str]]:
    """Rules of distillation: the teacher has to know more than the student."""
    is_seed = slow.student == "seed" and config.fast is None
    if slow.teacher == "text" and (slow.student == "with_text" or is_seed):
        without = " without a fast channel" if is_seed else ""
        yield (
            "slow.student",
            f"slow.student ({slow.student}) and slow.teacher (text) are shown the same "
            f"prompt{without}, so there is nothing to learn. Set slow.student to bare, or "
            "slow.teacher to answer or success.",
        )


def broken_routers(config: "RunConfig") -> Iterator[tuple[str, str]]:
    """Rule of routers: several tasks whose adapters differ."""
    adapter_policy = config.slow.adapter_policy if config.slow else "no slow channel"
    num_trained = len({stage.task for stage in config.stages if stage.slow})
    is_possible = adapter_policy == "new-per-stage" and num_trained > 1
    if config.evaluation.routers and not is_possible:
        yield (
            "evaluation.routers",
            "evaluation.routers choose between adapters of single tasks. Expected "
            f"slow.adapter_policy: new-per-stage, got {adapter_policy}; and at least two tasks "
            f"of `stages` that train weights, got {num_trained}. Change these, or remove "
            "evaluation.routers.",
        )
