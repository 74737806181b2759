"""Dataclasses out of JSON's plain data, every field of the type it is declared with.

Files of a run may come from anywhere; what is read from them is checked here before anything counts
with it. Unlike pydantic it takes text with half surrogate pairs, which completions may hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def shaped(kind: type[T], data: object) -> T:
    """Make a `kind` of what a JSON object holds.

    Args:
        kind: A dataclass of numbers, texts, switches, null, literals, mappings, sequences and
            dataclasses. Whole numbers in it are counts, so none is below 0.
        data: Plain data; lists become tuples.

    Raises:
        ValueError: A field is missing, unknown, of another type, or a count below 0; names it.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"expected an object, got {_got(data)}")
    hints, required = _fields(kind)  # type: ignore[arg-type]  # classes are hashable
    if unknown := [name for name in data if name not in hints]:
        raise ValueError(f"unknown key {unknown[0]!r:.60}")
    if missing := [name for name in required if name not in data]:
        raise ValueError(f"missing {', '.join(missing)}")
    return kind(**{name: _value(hints[name], value, name) for name, value in data.items()})


@cache
def _fields(kind: type) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Types of a dataclass's fields by name, and the names of those that have no default."""
    hints = get_type_hints(kind)
    found = fields(kind)
    required = [f.name for f in found if f.default is MISSING and f.default_factory is MISSING]
    return {field.name: hints[field.name] for field in found}, tuple(required)


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value` as `hint` says."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        options = [option for option in inner if option is not NoneType]
        if value is None and len(options) < len(inner):
            return None
        assert len(options) == 1, f"{where}: one type beside None is supported"
        return _value(options[0], value, where)
    if origin is Literal:
        return _held(value in inner, value, where, " or ".join(map(repr, inner)))
    if origin in (tuple, list, Sequence):
        _held(isinstance(value, list | tuple), value, where, "a list")
        items = [_value(inner[0], item, f"{where}.{i}") for i, item in enumerate(value)]
        return items if origin is list else tuple(items)
    if origin in (dict, Mapping):
        _held(isinstance(value, Mapping), value, where, "an object")
        return {name: _value(inner[1], item, f"{where}.{name}") for name, item in value.items()}
    if is_dataclass(hint) and isinstance(hint, type):
        try:
            return shaped(hint, value)
        except ValueError as err:
            raise ValueError(f"{where}: {err}") from err
    return _plain(hint, value, where)


def _plain(hint: Any, value: Any, where: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float:
        return _held(is_number, value, where, "a number")
    if hint is int:
        is_count = is_number and isinstance(value, int) and value >= 0
        return _held(is_count, value, where, "a whole number from 0")
    assert hint in (str, bool), f"{where}: {hint} is not supported"
    return _held(isinstance(value, hint), value, where, "text" if hint is str else "true or false")


def _held(holds: bool, value: T, where: str, expected: str) -> T:
    if not holds:
        raise ValueError(f"{where[:80]}: expected {expected}, got {_got(value)}")
    return value


def _got(value: object) -> str:
    return f"{value!r:.60}" if isinstance(value, str | int | float) else type(value).__name__
