"""Validation against a model; every mistake is reported at once, each where it was written."""

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from fastslow.config.loading.messages import in_words
from fastslow.config.loading.yaml_nodes import KeyPath, Mistake, Node, Origin, refuse

_DOTTED = re.compile(r"[a-z_]+(?:\.[a-z0-9_]+)+")
"""Keys named in the text of a rule."""

ModelT = TypeVar("ModelT", bound=BaseModel)


def validate(
    model: type[ModelT], root: Node, mistakes: list[Mistake], prefix: KeyPath = ()
) -> ModelT | None:
    """Check what is written against `model`, strictly: text is not a number, a number not a switch.

    Rules between keys are checked when the keys themselves are right. `prefix` is where the section
    stands in the run's configuration. None after a mistake, each of which is added to `mistakes`.
    """
    try:
        return model.model_validate_json(json.dumps(root.plain()), strict=True)
    except ValidationError as err:
        errors = err.errors(include_url=False)
    if errors[0]["type"] == "broken_rules":
        mistakes += _broken_rules(errors[0]["ctx"]["rules"], root, prefix)
        return None
    by_path: dict[KeyPath, Any] = {}
    for error in errors:
        by_path.setdefault(_written_path(error, root), error)
    # of a union's alternatives, those that got furthest
    sections = {path[:size] for path in by_path for size in range(len(path))}
    for path, error in by_path.items():
        if path in sections:
            continue
        text = in_words(error, path, root.find(path), model)
        mistakes.append(Mistake(root.origin_of(path), prefix + path, text))
    return None


def require(model: type[ModelT], root: Node) -> ModelT:
    """What `validate` returns; `ConfigError` with one line for every mistake."""
    mistakes: list[Mistake] = []
    config = validate(model, root, mistakes)
    refuse(mistakes)
    assert config is not None, "what has no mistake is valid"
    return config


def _written_path(error: Mapping[str, Any], root: Node) -> KeyPath:
    """The written path of an error, without the parts that pydantic adds for unions."""
    path: KeyPath = ()
    for part in error["loc"]:
        path = (*path, part) if root.find((*path, part)) else path
    if error["type"] == "missing":
        return (*path, error["loc"][-1])
    is_tag = error["type"] in ("union_tag_invalid", "union_tag_not_found")
    return (*path, "kind") if is_tag else path


def _broken_rules(rules: Mapping[str, str], root: Node, prefix: KeyPath) -> list[Mistake]:
    """Every rule at that of its keys which was written nearest to the user's hand."""
    mistakes = []
    for name, text in rules.items():
        dotted = [key.split(".") for key in (name, *_DOTTED.findall(text))]
        paths = [tuple(int(p) if p.isdigit() else p for p in names) for names in dotted]
        written = [path for path in dict.fromkeys(paths) if root.find(path)] or paths[:1]
        blamed = min(written, key=lambda path: _distance(root.origin_of(path), root))
        mistakes.append(Mistake(root.origin_of(blamed), prefix + blamed, text))
    return mistakes


def _distance(origin: Origin, root: Node) -> int:
    """How far from the user's hand a value was written: override, main file, extended file."""
    if origin.is_override:
        return 0
    return 1 if origin.file == root.origin.file else 2
