"""The order in which a stage meets its training examples.

A pure function of seed, stage and cycle: the data position of a resumed run is its cycle number.
"""

from collections.abc import Iterable, Sequence

from fastslow.config.models import RunConfig
from fastslow.core.errors import TaskError
from fastslow.core.seeds import named_random
from fastslow.core.types import Anchor, Batch, Evidence, Example
from fastslow.task.definition import Task


class Stream:
    """Cuts one visit's training examples into anchors.

    The split is shuffled once; its first examples are the pool for demonstrations, the rest is
    gone through in batches, shuffled again every time it has been used up.

    A cycle has T = `steps` batches of Q = `problems` problems; `stage` counts from 0.

    Raises:
        TaskError: The split is too small for the pool and one batch of distinct problems.
    """

    def __init__(
        self,
        task: str,
        train: Sequence[Example],
        *,
        seed: int,
        stage: int,
        num_cycles: int,
        steps: int,
        problems: int,
        pool: int,
    ) -> None:
        if len(train) < pool + problems:
            raise TaskError(
                f"task {task}: {len(train)} training examples are too few for fast.pool = {pool} "
                f"demonstrations and batches of cycle.problems = {problems}. Needs at least "
                f"{pool + problems}: lower one of the two, or give the task more data."
            )
        shuffled = list(train)
        named_random(seed, "stream", stage).shuffle(shuffled)
        self.pool = tuple(shuffled[:pool])
        self._problems = shuffled[pool:]
        self._task, self._seed, self._stage, self._num_cycles = task, seed, stage, num_cycles
        self._steps, self._size = steps, problems

    def anchor(self, cycle: int, evidence: Iterable[Evidence] = ()) -> Anchor:
        """The problems of the cycle with this index, from 0, and what is known from the last."""
        first = cycle * self._steps
        batches = tuple(self._batch(first + step) for step in range(self._steps))
        return Anchor(self._stage, cycle, self._num_cycles, batches, self.pool, tuple(evidence))

    def _batch(self, index: int) -> Batch:
        """Batch number `index` of the stage; each pass over the data is its own shuffle."""
        per_pass = len(self._problems) // self._size
        number, position = divmod(index, per_pass)
        order = list(self._problems)
        if number:
            named_random(self._seed, "stream", self._stage, "pass", number).shuffle(order)
        problems = order[position * self._size : (position + 1) * self._size]
        return Batch(tuple((self._task, problem) for problem in problems))


def stage_stream(config: RunConfig, task: Task, stage: int, num_cycles: int) -> Stream:
    """The order in which stage number `stage`, from 0, meets the task's training examples."""
    return Stream(
        task.name,
        task.train,
        seed=config.seed,
        stage=stage,
        num_cycles=num_cycles,
        steps=config.cycle.optimizer_steps,
        problems=config.cycle.problems,
        pool=config.fast.pool if config.fast else 0,
    )
