"""The one encoder of what a program reads: report.json, compare.json, ablation.json, gate.json.

The same data gives the same bytes: keys sorted, numbers rounded to six decimals, no clock.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass

from fastslow.core.types import Json, Metric
from fastslow.measure.stats.intervals import Interval, PairedDifference

DECIMALS = 6
"""Digits after the point of every number written."""


def json_text(data: Mapping[str, object], **exact: Json) -> str:
    """The text of a JSON file; the values of `exact` are written as they are, not rounded.

    Raises:
        ValueError: A number is infinite or not a number.
    """
    content = {name: plain(value) for name, value in data.items()} | exact
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"


def plain(data: object) -> Json:
    """Plain data with every float rounded, so that it prints the same everywhere.

    A dataclass becomes an object with one key a field. The name of a `Metric` is left out: it is
    the key under which the metric stands.
    """
    if isinstance(data, float):
        return round(data, DECIMALS) + 0.0  # -0.0 becomes 0.0
    if data is None or isinstance(data, bool | int | str):
        return data
    if isinstance(data, Mapping):
        return {name: plain(value) for name, value in data.items()}
    if isinstance(data, Sequence):
        return [plain(value) for value in data]
    assert is_dataclass(data), f"{type(data).__name__} has no JSON form"
    skipped = ("name",) if isinstance(data, Metric) else ()
    return {f.name: plain(getattr(data, f.name)) for f in fields(data) if f.name not in skipped}


def ends(interval: Interval | PairedDifference | None) -> tuple[float | None, float | None]:
    """Both ends of a 95 % interval, None where there is none."""
    return (interval.low, interval.high) if interval else (None, None)


def with_limits(metric: Metric, interval: Interval | PairedDifference | None) -> dict[str, Json]:
    """A metric and the ends of its 95 % interval, null where it has none."""
    low, high = ends(interval)
    content = {"value": metric.value, "reason": metric.reason, "formula": metric.formula}
    return {**content, "low": low, "high": high}
