"""Every configuration key with its type, unit, default and source, from the models' JSON schemas.

Error messages look keys up here, and `docs/config.md` is `reference()` word for word.
"""

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from fastslow.config.ablation import AblationConfig
from fastslow.config.loading.yaml_nodes import KeyPath
from fastslow.config.models import NAME, TASK_NAME, RunConfig
from fastslow.core.plugins import REFERENCE

_PATTERNS = {
    NAME: "lower-case letters, digits, - and _; first a letter or digit; at most 64",
    TASK_NAME: "letters, digits, and - _ . : inside, at most 100",
    REFERENCE.pattern: "package.module:function",
}
_PLAIN = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping of keys",
}
_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
_INTRODUCTION = """\
# Configuration keys

Made by `fastslow check --keys`; a test compares the two. A key without default is
required. Sections may be `null` where it says so, which turns the thing off. A word in
brackets after a key: only a section of that `kind` has it, or has it so.

`kind: custom` is a plug-in of your own, wherever a section takes it: `use` names its function as
`package.module:function`, and `params` are checked against the class that the function's argument
is annotated with, as the parameters of a task are, with file and line.
"""
_ABLATION_FILES = """
## Ablation files

What `fastslow ablate` and `fastslow check` read where there are `arms`. Under `common`
and in every arm stand keys of a run, as above.
"""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a model, or of a model inside it."""

    pattern: tuple[str, ...]
    """Its path, with `<name>` for names the user gives and `<i>` for positions in a list."""
    type: str
    """What may stand there, in plain words."""
    unit: str | None
    """What one of it is; None for sections and for keys that state none."""
    default: str | None
    """Its default, as JSON; empty for sections, None when required."""
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
    schema = model.model_json_schema()
    return tuple(_keys(schema, (), schema.get("$defs", {})))


def find_key(model: type[BaseModel], path: KeyPath, kinds: Container[Any] = ()) -> Key | None:
    """The key that `path` is an instance of, or None when the model has no such key.

    Args:
        model: The model class.
        path: Where a value stands.
        kinds: The `kind`s of the sections around it, as far as they are known.
    """
    matches = [key for key in model_keys(model) if _fits(key.pattern, path)]
    return next((key for key in matches if _is_of(key, kinds)), matches[0] if matches else None)


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
    tables = ("\n".join(_key_table(model)) for model in (RunConfig, AblationConfig))
    return "\n".join([_INTRODUCTION, next(tables), _ABLATION_FILES, next(tables)]) + "\n"


def _key_table(model: type[BaseModel]) -> Iterator[str]:
    yield "| key | type | unit | default | where the default comes from | meaning |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for key in model_keys(model):
        default = f"`{key.default}`" if key.default else ""
        name = f"`{key.name}`" + (f" ({', '.join(key.kinds)})" if key.kinds else "")
        cells = [name, key.type, key.unit or "", default, key.source, key.meaning]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _keys(
    schema: Mapping[str, Any], prefix: tuple[str, ...], models: Mapping[str, Any]
) -> list[Key]:
    """The keys of an object's schema; `models` are the schemas that a `$ref` may name."""
    keys: list[Key] = []
    for name, field in schema["properties"].items():
        pattern = (*prefix, name)
        forms = list(_forms(field, models))
        sections = [item for form in forms for item in _sections(form, models)]
        is_required = name in schema.get("required", ())
        stated = "" if sections or "default" not in field else json.dumps(field["default"])
        keys.append(
            Key(
                pattern=pattern,
                type=_type_text(forms),
                unit=field.get("unit"),
                default=None if is_required else stated,
                source=field.get("source", ""),
                meaning=" ".join(field.get("description", "").split()),
                is_section=bool(sections),
                words=tuple(w for form in forms for w in _words(form) if isinstance(w, str)),
            )
        )
        variants = [
            (
                "".join(_words(model["properties"].get("kind", {}))),
                _keys(model, pattern + step, models),
            )
            for step, model in sections
        ]
        keys += (
            _merged(variants) if len(variants) > 1 else [k for _, inner in variants for k in inner]
        )
    return keys


def _merged(variants: Sequence[tuple[str, list[Key]]]) -> list[Key]:
    """Keys of the variants of a section: one for all that agree, else each with its kinds."""
    forms = list(dict.fromkeys(key for _, keys in variants for key in keys))
    depth = min(len(key.pattern) for key in forms)
    tags = [key for key in forms if len(key.pattern) == depth and key.pattern[-1] == "kind"]
    words = tuple(word for tag in tags for word in tag.words)
    merged = [replace(tag, type=_words_text(words), words=words) for tag in tags[:1]]
    for key in forms:
        kinds = tuple(kind for kind, keys in variants if key in keys)
        if key not in tags:
            merged.append(replace(key, kinds=key.kinds or kinds[: len(kinds) % len(variants)]))
    return merged


def _is_of(key: Key, kinds: Container[Any]) -> bool:
    return not key.kinds or any(kind in kinds for kind in key.kinds)


def _fits(pattern: tuple[str, ...], path: KeyPath) -> bool:
    return len(pattern) == len(path) and all(
        part == name
        or (name == "<i>" and isinstance(part, int))
        or (name == "<name>" and isinstance(part, str))
        for name, part in zip(pattern, path, strict=True)
    )


def _forms(schema: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The alternatives of a schema, references followed."""
    if "$ref" in schema:
        yield from _forms(models[schema["$ref"].rpartition("/")[2]], models)
    elif alternatives := schema.get("anyOf") or schema.get("oneOf"):
        for alternative in alternatives:
            yield from _forms(alternative, models)
    else:
        yield schema


def _sections(
    form: Mapping[str, Any], models: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Objects with keys of their own that a form leads to, each with the path between."""
    if "properties" in form:
        yield (), form
    values = form.get("patternProperties", {}).values()
    inner = [("<i>", form.get("items")), ("<name>", form.get("additionalProperties"))]
    for step, schema in [*inner, *(("<name>", value) for value in values)]:
        for item in _forms(schema, models) if isinstance(schema, dict) else ():
            yield from (((step, *rest), model) for rest, model in _sections(item, models))


def _words(form: Mapping[str, Any]) -> Sequence[Any]:
    return [form["const"]] if "const" in form else form.get("enum", ())


def _type_text(forms: Sequence[Mapping[str, Any]]) -> str:
    """What the forms accept, in plain words."""
    texts = [_form_text(form) for form in forms if form.get("type") != "null"]
    null = ["null"] * any(form.get("type") == "null" for form in forms)
    return " or ".join([*dict.fromkeys(texts), *null])


def _form_text(form: Mapping[str, Any]) -> str:
    if words := _words(form):
        return _words_text(words)
    text = _PLAIN.get(form.get("type", ""), "anything")
    items = form.get("items", {})
    if items.get("type") == "string" and not _words(items):
        text += " of text"
    bounds = [f"{sign} {form[name]}" for name, sign in _BOUNDS.items() if name in form]
    text += f" {' and '.join(bounds)}" if bounds else ""
    if pattern := form.get("pattern"):
        text += f" ({_PATTERNS.get(pattern, f'matching {pattern}')})"
    is_bounded = form.get("minLength") or (items and form.get("minItems"))
    return text + (", not empty" if is_bounded else "")


def _words_text(words: Sequence[Any]) -> str:
    names = [repr(word) for word in words]
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
