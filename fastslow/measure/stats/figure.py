"""One figure of a report: a value, or None and the reason why there is none."""

from collections.abc import Callable

from fastslow.core.types import Metric


class Undefined(Exception):
    """A formula has no value on this input; the message is the reason given in the report."""


def figure(name: str, formula: str, compute: Callable[[], float]) -> Metric:
    """The value of `compute` as a metric; None and its reason where it raises `Undefined`.

    `formula` has its source in it, in one line.
    """
    try:
        return Metric(name, compute(), None, formula)
    except Undefined as reason:
        return Metric(name, None, str(reason), formula)
