"""The ledger of a run: rollouts and trained rows of every part, behind costs and progress.

Counts follow from the cycle: T updates of Q problems with G rollouts each. They are upper bounds
where a fast channel, shrinking or a spent KL budget stops early, and where cells that changed
neither weights nor prompt are not drawn again.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from fastslow.config.evaluation import ProbeConfig
from fastslow.config.models import RunConfig

SHRINK_FACTORS = 9
"""Factors that shrinking tries at most. Source: `slow.minimal.FACTORS`; a test compares."""
GRPO_GROUP = 8
"""Rollouts of a problem in a probe whose run draws none. Source: the default of slow.group; a test
compares."""
NEUTRAL_PASSAGES = 16
"""Passages of neutral prose. Source: `measure.model.neutral`; a test compares."""
TRAINED_UNITS = 2
"""Work of training on a row, in rollouts that take about as long at the demonstration's size."""
NEUTRAL_UNITS = 70
"""Work of a pass over neutral prose."""
PROXIES_UNITS = 20
"""Work of ranks and dormant units on the other inputs."""
DRIFT_UNITS = 5
"""Work of drawing and comparing one input under one prompt."""
GEOMETRY_UNITS = 40
"""Work of size and ranks of what a stage changed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One part of a run, once."""

    part: str
    """`fast`, `slow`, `curves`: of a cycle; `choice`, `shrink`: of a stage; else of measuring a
    row, as `EvaluationEvent` names it."""
    row: int
    """The row of the score matrix that it leads to or belongs to: stages count from 1."""
    cycle: int | None = None
    """Index of its cycle in the stage; None for a part that comes after the cycles."""
    rollouts: int = 0
    """Completions drawn."""
    trained: int = 0
    """Rows trained on."""
    extra: int = 0
    """Work of anything else, in rollouts that take about as long."""

    @property
    def units(self) -> float:
        """All of its work, in rollouts that take about as long."""
        return float(self.rollouts + TRAINED_UNITS * self.trained + self.extra)


