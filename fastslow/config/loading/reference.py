"""Every configuration key with its type, unit, default and source, from the models' JSON schemas.

Error messages look keys up here, and `docs/config.md` is `reference()` word for word.
"""

import json
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Any

from pydantic import BaseModel

from fastslow.config.ablation import AblationConfig
from fastslow.config.models import NAME, TASK_NAME, RunConfig
from fastslow.core.plugins import USE

_PATTERNS = {
    NAME: "lower-case letters, digits, - and _; first a letter or digit; at most 64",
    TASK_NAME: "letters, digits, and - _ . : inside, at most 100",
    USE.pattern: "name of a file of yours, or package.module:function",
}
_PLAIN = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping of keys",
    "null": "null",
}
_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
_INTRODUCTION = """\
# Configuration keys

Made by `fastslow check --keys`; a test compares the two. A key without default is
required. Sections may be `null` where it says so, which turns the thing off. A word in
brackets after a key: only a section of that `kind` has it, or has it so.

`kind: custom` is a plug-in of your own, wherever a section takes it: `use` names its file, as in
`remedies/NAME.py`, or its function as `package.module:function`, and `params` are checked against
the class that the function's argument is annotated with, as the parameters of a task are, with file
and line.
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
    return tuple(_keys(_inlined(schema, schema.get("$defs", {}))))


def find_keys(
    model: type[BaseModel], path: tuple[str | int | None, ...], kinds: Container[Any] = ()
) -> list[Key]:
    """The keys that `path` is an instance of, None standing for any name.

    Of those of the `kinds` of the sections around it, as far as they are known.
    """
    keys = [k for k in model_keys(model) if len(k.pattern) == len(path) and _fits(k.pattern, path)]
    of_kinds = [key for key in keys if not key.kinds or any(kind in kinds for kind in key.kinds)]
    return of_kinds or keys


def reference() -> str:
    """The text of docs/config.md: all keys of a run, then of an ablation."""
    run, ablation = ("\n".join(_key_table(model)) for model in (RunConfig, AblationConfig))
    return f"{_INTRODUCTION}\n{run}\n{_ABLATION_FILES}\n{ablation}\n"


def words_text(words: Sequence[Any]) -> str:
    """Allowed words as a person lists them."""
    names = [repr(word) for word in words]
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def text_of(pattern: str) -> str:
    """What a text of this form looks like, in plain words."""
    return f"text ({_PATTERNS.get(pattern, f'matching {pattern}')})"


def _key_table(model: type[BaseModel]) -> Iterator[str]:
    yield "| key | type | unit | default | where the default comes from | meaning |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for key in model_keys(model):
        default = f"`{key.default}`" if key.default else ""
        name = f"`{key.name}`" + (f" ({', '.join(key.kinds)})" if key.kinds else "")
        cells = [name, key.type, key.unit or "", default, key.source, key.meaning]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _inlined(schema: Any, models: Mapping[str, Any]) -> Any:
    """A schema with every `$ref` replaced by what it names."""
    if isinstance(schema, list):
        return [_inlined(item, models) for item in schema]
    if not isinstance(schema, dict):
        return schema
    name = schema.get("$ref", "").rpartition("/")[2]
    target = models.get(name, {}) | schema
    return {key: _inlined(v, models) for key, v in target.items() if key not in ("$ref", "$defs")}


def _keys(schema: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> list[Key]:
    keys: list[Key] = []
    for name, field in schema["properties"].items():
        forms = list(_forms(field))
        sections = [item for form in forms for item in _sections(form, (*prefix, name))]
        texts = dict.fromkeys(map(_form_text, forms))
        default = "" if sections or "default" not in field else json.dumps(field["default"])
        key = Key(
            pattern=(*prefix, name),
            type=" or ".join(sorted(texts, key="null".__eq__)),  # null comes last
            unit=field.get("unit"),
            default=None if name in schema.get("required", ()) else default,
            source=field.get("source", ""),
            meaning=" ".join(field.get("description", "").split()),
            words=tuple(w for form in forms for w in _words(form) if isinstance(w, str)),
        )
        variants: defaultdict[tuple[str, ...], list[list[Key]]] = defaultdict(list)
        for path, model in sections:
            variants[path].append(_keys(model, path))
        alternatives = variants.values()  # of a section, and of an item of a list of them
        keys += [key, *chain(*(_merged(v) if len(v) > 1 else chain(*v) for v in alternatives))]
    return keys


def _merged(variants: Sequence[Sequence[Key]]) -> Iterator[Key]:
    """Keys of the variants of a section: one for all that agree, else each with its kinds."""
    forms = list(dict.fromkeys(key for keys in variants for key in keys))
    depth = min(len(key.pattern) for key in forms)
    tags = [key for key in forms if len(key.pattern) == depth and key.pattern[-1] == "kind"]
    words = tuple(word for tag in tags for word in tag.words)
    yield from (replace(tag, type=words_text(words), words=words) for tag in tags[:1])
    for key in forms:
        having = [keys for keys in variants if key in keys]
        kinds = tuple(word for keys in having for tag in tags if tag in keys for word in tag.words)
        if key not in tags:
            is_common = len(having) == len(variants)
            yield key if key.kinds or is_common else replace(key, kinds=kinds)


def _fits(pattern: tuple[str, ...], path: tuple[str | int | None, ...]) -> bool:
    return all(
        part in (name, None)
        or (name == "<i>" and isinstance(part, int))
        or (name == "<name>" and isinstance(part, str))
        for name, part in zip(pattern, path, strict=True)
    )


def _forms(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The alternatives of a schema; where a key tells them apart, each requires it."""
    if alternatives := schema.get("anyOf") or schema.get("oneOf"):
        tag = [schema["discriminator"]["propertyName"]] if "discriminator" in schema else []
        for form in (form for alternative in alternatives for form in _forms(alternative)):
            yield {**form, "required": [*form.get("required", ()), *tag]}
    else:
        yield schema


def _sections(
    form: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Objects with keys of their own that stand at `path` or in what stands there."""
    if "properties" in form:
        yield path, form
    named = [form.get("additionalProperties"), *form.get("patternProperties", {}).values()]
    for step, schema in [("<i>", form.get("items")), *(("<name>", schema) for schema in named)]:
        for item in _forms(schema) if isinstance(schema, dict) else ():
            yield from _sections(item, (*path, step))


def _words(form: Mapping[str, Any]) -> Sequence[Any]:
    return [form["const"]] if "const" in form else form.get("enum", ())


def _form_text(form: Mapping[str, Any]) -> str:
    """What a form accepts, in plain words."""
    if words := _words(form):
        return words_text(words)
    items = form.get("items", {})
    is_of_text = items.get("type") == "string" and not _words(items)
    text = _PLAIN.get(form.get("type", ""), "anything") + " of text" * is_of_text
    bounds = [f"{sign} {form[name]}" for name, sign in _BOUNDS.items() if name in form]
    text += f" {' and '.join(bounds)}" if bounds else ""
    if "pattern" in form:
        return text_of(form["pattern"])
    is_bounded = form.get("minLength") or (items and form.get("minItems"))
    return text + (", not empty" if is_bounded else "")
