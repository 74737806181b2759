"""How much work a run still has before it, in rollouts drawn: for the progress line alone.

The counts are those of a whole run; what is not drawn again makes them too high for a while.
"""

from collections.abc import Mapping
from functools import cached_property

from fastslow.config.evaluation import ProbeConfig
from fastslow.config.ledger import Entry, Ledger
from fastslow.config.models import RunConfig
from fastslow.records.state import RunState
from fastslow.task.definition import Task

UNCOUNTED = ("choice", "shrink")
"""Parts that the progress line leaves out."""


class Effort:
    """The work of a run's parts.

    Args:
        config: The run.
        tasks: Every column of the matrix.
    """

    def __init__(self, config: RunConfig, tasks: Mapping[str, Task]) -> None:
        self.config = config
        self._ledger = Ledger(config, {name: len(task.test) for name, task in tasks.items()})

    def channel(self, channel: str) -> float:
        """One phase of a channel."""
        return next((entry.units for entry in self._entries if entry.part == channel), 0.0)

    def cell(self, task: str) -> float:
        """One cell of the matrix."""
        return float(self._ledger.cell(task))

    def part(self, row: int, part: str) -> float:
        """One part of measuring a row, as `EvaluationEvent` names it; 0 for one that is off."""
        units = (entry.units for entry in self._entries if (entry.row, entry.part) == (row, part))
        return next(units, 0.0)

    def curve(self, probe: ProbeConfig) -> float:
        """One fresh run of a probe."""
        return self._ledger.curve(probe).units

    def remaining(self, state: RunState) -> float:
        """All that a run which has come as far as `state` has before it."""
        row = state.next_stage + 1 if state.base_done else 0
        cycle = (state.next_stage + 1, state.next_cycle)
        ahead = (
            entry.units
            for entry in self._entries
            if (entry.row >= row if entry.cycle is None else (entry.row, entry.cycle) >= cycle)
        )
        probe = self.config.probe
        return sum(ahead) + (2 * probe.seeds * self.curve(probe) if probe else 0.0)

    @cached_property
    def _entries(self) -> list[Entry]:
        return [entry for entry in self._ledger.entries if entry.part not in UNCOUNTED]
