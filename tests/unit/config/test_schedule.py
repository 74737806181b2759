"""Which channel adapts in which cycle."""

import pytest

from fastslow.config.models import CycleConfig, RunConfig, StageConfig


@pytest.mark.parametrize(
    ("schedule", "phases"),
    [
        ("interleaved", (("fast", "slow"), ("fast", "slow"))),
        ("fast_first", (("fast",), ("fast",), ("slow",), ("slow",))),
        ("slow_first", (("slow",), ("slow",), ("fast",), ("fast",))),
    ],
)
def test_every_schedule_has_as_many_phases_of_each_channel(
    schedule: str, phases: tuple[tuple[str, ...], ...]
) -> None:
    config = RunConfig(
        name="run",
        stages=(StageConfig(task="a", cycles=2),),
        cycle=CycleConfig.model_validate({"schedule": schedule}),
    )
    assert config.phases(0) == phases
    alone = config.model_copy(update={"fast": None})
    assert alone.phases(0) == (("slow",), ("slow",))
    assert alone.model_copy(update={"slow": None}).phases(0) == ((), ())


def test_a_stage_that_switches_a_channel_off_has_cycles_of_the_other() -> None:
    config = RunConfig(
        name="run",
        stages=(StageConfig(task="a", cycles=2, slow=False),),
        cycle=CycleConfig(schedule="slow_first"),
    )
    assert config.phases(0) == (("fast",), ("fast",))