@dataclass(frozen=True)
class Ledger:
    """The account of one run.

    Args:
        config: A complete run.
        sizes: Size of the test split of every task. Without it, a test sample counts in full and a
            whole split counts nothing.
    """

    config: RunConfig
    sizes: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def entries(self) -> list[Entry]:
        """Every part of the run but the probe, in order."""
        rows = range(1, len(self.config.stages) + 1)
        return [*self._base(), *(entry for row in rows for entry in self._stage(row))]

    def cell(self, task: str) -> int:
        """Completions of one cell of the score matrix."""
        limits = (self.config.evaluation.test_examples, self.sizes.get(task))
        return min((limit for limit in limits if limit is not None), default=0)

    def curve(self, probe: ProbeConfig) -> Entry:
        """One fresh run of a probe, of `2 * probe.seeds`: from the run's weights, from the base."""
        config = self.config
        points = 1 + math.ceil(probe.updates / probe.score_every)
        problems = probe.updates * config.cycle.problems
        group = (config.slow and config.slow.rollouts_per_problem) or GRPO_GROUP
        rollouts = problems * group if probe.kind == "grpo" else 0
        scored = points * config.evaluation.validation_examples
        return Entry("probe", len(config.stages), None, scored + rollouts, rollouts or problems)

    def _base(self) -> Iterator[Entry]:
        matrix = sum(map(self.cell, self.config.task_names))
        yield Entry("matrix", 0, rollouts=self.config.evaluation.base_repeats * matrix)
        yield from self._any_row(0)

    def _any_row(self, row: int) -> Iterator[Entry]:
        evaluation = self.config.evaluation
        yield Entry("neutral", row, extra=NEUTRAL_UNITS * evaluation.neutral)
        yield Entry("proxies", row, extra=PROXIES_UNITS * evaluation.proxies)

    def _stage(self, row: int) -> Iterator[Entry]:
        """The cycles of a stage, then the row of the matrix after it."""
        config, evaluation = self.config, self.config.evaluation
        own_cell = self.cell(config.stages[row - 1].task)
        phases = config.phases(row - 1)
        for cycle, channels in enumerate(phases):
            yield from (self._phase(name, row, cycle) for name in channels)
            if cycle + 1 < len(phases):
                yield Entry("curves", row, cycle, min(evaluation.curve_examples, own_cell))
        yield Entry("choice", row, rollouts=self._choosing(row))
        yield Entry("shrink", row, rollouts=self._shrinking(row))
        yield Entry("matrix", row, rollouts=sum(map(self.cell, config.task_names)))
        has_seed = "seed" in evaluation.prompt_policies
        visited = {stage.task for stage in config.stages[:row]}
        yield Entry("texts", row, rollouts=has_seed * sum(map(self.cell, visited)))
        # the base under its prompt; and under its seed prompt, unless `texts` had that
        split = (2 - has_seed) * own_cell * evaluation.channel_split
        yield Entry("channel_split", row, rollouts=split)
        yield Entry("reoptimize", row, rollouts=self._reoptimizing(row))
        yield from self._any_row(row)
        has_geometry = evaluation.geometry and config.slow is not None
        yield Entry("geometry", row, extra=GEOMETRY_UNITS * has_geometry)
        yield self._drift(row)

    def _phase(self, channel: str, row: int, cycle: int) -> Entry:
        config = self.config
        if channel == "fast":
            assert config.fast is not None
            return Entry(channel, row, cycle, config.fast.metric_calls)
        assert config.slow is not None
        problems = config.cycle.optimizer_steps * config.cycle.problems
        trained = problems * config.slow.rows_per_problem(config.num_texts)
        return Entry(channel, row, cycle, problems * config.slow.rollouts_per_problem, trained)

    @property
    def _choice(self) -> int:
        fast = self.config.fast
        return fast.population * self.config.evaluation.validation_examples if fast else 0

    def _choosing(self, row: int) -> int:
        """The choice among the prompts that this stage or an earlier visit evolved."""
        stages = self.config.stages[:row]
        evolved = any(stage.fast and stage.task == stages[-1].task for stage in stages)
        return self._choice * evolved

    def _shrinking(self, row: int) -> int:
        """At most: start, before and every factor; KL and earlier tasks before and after."""
        slow, evaluation, stage = (
            self.config.slow,
            self.config.evaluation,
            self.config.stages[row - 1],
        )
        if slow is None or slow.shrink is None or not stage.slow:
            return 0
        earlier = {visit.task for visit in self.config.stages[: row - 1] if visit.slow} - {
            stage.task
        }
        others = len(earlier) if slow.adapter_policy == "continue" else 0
        scored = 2 + SHRINK_FACTORS + 2 * others
        kl_examples = min(evaluation.kl_examples, evaluation.validation_examples)
        return scored * evaluation.validation_examples + 2 * kl_examples

    def _reoptimizing(self, row: int) -> int:
        """After the last stage, for each earlier task: a fast phase, a choice, and a cell."""
        config, stages = self.config, self.config.stages
        if not config.evaluation.reoptimize or config.fast is None or row < len(stages):
            return 0
        earlier = {stage.task for stage in stages} - {stages[-1].task}
        return sum(config.fast.metric_calls + self._choice + self.cell(task) for task in earlier)

    def _drift(self, row: int) -> Entry:
        """Tuned, under two prompts per visited task; the base, once per prompt; neutral prose."""
        evaluation = self.config.evaluation
        tasks, most = [stage.task for stage in self.config.stages[:row]], evaluation.kl_examples
        tuned = 2 * sum(min(self.cell(task), most) for task in set(tasks))
        is_new = tasks.count(tasks[-1]) == 1
        base = (1 + is_new) * min(self.cell(tasks[-1]), most)
        neutral = min(NEUTRAL_PASSAGES, most) * evaluation.neutral
        rollouts = tuned + base + neutral * (2 if row == 1 else 1)  # once by the base
        extra = DRIFT_UNITS * (tuned + neutral) - rollouts
        return Entry("drift", row, rollouts=rollouts, extra=extra)
