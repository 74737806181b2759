"""Bands of problems by a signal: read before anything is drawn, at the start of every cycle."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from fastslow.channels.slow.difficulty import Bands, Group
from fastslow.channels.slow.group_settings import BANDS, Band
from fastslow.channels.slow.settings import GrpoConfig
from fastslow.core.distributed import by_leader
from fastslow.core.errors import ChannelError
from fastslow.core.text import shorten
from fastslow.core.types import Anchor
from fastslow.policy.policy import Policy
from fastslow.policy.signals import Reading, Signal, signal_of
from fastslow.task.definition import Task

Values: TypeAlias = Mapping[str, Mapping[str, float]]
"""Of a signal, by task and problem; higher is harder."""


class SignalBands(Bands):
    """The bands of a signal are the fifths of its values on the problems of the stage.

    A signal has no scale of its own, so the hardest fifth is the band `unsolved`, the easiest
    `solved`. Equal values are in one band, that of the middle of their ranks. `path` is the key
    path of the consumer, for messages.
    """

    def __init__(self, path: str, signal: Signal) -> None:
        self.path = path
        self.signal = signal
        self.values: Values = {}

    def value(self, reading: Reading) -> float:
        """The signal of one problem.

        Raises:
            ChannelError: It has none there, or one that is not finite; names the problem.
        """
        value = self.signal(reading)
        if value is None or not math.isfinite(value):
            raise ChannelError(
                f"{self.path}: the signal of problem {shorten(reading.example, 60)!r} is {value}, "
                "so it has no band. Use a signal that has a number for every problem."
            )
        return float(value)

    def observe(self, group: Group, rate: float) -> Band:
        """The band of the group's problem, whatever was drawn."""
        return self.band(group, rate)

    def band(self, group: Group, rate: float) -> Band:
        """The band of the group's problem, whatever was drawn."""
        ordered = sorted(value for values in self.values.values() for value in values.values())
        value = self.values[group.task][group.problem]
        # below + half of the equal ones, as a share of all: in (0, 1), without rounding
        twice_rank = bisect_left(ordered, value) + bisect_right(ordered, value)
        fifth = len(BANDS) * twice_rank // (2 * len(ordered))
        return BANDS[len(BANDS) - 1 - fifth]

    def is_hardest(self, group: Group) -> bool:
        """Whether the group's problem is in the hardest fifth."""
        return self.band(group, 0.0) == BANDS[0]


def signal_bands(settings: GrpoConfig) -> dict[str, SignalBands]:
    """The bands of `difficulty` and of `guidance`, where a signal gives them."""
    uses = {"difficulty": settings.difficulty.signal}
    if settings.guidance is not None:
        uses["guidance"] = settings.guidance.signal
    return {
        name: SignalBands(f"slow.{name}.signal", signal_of(use)[1])
        for name, use in uses.items()
        if use is not None
    }


def read_values(
    policy: Policy, tasks: Mapping[str, Task], anchor: Anchor, bands: Sequence[SignalBands]
) -> None:
    """Have each of the bands take its signal's values on all problems of the stage.

    One packed pass for all of them, under the present weights and each task's best prompt; nothing
    is drawn. All processes hear the leader's values.

    Raises:
        ChannelError: See `SignalBands.value`.
    """

    def values() -> list[Values]:
        readings = {
            name: policy.read_prompts(
                policy.population(task)[0].program,
                [problem for owner, problem in anchor.stream if owner == name],
            )
            for name, task in tasks.items()
        }
        return [
            {
                name: {r.example: each.value(r) for r in of_task}
                for name, of_task in readings.items()
            }
            for each in bands
        ]

    for each, of_signal in zip(bands, by_leader(values) if bands else (), strict=True):
        each.values = of_signal
