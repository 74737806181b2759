"""Points that come again after a resume, each taken once; and what some trackers name them."""

from collections import Counter
from collections.abc import Iterable, Mapping

from fastslow.core.tracker import Tracker


class Points:
    """Name, step and value of the points a tracker has from earlier parts of a run.

    Two points may agree in all three, so they are counted: each answers for one that comes again.
    Time is no part of it, since a resumed run does again what a kill took.
    """

    def __init__(self, points: Iterable[tuple[str, int, float]] = ()) -> None:
        self._counts = Counter(points)

    def new(self, metrics: Mapping[str, float], step: int, stage: int | None) -> dict[str, float]:
        """Those of `metrics` that are not there; the others have come again with this.

        A row of the matrix (no `stage`) has each name once, however often it comes.
        """
        repeated = [name for name, value in metrics.items() if self._counts[name, step, value]]
        if stage is None:
            self._counts.update((name, step, value) for name, value in metrics.items())
        else:
            self._counts.subtract((name, step, metrics[name]) for name in repeated)
        return {name: value for name, value in metrics.items() if name not in repeated}


CHANNELS = ("fast/", "slow/")
"""What the names of metrics begin with whose step counts since their stage began."""


def series(name: str, stage: int | None, task: str) -> str:
    """A metric's name where all stages of a run share one list of names.

    What channels report gets stage, from 1, and task in front; the rest counts rows of the matrix.
    """
    return f"{(stage or 0) + 1}-{task}/{name}" if name.startswith(CHANNELS) else name


def may_repeat(name: str, time: float, since: float) -> bool:
    """Whether a point of that name, and its time, may come again in a run that was resumed.

    What was measured of a row may come at any time, all else after `since`.
    """
    return time > since or not name.partition("/")[2].startswith(CHANNELS)


class SeriesTracker(Tracker):
    """A tracker with one list of names for all stages of a run."""

    def __init__(self) -> None:
        self._points = Points()
        self._tasks: dict[int, str] = {}

    def begin_stage(self, stage: int, task: str) -> None:
        """Remember the task, which is part of the names of what its channels report."""
        self._tasks[stage] = task

    def log(self, metrics: Mapping[str, float], step: int, time: float, stage: int | None) -> None:
        """Write values that are not there."""
        task = "" if stage is None else self._tasks[stage]
        named = {series(name, stage, task): self.rounded(v) for name, v in metrics.items()}
        if new := self._points.new(named, step, stage):
            self.write(new, step, time)

    def rounded(self, value: float) -> float:
        """A value as the tracker keeps it."""
        return value

    def write(self, points: Mapping[str, float], step: int, time: float) -> None:
        """Write new points, by their names for all stages."""
        raise NotImplementedError
