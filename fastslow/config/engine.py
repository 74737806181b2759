"""What an engine asks of the rest of a run."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fastslow.channels.slow.settings import GrpoConfig
from fastslow.policy.engine.settings import VLLM_RANKS, VllmConfig, vllm_rank

if TYPE_CHECKING:
    from fastslow.config.models import RunConfig


def highest_rank(config: "RunConfig") -> int:
    """The highest rank that the run's adapter can come to have; 0 without one.

    Where stages freeze what was trained or merge it, ranks add up.
    """
    slow = config.slow
    if slow is None:
        return 0
    trained = sum(stage.slow for stage in config.stages)
    adds_up = slow.adapter_policy == "merge-then-new" or any(
        use.kind == "merge" for use in slow.remedies
    )
    probed = config.probe is not None and config.probe.adapter == "merge"
    return slow.lora.rank * (1 + adds_up * trained + probed)


def broken_engine(config: "RunConfig") -> Iterator[tuple[str, str]]:
    """Rules of `engine`: servers take some ranks, and answer with some log-probabilities."""
    engine, slow = config.engine, config.slow
    if not isinstance(engine, VllmConfig):
        return
    yield from engine.broken_rules()
    if vllm_rank(rank := highest_rank(config)) is None:
        yield (
            "slow.lora.rank",
            f"engine.kind: vllm serves adapters of rank {VLLM_RANKS[-1]} at most, and this run's "
            f"comes to have {rank}: slow.lora.rank in every stage, which slow.adapter_policy or "
            "slow.remedies add up. Lower slow.lora.rank, or use engine.kind: torch.",
        )
    if isinstance(slow, GrpoConfig) and slow.temperature != 1:
        yield (
            "slow.temperature",
            f"slow.temperature ({slow.temperature:g}) must be 1 with engine.kind: vllm, whose "
            "servers give log-probabilities at temperature 1: the loss could not be corrected for "
            "what they compute otherwise than the trainer. Set it to 1, or use engine.kind: torch.",
        )
