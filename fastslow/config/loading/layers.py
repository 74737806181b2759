"""From files and overrides to one merged tree: finding, reading, `extends`, merging.

Owns the rules of layering (style.md's in short: depth-first, later wins, mappings merge, lists
replace). Does not know which keys exist. Called by `load.py`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastslow.config.loading.yaml_nodes import (
    MAX_DEPTH,
    Mistake,
    Node,
    Origin,
    Unreadable,
    check_text,
    compose,
    plain_scalar,
    shown,
)
from fastslow.core.errors import nearest
from fastslow.core.files import open_regular
from fastslow.task.registry import shipped_root

MAX_BYTES = 1_000_000
"""Size a file may have."""
MAX_LAYERS = 64
"""Files one run may be made of, counting a file again each time it is extended."""


@dataclass
class Layers:
    """What was read, and what was wrong with it."""

    root: Node
    """The merged tree; a mapping."""
    texts: dict[str, str] = field(default_factory=dict)
    """Path as shown to the user to the file's text."""
    mistakes: list[Mistake] = field(default_factory=list)
    visits: int = 0
    """Files read so far, a file counting again each time it is extended."""
    usable: bool = True
    """False when a file is missing or unreadable, so that judging the rest would mislead."""


def read_layers(files: Sequence[Path], overrides: Sequence[str]) -> Layers:
    """Read `files` in order, each after what it extends, then apply `overrides` left to right."""
    first = Origin(_display(files[0]), 1) if files else Origin("command line")
    layers = Layers(Node({}, first))
    for path in files:
        layer = _read_file(layers, path, None, ())
        layers.root = merge(layers.root, layer) if layer else layers.root
    for text in overrides:
        override(layers, text)
    return layers


def merge(base: Node, top: Node) -> Node:
    """Lay `top` over `base`: mappings merge key by key, anything else replaces.

    Two mappings that state different `kind`s are different things, so the upper one replaces.
    """
    if not (isinstance(base.value, dict) and isinstance(top.value, dict)):
        return top
    kinds = [entries["kind"].value for entries in (base.value, top.value) if "kind" in entries]
    if len(kinds) == 2 and kinds[0] != kinds[1]:
        return top
    merged = dict(base.value)
    for name, node in top.value.items():
        merged[name] = merge(merged[name], node) if name in merged else node
    return Node(merged, top.origin)


def _find(path: Path) -> Path:
    """The file itself; for a missing `configs/...`, the copy shipped with the package."""
    parts = Path(os.path.normpath(path)).parts
    if parts[:1] != ("configs",) or path.exists():
        return path
    return shipped_root().joinpath(*parts)


def _is_name(path: Path) -> bool:
    """Whether a file could have this name; the command line and YAML let through what could not."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _display(path: Path) -> str:
    return shown(os.path.normpath(path))


def _fail(layers: Layers, mistake: Mistake) -> None:
    layers.mistakes.append(mistake)
    layers.usable = False


def _read_file(
    layers: Layers, path: Path, asked_by: Origin | None, chain: tuple[Path, ...]
) -> Node | None:
    """Read one file and what it extends; None after noting why it cannot be used."""
    if not _is_name(path):
        text = "no file can have this name. Remove the NUL or half surrogate pair from it."
        _fail(layers, Mistake(asked_by or Origin(shown(str(path))), (), text))
        return None
    found = _find(path)
    name = _display(found)
    identity = Path(os.path.realpath(found))
    here = asked_by or Origin(name, 1)
    if identity in chain:
        names = " -> ".join(_display(p) for p in _relative([*chain, identity]))
        _fail(
            layers, Mistake(here, ("extends",), f"a cycle, got {names}. Break it at one of them.")
        )
        return None
    layers.visits += 1
    if layers.visits > MAX_LAYERS:
        text = f"more than {MAX_LAYERS} files are extended. Use fewer."
        _fail(layers, Mistake(here, ("extends",), text))
        return None
    try:
        text = _read_text(found, name)
        root, mistakes = compose(text, Origin(name, 1))
    except Unreadable as err:
        _fail(layers, err.mistake)
        return None
    except OSError as err:
        place = ("extends",) if asked_by else ()
        shown_name = f" {name}" if asked_by else ""
        asked = asked_by or Origin(name)
        _fail(layers, Mistake(asked, place, f"cannot read{shown_name}: {_reason(err, found)}"))
        return None
    layers.texts[name] = text
    layers.mistakes += mistakes
    if root.refused:
        layers.usable = False
        return None
    if root.value is None:
        root = Node({}, root.origin)
    if not isinstance(root.value, dict):
        text = "expected a mapping of keys at the top, as in 'name: my-run'."
        _fail(layers, Mistake(Origin(name, 1), (), text))
        return None
    own = Node({k: v for k, v in root.value.items() if k != "extends"}, root.origin)
    below = Node({}, root.origin)
    for extended, origin in _extends(layers, root.value.get("extends")):
        layer = _read_file(layers, found.parent / extended, origin, (*chain, identity))
        below = merge(below, layer) if layer else below
    return merge(below, own)


def _extends(layers: Layers, node: Node | None) -> list[tuple[str, Origin]]:
    """The paths a file's `extends` names, with their origins."""
    if node is None or node.refused:
        return []
    items = node.value if isinstance(node.value, list) else [node]
    paths = [(item.value, item.origin) for item in items if isinstance(item.value, str)]
    if len(paths) != len(items) or any(not path for path, _ in paths):
        text = "expected a path or a list of paths, relative to this file."
        _fail(layers, Mistake(node.origin, ("extends",), text))
        return []
    return paths


