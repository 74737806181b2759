"""Every configuration key with its type, unit, default and source, read off the models.

The one place that walks models as schemas: error messages look keys up here, and `docs/config.md`
is `reference()` word for word. Called by `messages.py`, `load.py` and `fastslow check --keys`.
"""

import json
import types
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fastslow.config.ablation import AblationConfig
from fastslow.config.loading.yaml_nodes import KeyPath
from fastslow.config.models import NAME, TASK_NAME, RunConfig

_PATTERNS = {
    NAME: "lower-case letters, digits, - and _; first a letter or digit; at most 64",
    TASK_NAME: "letters, digits, and - _ . : inside, at most 100",
}
_PLAIN = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a model, or of a model inside it."""

    pattern: tuple[str, ...]
    """Its path, with `<name>` for names the user gives and `<i>` for positions in a list."""
    type: str
    """What may stand there, in plain words."""
    unit: str | None
    """What one of it is; None for sections and for keys that state none."""
    default: Any
    """Its default; `PydanticUndefined` when required, None also for sections."""
    source: str
    """Where the default comes from."""
    meaning: str
    """The field's docstring, on one line."""
    is_section: bool
    """Whether it holds other keys."""
    words: tuple[str, ...] = ()
    """Its allowed words, when only some are."""
    kinds: tuple[str, ...] = ()
    """The `kind`s of its section that have it in this form; empty when all do."""

    @property
    def name(self) -> str:
        """The dotted path."""
        return ".".join(self.pattern)


@lru_cache(maxsize=64)
def model_keys(model: type[BaseModel]) -> tuple[Key, ...]:
    """Every key of `model` and of the models in it, each section before its keys."""
    return tuple(_walk(model, ()))


def find_key(model: type[BaseModel], path: KeyPath, kinds: Container[Any] = ()) -> Key | None:
    """The key that `path` is an instance of, or None when the model has no such key.

    Args:
        model: The model class.
        path: Where a value stands.
        kinds: The `kind`s of the sections around it, as far as they are known.
    """
    found = [key for key in model_keys(model) if _fits(key.pattern, path)]
    return next((key for key in found if _is_of(key, kinds)), found[0] if found else None)


def names_at(model: type[BaseModel], path: KeyPath, kinds: Container[Any] = ()) -> list[str]:
    """Names of the keys directly under `path`, when the sections around are of these `kinds`."""
    keys = [
        key
        for key in model_keys(model)
        if len(key.pattern) == len(path) + 1 and _fits(key.pattern[:-1], path)
    ]
    return [key.pattern[-1] for key in keys if _is_of(key, kinds)] or [k.pattern[-1] for k in keys]


def reference() -> str:
    """The text of docs/config.md: all keys of a run, then of an ablation."""
    lines = [
        "# Configuration keys",
        "",
        "Made by `fastslow check --keys`; a test compares the two. A key without default is",
        "required. Sections may be `null` where it says so, which turns the thing off. A word in",
        "brackets after a key: only a section of that `kind` has it, or has it so.",
        "",
        *_key_table(RunConfig),
        "",
        "## Ablation files",
        "",
        "What `fastslow ablate` and `fastslow check` read where there are `arms`. Under `common`",
        "and in every arm stand keys of a run, as above.",
        "",
        *_key_table(AblationConfig),
    ]
    return "\n".join(lines) + "\n"


