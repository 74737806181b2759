"""How much work a run still has before it, in rollouts drawn: for the progress line alone.

What is no rollout counts as many as take about as long, on a model of the demonstration's size. The
counts are those of a whole run; what is not drawn again makes the estimate too high for a while.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fastslow.config.evaluation import ProbeConfig
from fastslow.config.models import RunConfig
from fastslow.records.state import RunState
from fastslow.task.definition import Task

TRAINED_UNITS = 2
"""Training on a row."""
NEUTRAL_UNITS = 70
"""A pass over neutral prose."""
PROXIES_UNITS = 20
"""Ranks and dormant units on the other inputs."""
DRIFT_UNITS = 5
"""Drawing and comparing one input under one text."""
GEOMETRY_UNITS = 40
"""Size and ranks of what a stage changed."""


@dataclass(frozen=True)
class Effort:
    """The work of a run's parts."""

    config: RunConfig
    tasks: Mapping[str, Task]
    """Every column of the matrix."""

    def channel(self, channel: str) -> float:
        """One phase of a channel."""
        config = self.config
        if channel == "fast":
            return float(config.fast.metric_calls) if config.fast else 0.0
        if config.slow is None:
            return 0.0
        trained = config.slow.rows_per_problem(config.num_texts)
        per_problem = config.slow.rollouts_per_problem + TRAINED_UNITS * trained
        return float(config.cycle.optimizer_steps * config.cycle.problems * per_problem)

    def cell(self, task: str) -> float:
        """One cell of the matrix."""
        size, whole = self.config.evaluation.test_examples, len(self.tasks[task].test)
        return float(min(size, whole) if size else whole)

    def part(self, row: int, part: str) -> float:
        """One part of measuring a row, as `EvaluationEvent` names it; 0 for one that is off."""
        evaluation, stages = self.config.evaluation, self.config.stages
        of_any_row = {
            "matrix": (1 if row else evaluation.base_repeats) * sum(map(self.cell, self.tasks)),
            "neutral": NEUTRAL_UNITS * evaluation.neutral,
            "proxies": PROXIES_UNITS * evaluation.proxies,
        }
        if row == 0:
            return float(of_any_row.get(part, 0.0))
        visited = dict.fromkeys(stage.task for stage in stages[:row])
        seed_texts = "seed" in evaluation.prompt_policies
        inputs = 2 * len(visited) + evaluation.neutral
        of_later_rows = {
            "texts": seed_texts * sum(map(self.cell, visited)),
            "channel_split": 2 * self.cell(stages[row - 1].task) * evaluation.channel_split,
            "curves": evaluation.curve_examples,
            "reoptimize": self._reoptimized(row),
            "geometry": GEOMETRY_UNITS * (evaluation.geometry and self.config.slow is not None),
            "drift": DRIFT_UNITS * inputs * evaluation.kl_examples,
        }
        return float((of_any_row | of_later_rows).get(part, 0.0))

    def curve(self, probe: ProbeConfig) -> float:
        """One fresh run of a probe."""
        points = 1 + math.ceil(probe.updates / probe.score_every)
        group = self.config.slow.rollouts_per_problem if self.config.slow else 0
        drawn = max(1, group) * (1 + TRAINED_UNITS) if probe.kind == "grpo" else TRAINED_UNITS
        updates = probe.updates * self.config.cycle.problems * drawn
        return float(points * self.config.evaluation.validation_examples + updates)

    def left(self, state: RunState) -> float:
        """All that a run which has come as far as `state` has before it."""
        stages = self.config.stages
        rows = range(0 if not state.base_done else state.next_stage + 1, len(stages) + 1)
        left = sum(self.part(row, part) for row in rows for part in PARTS)
        for index in range(state.next_stage, len(stages)):
            done = state.next_cycle if index == state.next_stage else 0
            cycles = self.config.phases(index)[done:]
            left += sum(self.channel(name) for names in cycles for name in names)
            left += max(0, len(cycles) - 1) * self.part(index + 1, "curves")
        probe = self.config.probe
        return left + (2 * probe.seeds * self.curve(probe) if probe else 0.0)

    def _reoptimized(self, row: int) -> float:
        """A fast phase, a choice and a cell for each earlier task, after the last stage."""
        fast, stages = self.config.fast, self.config.stages
        if not self.config.evaluation.reoptimize or fast is None or row < len(stages):
            return 0.0
        choosing = fast.population * self.config.evaluation.validation_examples
        earlier = {stage.task for stage in stages} - {stages[-1].task}
        return sum(fast.metric_calls + choosing + self.cell(task) for task in earlier)


PARTS = (
    "matrix",
    "texts",
    "channel_split",
    "reoptimize",
    "neutral",
    "proxies",
    "geometry",
    "drift",
)
"""Of every row; curves come within stages."""
