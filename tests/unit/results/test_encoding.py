"""The encoder of every file that a program reads."""

import json
from dataclasses import dataclass

import pytest

from fastslow.core.types import Metric
from fastslow.results.render.encoding import json_text, plain


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    marks: tuple[str, ...]


def test_numbers_are_rounded_keys_sorted_and_dataclasses_become_objects() -> None:
    data = {"b": [Point(1 / 3, ("a",))], "a": {"m": Metric("m", -1e-9, None, "f")}, "n": True}
    assert json.loads(json_text(data)) == {
        "a": {"m": {"value": 0.0, "reason": None, "formula": "f"}},
        "b": [{"x": 0.333333, "marks": ["a"]}],
        "n": True,
    }
    assert json_text(data).startswith('{\n  "a": {\n')
    assert "-0.0" not in json_text(data)


def test_what_is_named_as_exact_is_not_rounded() -> None:
    assert json.loads(json_text({"x": 1e-9}, settings=[1e-9])) == {"x": 0.0, "settings": [1e-9]}


def test_what_has_no_json_form_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"x": float("nan")})
    with pytest.raises(AssertionError, match="set has no JSON form"):
        plain({1, 2})
