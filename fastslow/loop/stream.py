"""The order in which a run meets a task's training examples.

A pure function of seed and task: arms of an ablation that share a seed meet the same problems in
the same order, whatever their channels and stages are, and a task that is visited again goes on
where it was left. The data position of a resumed run is its cycle number.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial

from fastslow.config.models import RunConfig
from fastslow.core.errors import TaskError
from fastslow.core.seeds import named_random
from fastslow.core.types import Anchor, Batch, Evidence, Example
from fastslow.task.definition import Task
from fastslow.task.splits import without_repeats

logger = logging.getLogger(__name__)


class Stream:
    """Cuts one visit's training examples into anchors.

    The split is shuffled once; its first examples are the pool for demonstrations, the same at
    every visit, and the rest is gone through in batches, shuffled again every time it has been
    used up. Of examples with equal questions the first is kept.

    Data that is ordered in time is not shuffled and is met once; the pool of a cycle are the
    examples right before its first problem.

    A cycle has T = `steps` batches of Q = `problems` problems; `stage` counts from 0, and `start`
    is the number of batches that earlier visits took.

    Raises:
        TaskError: The split is too small for the pool and one batch of distinct problems; if it is
            ordered, for all of this visit.
    """

    def __init__(
        self,
        task: str,
        train: Sequence[Example],
        *,
        seed: int,
        stage: int,
        start: int,
        num_cycles: int,
        steps: int,
        problems: int,
        pool: int,
        is_ordered: bool = False,
    ) -> None:
        shuffled = without_repeats(train, set())
        if len(shuffled) < pool + problems:
            raise TaskError(
                f"task {task}: {len(shuffled)} training examples are too few for cycle.pool = "
                f"{pool} demonstrations and batches of cycle.problems = {problems}. Needs at least "
                f"{pool + problems}: lower one of the two, or give the task more data."
            )
        needed = pool + (start + num_cycles * steps) * problems
        if is_ordered and len(shuffled) < needed:
            raise TaskError(
                f"task {task}: its examples are in order of time and are met once; {needed} are "
                f"needed until the end of this visit, got {len(shuffled)}. Give it more data, "
                "or lower cycles, cycle.optimizer_steps, cycle.problems or cycle.pool."
            )
        if not is_ordered:
            named_random(seed, "stream", task).shuffle(shuffled)
        self._examples, self._is_ordered = shuffled, is_ordered
        self.pool = tuple(shuffled[:pool])
        self._problems = shuffled[pool:]
        self._task, self._seed, self._stage, self._num_cycles = task, seed, stage, num_cycles
        self._start, self._steps, self._size = start, steps, problems
        self._num_steps = num_cycles * steps

    def anchor(self, cycle: int, evidence: Iterable[Evidence] = ()) -> Anchor:
        """The problems of the cycle with this index, from 0, and what is known from the last."""
        first = self._start + cycle * self._steps
        batches = tuple(self._batch(first + step) for step in range(self._steps))
        age = first * self._size if self._is_ordered else 0
        return Anchor(
            self._stage,
            cycle,
            self._num_cycles,
            batches,
            tuple(self._examples[age : age + len(self.pool)]),
            evidence=tuple(evidence),
            stream=self._rows,
        )

    @cached_property
    def _rows(self) -> tuple[tuple[str, Example], ...]:
        """The problems of all cycles, each once, in the order they are met."""
        batches = map(self._batch, range(self._start, self._start + self._num_steps))
        rows = (row for batch in batches for row in batch.rows)
        return tuple({(task, problem.id): (task, problem) for task, problem in rows}.values())

    def _batch(self, index: int) -> Batch:
        """Batch number `index` of the task; each pass over the data is its own shuffle."""
        per_pass = len(self._problems) // self._size
        number, position = divmod(index, per_pass)
        order = list(self._problems)
        if number:
            named_random(self._seed, "stream", self._task, "pass", number).shuffle(order)
        problems = order[position * self._size : (position + 1) * self._size]
        return Batch(tuple((self._task, problem) for problem in problems))


def stage_stream(config: RunConfig, task: Task, stage: int, num_cycles: int) -> Stream:
    """The order in which stage number `stage`, from 0, meets the task's training examples."""
    visits = [index for index in range(stage) if config.stages[index].task == task.name]
    earlier = sum(len(config.phases(index)) for index in visits)
    return Stream(
        task.name,
        task.train,
        seed=config.seed,
        stage=stage,
        start=earlier * config.cycle.optimizer_steps,
        num_cycles=num_cycles,
        steps=config.cycle.optimizer_steps,
        problems=config.cycle.problems,
        pool=config.cycle.pool,
        is_ordered=task.is_ordered,
    )


def probe_stream(config: RunConfig, task: Task, seed: int, updates: int) -> Stream:
    """The order in which a probe of so many updates meets the training examples of its task."""
    return Stream(
        task.name,
        task.train,
        seed=seed,
        stage=0,
        start=0,
        num_cycles=1,
        steps=updates,
        problems=config.cycle.problems,
        pool=0,
    )


def require_problems(config: RunConfig, tasks: Mapping[str, Task]) -> None:
    """Make sure that all phases of a run, the last too, find the training examples they take.

    `tasks` are those of the stages and of the probe.

    Raises:
        TaskError: Some do not; a line for each task.
    """
    problems: dict[str, str] = {}
    for task, make_stream in _streams(config, tasks):
        try:
            make_stream()
        except TaskError as error:
            problems.setdefault(task.name, str(error))
    if problems:
        raise TaskError("\n".join(problems.values()))
    for name, task in tasks.items():
        if repeats := len(task.train) - len(without_repeats(task.train, set())):
            logger.warning("task %s: %d training examples repeat a question.", name, repeats)


def _streams(
    config: RunConfig, tasks: Mapping[str, Task]
) -> Iterator[tuple[Task, Callable[[], Stream]]]:
    """Every stream of a run, as it is made, and its task."""
    end = len(config.stages)
    for stage, visit in enumerate(config.stages):
        task, num_cycles = tasks[visit.task], len(config.phases(stage))
        yield task, partial(stage_stream, config, task, stage, num_cycles)
        if config.evaluation.reoptimize and config.fast and visit.task != config.stages[-1].task:
            yield task, partial(stage_stream, config, task, end, 1)
    if config.probe is not None:
        task = tasks[config.probe.task]
        yield task, partial(probe_stream, config, task, config.seed, config.probe.updates)
