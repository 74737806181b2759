"""What pydantic found wrong with one value, in words a user can act on.

Form: what, got X. Expected or known Y. Did you mean Z? Called by `validate.py`, which knows where
the value was written; nothing here reads files.
"""

from collections.abc import Container, Mapping
from typing import Any

from pydantic import BaseModel

from fastslow.config.loading.reference import Key, find_key, model_keys, names_at
from fastslow.config.loading.yaml_nodes import KeyPath, Node, cut
from fastslow.config.models import RunConfig
from fastslow.core.errors import nearest

_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "none_required": "null",
}
_KINDS = {
    **dict.fromkeys(_TYPES, "wrong type"),
    **dict.fromkeys(
        ("greater_than", "greater_than_equal", "less_than", "less_than_equal"), "out of range"
    ),
    **dict.fromkeys(("too_short", "string_too_short"), "too short"),
    **dict.fromkeys(("too_long", "string_too_long"), "too long"),
    "literal_error": "unknown word",
    "enum": "unknown word",
    "union_tag_invalid": "unknown word",
    "string_pattern_mismatch": "not of the expected form",
}


def in_words(error: Mapping[str, Any], path: KeyPath, node: Node | None, model: Any) -> str:
    """One pydantic error as a sentence.

    Args:
        error: An entry of `ValidationError.errors()`.
        path: The key path within `model`, without pydantic's union tags.
        node: What was written there; None when nothing was.
        model: The model class that was validated.
    """
    kind = str(error["type"])
    if error["loc"] and error["loc"][-1] == "[key]":
        names = find_key(model, (*path[:-1], "task")) or _task_name()
        return f"not a usable name, got {cut(str(path[-1]), 60)!r}. Expected {names}."
    if kind == "extra_forbidden":
        return unknown_key(path, model, error["loc"])
    key = find_key(model, path, error["loc"])
    if kind in ("missing", "union_tag_not_found"):
        expected = f" Expected {_expected(key, error)}." if key else ""
        return f"missing, and it has no default.{expected}"
    if kind in ("value_error", "assertion_error"):
        return f"{one_line(str(error['ctx']['error']))}"
    if kind not in _KINDS:
        return f"{one_line(str(error['msg'])).rstrip('.')}, got {got(node)}."
    is_text = node is not None and isinstance(node.value, str)
    what = _KINDS[kind] if is_text or _KINDS[kind] != "unknown word" else "wrong type"
    text = f"{what}, got {got(node)}. Expected {_expected(key, error)}."
    if key and what == "unknown word" and node:
        text += _close(str(node.value), key.words)
    return text


def unknown_key(path: KeyPath, model: type[BaseModel], kinds: Container[Any] = ()) -> str:
    """Say that nothing is called so, and what was probably meant.

    Args:
        path: The key path within `model`.
        model: The model class that was validated.
        kinds: Words among which are the `kind`s of the sections around, e.g. pydantic's location.
    """
    name = cut(str(path[-1]), 60)
    known = names_at(model, path[:-1], kinds)
    other = find_key(model, path)
    if other and other.kinds:
        return f"unknown key here, got {name!r}. It needs kind: {' or '.join(other.kinds)}."
    if "." in name:
        return "unknown key. Dots belong to overrides; in a file, nest the keys."
    elsewhere = dict.fromkeys(k.name for k in model_keys(model) if k.pattern[-1] == name)
    suggestion = nearest(name, known)
    if "Did you mean" not in suggestion and elsewhere:
        suggestion = f" It belongs at {' or '.join(list(elsewhere)[:3])}."
    return f"unknown key, got {name!r}.{suggestion}"


def got(node: Node | None) -> str:
    """What was written, shortened, with its type where that is not obvious."""
    value = node.value if node else None
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return f"{value if len(value) <= 60 else value[:57] + '...'!r} (text)"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else f"{value!r}"


def one_line(text: str) -> str:
    """Any text on one line, ending in a full stop."""
    joined = " ".join(text.split())
    return joined if joined.endswith((".", "?", "!")) else joined + "."


def _expected(key: Key | None, error: Mapping[str, Any]) -> str:
    if key is None:
        limits = [f"{name} {value}" for name, value in error.get("ctx", {}).items()]
        return _TYPES.get(str(error["type"])) or ", ".join(limits) or one_line(error["msg"])[:-1]
    unit = f" ({key.unit})" if key.unit and key.unit not in ("name", "switch") else ""
    return key.type + unit


def _close(got_word: str, words: tuple[str, ...]) -> str:
    suggestion = nearest(got_word, words)
    return suggestion if "Did you mean" in suggestion else ""


def _task_name() -> str:
    key = find_key(RunConfig, ("stages", 0, "task"))
    assert key is not None
    return key.type