def _read_text(path: Path, name: str) -> str:
    with open_regular(path) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        text = f"larger than {MAX_BYTES} bytes, too large for a configuration. Make it smaller."
        raise Unreadable(Mistake(Origin(name, 1), (), text))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        text = f"not UTF-8 text, got byte 0x{data[err.start]:02x}. Save the file as UTF-8."
        raise Unreadable(Mistake(Origin(name, line), (), text)) from err


def _reason(err: OSError, path: Path) -> str:
    if isinstance(err, FileNotFoundError):
        try:
            siblings = [p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".json")]
        except OSError:
            return "no such file, and no such folder."
        return f"no such file.{nearest(path.name, siblings)}"
    return f"{err.strerror}."


def _relative(paths: list[Path]) -> list[Path]:
    return [Path(os.path.relpath(path)) for path in paths]


def override(layers: Layers, text: str) -> None:
    """Lay one `key=value` over the tree, or note why that cannot be done."""
    origin = Origin(f"override {text!r}")
    name, equals, written = text.partition("=")
    parts = name.strip().split(".")
    written = written.strip()
    problem = None
    if not equals or not all(parts) or len(parts) > MAX_DEPTH:
        problem = "expected key=value, as in slow.lr=1e-4."
    elif not written:
        problem = "no value. Write null for none, or '\"\"' for empty text."
    if problem:
        layers.mistakes.append(Mistake(origin, (), problem))
        return
    try:
        value = _override_value(layers, written, origin)
        layers.root = _placed(layers.root, parts, value, origin)
    except (ValueError, Unreadable) as err:
        mistake = err.mistake if isinstance(err, Unreadable) else Mistake(origin, (), f"{err}.")
        layers.mistakes.append(mistake)


def _override_value(layers: Layers, written: str, origin: Origin) -> Node:
    """Flow YAML if it opens like it, otherwise one plain word: paths and sentences stay whole."""
    if written[0] not in "[{\"'":
        return Node(plain_scalar(check_text(written)), origin)
    node, mistakes = compose(written, origin)
    layers.mistakes += mistakes
    return node


def _placed(node: Node, parts: Sequence[str], value: Node, origin: Origin) -> Node:
    """`node` with `value` merged in at the dotted path `parts`."""
    if not parts:
        return merge(node, value)
    part, rest = parts[0], parts[1:]
    if isinstance(node.value, list):
        size = len(node.value)
        if not (part.isascii() and part.isdigit() and int(part[:9]) < size):
            raise ValueError(f"expected a position from 0 to {size - 1} in the list, got {part!r}")
        items = list(node.value)
        items[int(part)] = _placed(items[int(part)], rest, value, origin)
        return Node(items, node.origin)
    is_mapping = isinstance(node.value, dict)
    if not rest:
        inner = value
    else:
        below = node.value.get(part) if isinstance(node.value, dict) else None
        inner = _placed(below or Node({}, origin), rest, value, origin)
    merged = merge(node, Node({part: inner}, origin))
    return Node(merged.value, node.origin if is_mapping else origin)
