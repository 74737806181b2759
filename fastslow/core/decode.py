"""Dataclasses out of JSON's plain data, every field of the type it is declared with.

Files of a run may come from anywhere; their data is checked here before anything counts with it.
The check is pydantic's, of a schema made from the fields: unlike a `TypeAdapter` it takes text with
half surrogate pairs, which completions may hold, and keeps whole numbers whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pydantic_core import CoreSchema, SchemaValidator, ValidationError, core_schema

T = TypeVar("T")


def shaped(kind: type[T], data: object) -> T:
    """Make a `kind` of a JSON object; lists become tuples.

    A dataclass of numbers, texts, switches, null, literals, mappings, sequences and dataclasses.
    Whole numbers in it are counts, so none is below 0.

    Raises:
        ValueError: A field is missing, unknown, of another type, or a count below 0; names it.
    """
    try:
        result: T = _validator(cast(Any, kind)).validate_python(data)
    except ValidationError as error:
        raise ValueError(_message(error)) from error
    return result


@cache
def _validator(kind: Any) -> SchemaValidator:
    return SchemaValidator(_dataclass(kind))


def _dataclass(kind: type) -> CoreSchema:
    hints, members = get_type_hints(kind), fields(kind)
    checks = [core_schema.dataclass_field(f.name, _field(f, hints[f.name])) for f in members]
    return core_schema.dataclass_schema(
        kind,
        core_schema.dataclass_args_schema(kind.__name__, checks, extra_behavior="forbid"),
        [member.name for member in members],
        slots=hasattr(kind, "__slots__"),
        post_init=hasattr(kind, "__post_init__"),
    )


def _field(field: Field[Any], hint: Any) -> CoreSchema:
    schema = _schema(hint)
    if field.default_factory is not MISSING:
        return core_schema.with_default_schema(schema, default_factory=field.default_factory)
    if field.default is not MISSING:
        return core_schema.with_default_schema(schema, default=field.default)
    return schema


_PLAIN: dict[Any, CoreSchema] = {
    str: core_schema.is_instance_schema(str),  # str_schema refuses half surrogate pairs
    bool: core_schema.bool_schema(strict=True),
    int: core_schema.int_schema(strict=True, ge=0, le=2**64 - 1),  # as `parse_json` has it
    float: core_schema.union_schema(  # float_schema alone makes 1.0 of 1
        [core_schema.int_schema(strict=True), core_schema.float_schema(strict=True)],
        custom_error_type="number",
        custom_error_message="a number",
    ),
}


def _schema(hint: Any) -> CoreSchema:
    """The check of one type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        [option] = [option for option in inner if option is not NoneType]
        return core_schema.nullable_schema(_schema(option))
    if origin is Literal:
        return core_schema.literal_schema(list(inner))
    if origin in (tuple, Sequence):
        return core_schema.tuple_schema([_schema(inner[0])], variadic_item_index=0)
    if origin is list:
        return core_schema.list_schema(_schema(inner[0]))
    if origin in (dict, Mapping):
        return core_schema.dict_schema(_PLAIN[str], _schema(inner[1]))
    return _dataclass(cast(type, hint)) if is_dataclass(hint) else _PLAIN[hint]


_EXPECTED = {
    "is_instance_of": "text",
    "bool_type": "true or false",
    "number": "a number",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "an object",
    "dataclass_type": "an object",
}


def _message(error: ValidationError) -> str:
    """The most telling of the errors: keys that are unknown, keys that are missing, the first."""
    errors = error.errors(include_url=False)
    for kind, words in (("unexpected_keyword_argument", "unknown key"), ("missing", "missing")):
        places = [entry["loc"] for entry in errors if entry["type"] == kind]
        if places:
            section = places[0][:-1]
            names = [str(place[-1]) for place in places if place[:-1] == section]
            keys = f"{names[0]!r:.60}" if words == "unknown key" else ", ".join(names)
            return f"{'.'.join(map(str, section))[:80]}: {words} {keys}".removeprefix(": ")
    first = errors[0]
    expected = _EXPECTED.get(first["type"], "a whole number from 0")
    if first["type"] == "literal_error":
        expected = first["ctx"]["expected"]
    value = first["input"]
    got = f"{value!r:.60}" if isinstance(value, str | int | float) else type(value).__name__
    place = ".".join(map(str, first["loc"]))[:80]
    return f"{place}: expected {expected}, got {got}".removeprefix(": ")
