"""Points that a tracker has and that come again after a resume: each is taken once."""

from collections import Counter
from collections.abc import Iterable, Mapping


class Points:
    """Name, step and value of the points a tracker has from earlier parts of a run.

    Two points may agree in all three, so they are counted: each answers for one that comes again.
    Time is no part of it, since a resumed run does again what a kill took.
    """

    def __init__(self, points: Iterable[tuple[str, int, float]] = ()) -> None:
        self._counts = Counter(points)

    def new(self, metrics: Mapping[str, float], step: int) -> dict[str, float]:
        """Those of `metrics` that are not there; the others have come again with this."""
        repeated = [name for name, value in metrics.items() if self._counts[name, step, value]]
        self._counts.subtract((name, step, metrics[name]) for name in repeated)
        return {name: value for name, value in metrics.items() if name not in repeated}


CHANNELS = ("fast/", "slow/")
"""What the names of metrics begin with whose step counts since their stage began."""


def series(name: str, stage: int | None, task: str) -> str:
    """A metric's name where all stages of a run share one list of names.

    What channels report gets stage, from 1, and task in front; the rest counts rows of the matrix.
    """
    return f"{(stage or 0) + 1}-{task}/{name}" if name.startswith(CHANNELS) else name
