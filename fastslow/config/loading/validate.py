"""Validation that reports every mistake at once, each where it was written.

Pydantic does not run rules between keys while a key is wrong. So: validate, note what is wrong,
leave those values out, and validate again until nothing new appears. Called by `load.py`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from fastslow.config.loading.messages import in_words
from fastslow.config.loading.yaml_nodes import KeyPath, Mistake, Node, Origin

STAND_INS: Mapping[str, Any] = {
    "name": "stand-in",
    "stages": [{"task": "stand-in"}],
    "task": "stand-in",
}
"""Values that take the place of required keys while the rest is checked."""

_DOTTED = re.compile(r"[a-z_]+(?:\.[a-z0-9_]+)+")
"""Keys named in the text of a rule."""

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass
class Tree:
    """A written tree with the values that were found wrong left out."""

    root: Node
    prefix: KeyPath = ()
    """Where the tree stands in the run's configuration."""
    left_out: set[KeyPath] = field(default_factory=set)
    put_in: dict[KeyPath, Any] = field(default_factory=dict)
    """Values used where nothing is written: stand-ins, and defaults that are known only now."""

    def plain(self, node: Node | None = None, path: KeyPath = ()) -> Any:
        """Plain data: what is written, without what is left out, with what is put in."""
        node = node or self.root
        if isinstance(node.value, list):
            return [
                self.plain(item, (*path, i))
                for i, item in enumerate(node.value)
                if (*path, i) not in self.left_out
            ]
        if not isinstance(node.value, dict):
            return node.value
        added = {p[-1]: value for p, value in self.put_in.items() if p[:-1] == path}
        written = {
            name: self.plain(item, (*path, name))
            for name, item in node.value.items()
            if (*path, name) not in self.left_out
        }
        return written | added

    def position(self, path: KeyPath, index: int) -> int:
        """Written position of the `index`-th entry that is left in the list at `path`."""
        node = self.find(path)
        size = len(node.value) if node and isinstance(node.value, list) else 0
        kept = [i for i in range(size) if (*path, i) not in self.left_out]
        return kept[index] if index < len(kept) else index

    def path_of(self, loc: KeyPath, missing: bool) -> KeyPath:
        """The written path of a pydantic location.

        Parts that pydantic adds for unions are dropped; the last part of a missing key is kept.
        """
        path: KeyPath = ()
        for number, part in enumerate(loc, start=1):
            step = (*path, self.position(path, part) if isinstance(part, int) else part)
            if self.find(step) or (missing and number == len(loc)):
                path = step
        return path

    def find(self, path: KeyPath) -> Node | None:
        """What is written at `path`."""
        node = self.root
        for part in path:
            if isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
            elif isinstance(node.value, dict) and part in node.value:
                node = node.value[str(part)]
            else:
                return None
        return node

    def origin(self, path: KeyPath) -> Origin:
        """Where `path` is written, or the nearest section around it that is."""
        while (node := self.find(path)) is None:
            path = path[:-1]
        return node.origin


def validate(model: type[ModelT], tree: Tree, mistakes: list[Mistake]) -> ModelT | None:
    """Check `tree` against `model`, strictly: text is no number, a number is no switch.

    Args:
        model: The model class.
        tree: What was written; what turns out wrong is added to `tree.left_out`.
        mistakes: Receives every mistake found.

    Returns:
        The model, with defaults in the place of whatever was wrong; None when a rule between
        keys is broken, or when a value is wrong that nothing can stand in for.
    """
    tree.left_out.update(_refused_paths(tree.root))
    reported = set(tree.left_out)
    while True:
        try:
            return model.model_validate_json(json.dumps(tree.plain()), strict=True)
        except ValidationError as err:
            errors = err.errors(include_url=False)
        if errors[0]["type"] == "broken_rules":
            mistakes += _broken_rules(errors[0]["ctx"]["rules"], tree)
            return None
        found = _by_path(errors, tree)
        for path, error in found.items():
            if path not in reported and not _only_left_out(path, error, tree):
                text = in_words(error, path, tree.find(path), model)
                mistakes.append(Mistake(tree.origin(path), tree.prefix + path, text))
        reported |= set(found)
        progress = [_leave_out(path, error, tree) for path, error in found.items()]
        if not any(progress):
            return None


def _by_path(errors: Sequence[Any], tree: Tree) -> dict[KeyPath, Any]:
    """One error per written path; of a union's alternatives, those that got furthest.

    Pydantic calls a list too short when all its entries are wrong: only the entries count then.
    """
    found: dict[KeyPath, Any] = {}
    shallow: set[KeyPath] = set()
    for error in errors:
        path = tree.path_of(error["loc"], error["type"] == "missing")
        is_tagged = len(path) < len(error["loc"]) and error["loc"][-1] != "[key]"
        if is_tagged or error["type"] == "too_short":
            shallow.add(path)
        found.setdefault(path, error)
    inner = {path[:size] for path in found for size in range(len(path))}
    return {path: error for path, error in found.items() if path not in shallow & inner}


def _only_left_out(path: KeyPath, error: Any, tree: Tree) -> bool:
    """Whether a list is too short only because its entries were left out."""
    return error["type"] == "too_short" and any(p[:-1] == path for p in tree.left_out)


def _leave_out(path: KeyPath, error: Any, tree: Tree) -> bool:
    """Make the next round ignore what stands at `path`; False if nothing can be done."""
    if error["type"] == "missing":
        if path in tree.put_in or path[-1] not in STAND_INS:
            return False
        tree.put_in[path] = STAND_INS[str(path[-1])]
        return True
    if not path or path in tree.left_out:
        return False
    tree.left_out.add(path)
    tree.put_in.pop(path, None)
    return True


def _broken_rules(rules: Mapping[str, str], tree: Tree) -> list[Mistake]:
    """Rules between keys, without those that only a left-out value seems to break."""
    mistakes = []
    for name, text in rules.items():
        keys = [_rule_key(key, tree) for key in (name, *_DOTTED.findall(text))]
        if not any(key in tree.left_out or key in tree.put_in for key in keys):
            written = [key for key in dict.fromkeys(keys) if tree.find(key)] or keys[:1]
            blamed = min(written, key=lambda key: _distance(tree.origin(key), tree))
            mistakes.append(Mistake(tree.origin(blamed), tree.prefix + blamed, text))
    return mistakes


def _distance(origin: Origin, tree: Tree) -> int:
    """How far from the user's hand a value was written: override, main file, extended file."""
    if origin.is_override:
        return 0
    return 1 if origin.file == tree.root.origin.file else 2


def _rule_key(name: str, tree: Tree) -> KeyPath:
    path: KeyPath = ()
    for part in name.split("."):
        path = (*path, tree.position(path, int(part)) if part.isdigit() else part)
    return path


def _refused_paths(node: Node, path: KeyPath = ()) -> list[KeyPath]:
    """Paths of the values that were reported while reading."""
    if node.refused:
        return [path]
    if isinstance(node.value, dict):
        return [p for name, item in node.value.items() for p in _refused_paths(item, (*path, name))]
    if isinstance(node.value, list):
        return [p for i, item in enumerate(node.value) for p in _refused_paths(item, (*path, i))]
    return []
