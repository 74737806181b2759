"""The ledger of a run: rollouts and trained rows of every part, behind costs and progress.

Counts follow from the cycle: T updates of Q problems with G rollouts each. They are upper bounds
where a fast channel, shrinking or a spent KL budget stops early, where hints rescue groups before
the last rung or none needs one, and where cells that changed neither weights nor prompt are not
drawn again.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from fastslow.channels.slow.remedies.base import RemedyPrice, StageSize
from fastslow.channels.slow.remedies.shipped import remedy_of
from fastslow.channels.slow.settings import GrpoConfig, SlowConfig
from fastslow.config.acting import acting_signals
from fastslow.config.evaluation import ProbeConfig
from fastslow.config.models import RunConfig
from fastslow.measure.base import MeasurePrice, RowSize
from fastslow.measure.model.shipped import measure_of
from fastslow.task.definition import Task

SHRINK_FACTORS = 9
"""Factors that shrinking tries at most. Source: `remedies.shrink.FACTORS`; a test compares."""
GRPO_GROUP = 8
"""Rollouts of a problem in a probe whose run draws none. Source: the default of slow.group; a test
compares."""
NEUTRAL_PASSAGES = 16
"""Passages of neutral prose. Source: `measure.model.neutral`; a test compares."""
NEUTRAL_UNITS, PROXIES_UNITS, GEOMETRY_UNITS = 70, 20, 40
"""Work of a pass over neutral prose; of ranks and dormant units on the other inputs; of size and
ranks of what a stage changed."""
MEAN_QUESTIONS = 32
"""Training questions of a task's mean. Source: `measure.model.router`; a test compares."""
DRIFT_UNITS = 5
"""Work of drawing and comparing one input under one prompt."""
PARTS = (
    *("fast", "slow", "curves", "choice", "shrink", "remedies", "matrix", "texts", "probe"),
    *("channel_split", "reoptimize", "neutral", "proxies", "route", "router", "geometry"),
    "drift",
)
"""Every part that is not a measure of the configuration's list."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One part of a run, once."""

    part: str
    """One of `PARTS`: `fast`, `slow`, `curves`: of a cycle; `choice`, `shrink`, `remedies`: of a
    stage; else of measuring a row, as `EvaluationEvent` names it; or a measure, by its name."""
    row: int
    """Row of the score matrix that it leads to or belongs to: stages count from 1."""
    cycle: int | None = None
    """Index of its cycle in the stage; None for a part that comes after the cycles."""
    rollouts: int = 0
    """Completions drawn."""
    trained: int = 0
    """Rows trained on."""
    extra: int = 0
    """Any other work, in rollouts that take about as long."""