def _key_table(model: type[BaseModel]) -> list[str]:
    lines = [
        "| key | type | unit | default | where the default comes from | meaning |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for key in model_keys(model):
        default = "" if key.is_section else _default_text(key.default)
        name = f"`{key.name}`" + (f" ({', '.join(key.kinds)})" if key.kinds else "")
        cells = [name, key.type, key.unit or "", default, key.source, key.meaning]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def _walk(model: type[BaseModel], prefix: tuple[str, ...]) -> list[Key]:
    keys: list[Key] = []
    for name, field in model.model_fields.items():
        pattern = (*prefix, name)
        inner = _models_in(field.annotation)
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        keys.append(
            Key(
                pattern=pattern,
                type=_type_text(field.annotation, field.metadata),
                unit=str(extra["unit"]) if "unit" in extra else None,
                default=_default(field),
                source=str(extra.get("source", "")),
                meaning=" ".join((field.description or "").split()),
                is_section=bool(inner),
                words=_words(field.annotation),
            )
        )
        sections = [(_kind(section), _walk(section, pattern + suffix)) for suffix, section in inner]
        keys += _merged(sections) if len(sections) > 1 else [k for _, w in sections for k in w]
    return keys


def _merged(sections: Sequence[tuple[str, list[Key]]]) -> list[Key]:
    """Keys of the variants of a section: one for all that agree, else each with its kinds."""
    forms: list[Key] = []
    for _, keys in sections:
        forms += [key for key in keys if key not in forms]
    depth = min(len(key.pattern) for key in forms)
    is_tag = {key: len(key.pattern) == depth and key.pattern[-1] == "kind" for key in forms}
    (tag, *others) = [key for key in forms if is_tag[key]]
    words = tuple(word for key in (tag, *others) for word in key.words)
    merged = [replace(tag, type=_words_text(words), words=words)]
    for key in forms:
        kinds = tuple(kind for kind, keys in sections if key in keys)
        if not is_tag[key]:
            own = () if len(kinds) == len(sections) else kinds
            merged.append(replace(key, kinds=key.kinds or own))
    return merged


def _kind(model: type[BaseModel]) -> str:
    """The word that `kind` says in a section of this model; empty without one."""
    field = model.model_fields.get("kind")
    return "".join(_words(field.annotation)) if field else ""


def _is_of(key: Key, kinds: Container[Any]) -> bool:
    return not key.kinds or any(kind in kinds for kind in key.kinds)


def _default(field: FieldInfo) -> Any:
    if field.default_factory is not None:
        return None
    return field.default


def _default_text(value: Any) -> str:
    return "" if value is PydanticUndefined else f"`{json.dumps(value)}`"


def _fits(pattern: tuple[str, ...], path: KeyPath) -> bool:
    return len(pattern) == len(path) and all(
        part == wanted
        or (wanted == "<i>" and isinstance(part, int))
        or (wanted == "<name>" and isinstance(part, str))
        for wanted, part in zip(pattern, path, strict=True)
    )


def _models_in(annotation: Any) -> list[tuple[tuple[str, ...], type[BaseModel]]]:
    """Models an annotation leads to, each with the path parts between."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [((), annotation)]
    origin = get_origin(annotation)
    step = ("<name>",) if origin is dict else ("<i>",) if origin in (tuple, list) else ()
    return [
        (step + suffix, model)
        for argument in get_args(annotation)
        for suffix, model in _models_in(argument)
    ]


def _words(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return tuple(word for word in get_args(annotation) if isinstance(word, str))
    if _is_union(annotation) or hasattr(annotation, "__metadata__"):
        return tuple(word for part in get_args(annotation) for word in _words(part))
    return ()


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _type_text(annotation: Any, metadata: Any = ()) -> str:
    """What an annotation accepts, in plain words."""
    if hasattr(annotation, "__metadata__"):
        return _type_text(annotation.__origin__, (*annotation.__metadata__, *metadata))
    origin, arguments = get_origin(annotation), get_args(annotation)
    if _is_union(annotation):
        parts = [_type_text(part, metadata) for part in arguments if part is not type(None)]
        distinct = list(dict.fromkeys(parts))
        return " or ".join([*distinct, "null"] if type(None) in arguments else distinct)
    if origin is Literal:
        return _words_text(arguments)
    if origin in (tuple, list, set, frozenset):
        of = " of text" if arguments[:1] == (str,) else ""
        return f"a list{of}" + _bounds_text(metadata)
    if origin is dict or annotation is dict or _models_in(annotation):
        return "a mapping of keys"
    return _PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation))) + _bounds_text(
        metadata
    )


def _words_text(words: Sequence[Any]) -> str:
    names = [repr(word) for word in words]
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _bounds_text(metadata: Any) -> str:
    bounds = [
        f"{sign} {getattr(item, name)}"
        for item in metadata
        for name, sign in _BOUNDS.items()
        if getattr(item, name, None) is not None
    ]
    text = f" {' and '.join(bounds)}" if bounds else ""
    for item in metadata:
        pattern = getattr(item, "pattern", None)
        shortest = getattr(item, "min_length", None)
        text += f" ({_PATTERNS.get(pattern, f'matching {pattern}')})" if pattern else ""
        text += ", not empty" if shortest else ""
    return text
