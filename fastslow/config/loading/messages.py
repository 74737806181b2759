"""What pydantic finds wrong with one value, in words a user can act on.

Form: what, got X. Expected or known Y. Did you mean Z?
"""

import json
from collections.abc import Container, Mapping
from typing import Any

from pydantic import BaseModel

from fastslow.config.loading.reference import Key, find_keys, model_keys, text_of
from fastslow.config.loading.yaml_nodes import KeyPath, Node, cut
from fastslow.core.errors import nearest

_TYPES = {
    **dict.fromkeys(("int_type", "int_from_float"), "a whole number"),
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    **dict.fromkeys(("tuple_type", "list_type", "set_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a mapping of keys"),
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
    """One of `ValidationError.errors()` as a sentence.

    `path` is its key path within `model`, without pydantic's union tags, `node` what was written
    there.
    """
    kind, loc = str(error["type"]), error["loc"]
    if loc and loc[-1] == "[key]":
        return f"not a usable name, got {cut(str(path[-1]), 60)!r}. {_expected(None, error)}"
    if kind == "extra_forbidden":
        return _unknown_key(path, model, loc)
    key = next(iter(find_keys(model, path, loc)), None)
    if kind in ("missing", "union_tag_not_found"):
        return f"missing, and it has no default. {_expected(key, error) if key else ''}".rstrip()
    if kind in ("value_error", "assertion_error"):
        return one_line(str(error["ctx"]["error"]))
    if kind not in _KINDS:
        return f"{one_line(str(error['msg'])).rstrip('.')}, got {got(node)}."
    is_word = node is not None and isinstance(node.value, str)
    what = _KINDS[kind] if is_word or _KINDS[kind] != "unknown word" else "wrong type"
    text = f"{what}, got {got(node)}. {_expected(key, error)}"
    if key and node and what == "unknown word":
        suggestion = nearest(str(node.value), key.words)
        text += suggestion if "Did you mean" in suggestion else ""
    return text


def _depth(key: Key) -> int:
    """Of sections that a key stands in: the nearest to the top are suggested first."""
    return len(key.pattern)


def _unknown_key(path: KeyPath, model: type[BaseModel], kinds: Container[Any]) -> str:
    """Say that nothing is called so, and what was probably meant."""
    name = cut(str(path[-1]), 60)
    others = [kind for key in find_keys(model, path)[:1] for kind in key.kinds]
    if others:
        return f"unknown key here, got {name!r}. It needs kind: {' or '.join(others)}."
    if "." in name:
        return "unknown key. Dots belong to overrides; in a file, nest the keys."
    names = [key.pattern[-1] for key in find_keys(model, (*path[:-1], None), kinds)]
    places = sorted((k for k in model_keys(model) if k.pattern[-1] == name), key=_depth)
    elsewhere = dict.fromkeys(k.name for k in places)
    suggestion = nearest(name, names)
    if "Did you mean" not in suggestion and elsewhere:
        suggestion = f" It belongs at {' or '.join(list(elsewhere)[:3])}."
    return f"unknown key, got {name!r}.{suggestion}"


def got(node: Node | None) -> str:
    """What was written, shortened, with its type where that is not obvious."""
    value = node.value if node else None
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else f"a list of {len(value)}"
    if isinstance(value, str):
        return f"{value if len(value) <= 60 else value[:57] + '...'!r} (text)"
    return json.dumps(value)


def one_line(text: str) -> str:
    """Any text on one line, ending in a full stop."""
    joined = " ".join(text.split())
    return joined if joined.endswith((".", "?", "!")) else joined + "."


def _expected(key: Key | None, error: Mapping[str, Any]) -> str:
    """What may stand at a key, or where no key is known, what pydantic says."""
    if key is not None:
        unit = f" ({key.unit})" if key.unit and key.unit not in ("name", "switch") else ""
        return f"Expected {key.type}{unit}."
    limits = error.get("ctx", {})
    if "pattern" in limits:
        return f"Expected {text_of(limits['pattern'])}."
    words = ", ".join(f"{name} {value}" for name, value in limits.items())
    return f"Expected {_TYPES.get(str(error['type'])) or words or error['msg']}."