@dataclass(frozen=True)
class Ledger:
    """The account of one complete run."""

    config: RunConfig
    tasks: Mapping[str, Task] = field(default_factory=dict)
    """For the sizes of test splits: without them a sample counts in full, a whole split nothing."""

    @cached_property
    def entries(self) -> list[Entry]:
        """Every part of the run but the probe, in order."""
        matrix = self.config.evaluation.base_repeats * sum(map(self.cell, self.config.task_names))
        rows = range(1, len(self.config.stages) + 1)
        stages = [entry for row in rows for entry in (*self._cycles(row), *self._measures(row))]
        return [Entry("matrix", 0, rollouts=matrix), *self._any_row(0), *stages]

    def entry(self, part: str, row: int) -> Entry:
        """A part, once, on the way to that row; an empty one if it is off."""
        entries = (e for e in self.entries if e.part == part and e.row == row)
        return next(entries, Entry(part, row))

    def remaining(self, base_done: bool, next_stage: int, next_cycle: int) -> list[Entry]:
        """What a run has before it at a cycle of a stage, by index; its probe left out."""
        row, cycle = next_stage + 1 if base_done else 0, (next_stage + 1, next_cycle)
        return [
            e
            for e in self.entries
            if (e.row >= row if e.cycle is None else (e.row, e.cycle) >= cycle)
        ]

    def cell(self, task: str) -> int:
        """Completions of one cell of the score matrix."""
        evaluation = self.config.evaluation
        most = evaluation.test_examples
        size = len(getattr(self.tasks[task], evaluation.split)) if task in self.tasks else most or 0
        return min(most or size, size)

    def curve(self, probe: ProbeConfig) -> Entry:
        """One fresh run of a probe, of `2 * probe.seeds`: from the run's weights, from the base."""
        points = 1 + math.ceil(probe.updates / probe.score_every)
        problems = probe.updates * self.config.cycle.problems
        slow = self.config.slow
        group = (slow.rollouts_per_problem if slow else 0) or GRPO_GROUP
        rollouts = problems * group if probe.kind == "grpo" else 0
        scored = points * self.config.evaluation.validation_examples
        return Entry("probe", 0, rollouts=scored + rollouts, trained=rollouts or problems)

    def _cycles(self, row: int) -> Iterator[Entry]:
        """The cycles of a stage, with a point of its curve between two."""
        fast, slow, cycle = self.config.fast, self.config.slow, self.config.cycle
        phases = self.config.phases(row - 1)
        points = min(self.config.evaluation.curve_examples, self._own_cell(row))
        problems = cycle.optimizer_steps * cycle.problems
        for index, channels in enumerate(phases):
            if fast and "fast" in channels:
                yield Entry("fast", row, index, fast.metric_calls)
            if slow and "slow" in channels:
                rows = problems * slow.rows_per_problem(self.config.num_texts)
                added = sum(price.rows for _, price in self.remedy_prices(row))
                rows += cycle.optimizer_steps * added
                rollouts = problems * (slow.rollouts_per_problem + _hinted(slow))
                yield Entry("slow", row, index, rollouts, rows, self._readings(row))
            if index + 1 < len(phases):
                yield Entry("curves", row, index, points)

    def _measures(self, row: int) -> Iterator[Entry]:
        """What comes after the cycles of a stage: its end, and the row of the matrix."""
        config, evaluation, stages = self.config, self.config.evaluation, self.config.stages[:row]
        evolved = any(stage.fast and stage.task == stages[-1].task for stage in stages)
        yield Entry("choice", row, rollouts=self._choice * evolved)
        yield Entry("shrink", row, rollouts=self._shrinking(row))
        yield self._remedies(row)
        yield Entry("matrix", row, rollouts=sum(map(self.cell, config.task_names)))
        has_seed = "seed" in evaluation.prompt_policies
        visited = sum(map(self.cell, {stage.task for stage in stages}))
        yield Entry("texts", row, rollouts=has_seed * visited)
        # the base under its prompt; and under its seed prompt, unless `texts` had that
        split = (2 - has_seed) * self._own_cell(row) * evaluation.channel_split
        yield Entry("channel_split", row, rollouts=split)
        if evaluation.reoptimize and config.fast and row == len(config.stages):
            earlier = {stage.task for stage in stages} - {stages[-1].task}
            phases = len(earlier) * (config.fast.metric_calls + self._choice)
            yield Entry("reoptimize", row, rollouts=phases + sum(map(self.cell, earlier)))
        yield from self._any_row(row)
        yield self._router(row)
        yield self._route(row)
        has_geometry = evaluation.geometry and config.slow is not None
        yield Entry("geometry", row, extra=GEOMETRY_UNITS * has_geometry)
        yield self._drift(row)

    def _any_row(self, row: int) -> Iterator[Entry]:
        evaluation = self.config.evaluation
        yield Entry("neutral", row, extra=NEUTRAL_UNITS * evaluation.neutral)
        yield Entry("proxies", row, extra=PROXIES_UNITS * evaluation.proxies)
        for name, price in self.measure_prices(row):
            yield Entry(name, row, rollouts=price.rollouts, extra=price.extra)

    def measure_prices(self, row: int) -> list[tuple[str, MeasurePrice]]:
        """The most that each measure takes in a row, by its name in the order of the run."""
        visited = {stage.task for stage in self.config.stages[:row]}
        size = RowSize(
            row,
            tests=tuple(map(self.cell, self.config.task_names)),
            visited=tuple(map(self.cell, sorted(visited))),
        )
        uses = map(measure_of, self.config.evaluation.measures)
        return [(definition.name, params.price(size)) for definition, params in uses]

    def _own_cell(self, row: int) -> int:
        return self.cell(self.config.stages[row - 1].task)

    @property
    def _choice(self) -> int:
        """Rollouts of the choice among the prompts that a task's phases evolved."""
        fast = self.config.fast
        return fast.population * self.config.evaluation.validation_examples if fast else 0

    def _shrinking(self, row: int) -> int:
        """At most: start, before and every factor; KL and earlier tasks before and after."""
        slow, evaluation = self.config.slow, self.config.evaluation
        *before, stage = self.config.stages[:row]
        if slow is None or slow.shrink is None or not stage.slow:
            return 0
        earlier = {visit.task for visit in before if visit.slow} - {stage.task}
        others = len(earlier) if slow.adapter_policy == "continue" else 0
        scored = 2 + SHRINK_FACTORS + 2 * others
        kl_examples = min(evaluation.kl_examples, evaluation.validation_examples)
        return scored * evaluation.validation_examples + 2 * kl_examples

    def remedy_prices(self, row: int) -> list[tuple[str, RemedyPrice]]:
        """The most that each remedy takes in a stage, by its name in the order of the run."""
        slow, (*before, stage) = self.config.slow, self.config.stages[:row]
        if slow is None or not stage.slow:
            return []
        earlier = {visit.task for visit in before if visit.slow} - {stage.task}
        size = StageSize(
            earlier=len(earlier),
            rows=self.config.cycle.problems * slow.rows_per_problem(self.config.num_texts),
            validation=self.config.evaluation.validation_examples,
            text=int(self.config.fast is not None and stage.fast),
        )
        uses = map(remedy_of, slow.remedies)
        prices = [(definition.name, params.price(size)) for definition, params in uses]
        if slow.kl_budget_earlier is not None:
            prices.append(("kl_budget_earlier", RemedyPrice(rollouts=slow.kl_budget_rows)))
        return prices

    def _remedies(self, row: int) -> Entry:
        """What remedies draw, and learn from one by one, when a stage ends."""
        prices = [price for _, price in self.remedy_prices(row)]
        rollouts, trained = sum(p.rollouts for p in prices), sum(p.trained for p in prices)
        return Entry("remedies", row, rollouts=rollouts, trained=trained)

    def _router(self, row: int) -> Entry:
        """Inputs under deployments not their own; passes over questions, one by one, are extra."""
        routers = set(self.config.evaluation.routers)
        stages = [stage.task for stage in self.config.stages[:row]]
        others = len(set(stages)) - 1
        if not (routers and others):
            return Entry("router", row)
        latest, inputs = self._own_cell(row), sum(map(self.cell, set(stages)))
        # every router may send an input elsewhere; inputs of other tasks also get the latest's
        rollouts = latest * min(len(routers), others)
        rollouts += (inputs - latest) * min(len(routers) + 1, others)
        is_new = stages.count(stages[-1]) == 1
        means = MEAN_QUESTIONS * is_new * (2 if others == 1 else 1)
        passes = (inputs + means) * ("nearest_mean" in routers)
        passes += inputs * (others + 1) * ("surprisal" in routers)
        return Entry("router", row, rollouts=rollouts, extra=passes)

    def _route(self, row: int) -> Entry:
        """Questions read one by one under the cheap arm, and what an arm has not answered yet."""
        evaluation, stages = self.config.evaluation, self.config.stages[:row]
        if (route := evaluation.route) is None:
            return Entry("route", row)
        latest, visited = self._own_cell(row), sum(map(self.cell, {stage.task for stage in stages}))
        arms, rollouts = {route.cheap, route.strong}, 0
        if "seed" in arms and "seed" not in evaluation.prompt_policies:
            rollouts += visited - latest * evaluation.channel_split
        if "base" in arms and not evaluation.channel_split:
            rollouts += latest  # those of earlier tasks are known from their own stages
        return Entry("route", row, rollouts=rollouts, extra=visited)

    def _readings(self, row: int) -> int:
        """Problems of a stage whose signals are read in each of its cycles."""
        names = ("slow.difficulty.signal", "slow.guidance.signal")
        if not acting_signals(self.config).keys() & set(names):
            return 0
        cycle, stage = self.config.cycle, self.config.stages[row - 1]
        met = len(self.config.phases(row - 1)) * cycle.optimizer_steps * cycle.problems
        task = self.tasks.get(stage.task)
        return met if task is None else min(met, len(task.train) - cycle.pool)

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


def _hinted(slow: SlowConfig) -> int:
    """Rollouts of one problem of an update that hints draw at most."""
    rungs = slow.hints.rungs if isinstance(slow, GrpoConfig) and slow.hints else ()
    return len(rungs) * slow.rollouts_per_problem
