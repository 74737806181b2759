"""YAML text to a tree in which every value knows where it was written.

Owns the dialect: YAML 1.2 words and numbers, one document, no anchors, aliases, tags, merge keys
or duplicate keys. Does not know what the keys mean.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from fastslow.core.errors import ConfigError

MAX_DEPTH = 32
"""Levels of nesting a file may have."""

Scalar: TypeAlias = bool | int | float | str | None
KeyPath: TypeAlias = tuple[str | int, ...]

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LARGEST = 2**63
_NO_KEYS = {
    "<<": "merge keys (<<) are refused. Put the shared part in a file and extend it.",
    "": "a key is empty. Write a word before the colon.",
}


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Where a value was written."""

    file: str
    """Path as shown to the user, or the override in words."""
    line: int = 0
    """Line in the file, from 1; 0 for overrides, which have none."""

    @property
    def is_override(self) -> bool:
        """Whether it came from the command line."""
        return self.line == 0

    def at_line(self, line: int) -> "Origin":
        """The same file at another line; overrides have none."""
        return self if self.is_override else Origin(self.file, line)

    def __str__(self) -> str:
        return self.file if self.is_override else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its origin; a value in a mapping has the line of its key."""

    value: "Scalar | dict[str, Node] | list[Node]"
    origin: Origin

    def find(self, path: KeyPath) -> "Node | None":
        """The value written at `path`."""
        node = self
        for part in path:
            if isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
            elif isinstance(node.value, dict) and part in node.value:
                node = node.value[str(part)]
            else:
                return None
        return node

    def origin_of(self, path: KeyPath) -> Origin:
        """Where `path` is written, or the nearest section around it that is."""
        while (node := self.find(path)) is None:
            path = path[:-1]
        return node.origin

    def plain(self) -> Any:
        """The values alone, as lists, mappings and scalars."""
        if isinstance(self.value, dict):
            return {name: node.plain() for name, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value


class Mistake(Exception):
    """One line of a configuration error. Raised where it leaves a text without usable content."""

    def __init__(self, origin: Origin, path: KeyPath, text: str) -> None:
        super().__init__(origin, path, text)
        self.origin, self.path, self.text = origin, path, text

    def __str__(self) -> str:
        places = (str(self.origin), shown_path(self.path)) if self.path else (str(self.origin),)
        return ": ".join([*map(cut, places), self.text])


def refuse(mistakes: Sequence[Mistake]) -> None:
    """Say what is wrong, if anything is.

    Raises:
        ConfigError: One line for every mistake: by file and line, overrides last.
    """
    if mistakes:
        ordered = sorted(mistakes, key=lambda m: (m.origin.is_override, m.origin))
        raise ConfigError("\n".join(map(str, ordered)))


def cut(text: str, limit: int = 200) -> str:
    """The text, its middle left out if it has more than `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 40]}...{text[-37:]}"


def printable(text: str) -> str:
    """The text itself if it is safe to print on one line, otherwise quoted with escapes."""
    return text if text.isprintable() and text else repr(text)


def shown_path(path: KeyPath) -> str:
    """A key path in dotted form, as overrides write it."""
    return ".".join(printable(str(part)) for part in path)


def compose(text: str, origin: Origin) -> Node:
    """Read one YAML document; an empty one is null. `origin` is that of its first line.

    Raises:
        Mistake: It is not YAML, or not of this dialect.
    """
    composer = _Composer(text, origin)
    try:
        return composer.document()
    except yaml.MarkedYAMLError as err:
        place = composer.place(err.problem_mark) if err.problem_mark else origin
        words = f"{err.context or ''} {err.problem or ''}".split()
        problem = f"{' '.join(words)}. Correct this line"
    except yaml.reader.ReaderError as err:
        place = origin.at_line(text.count("\n", 0, err.position) + 1)
        problem = f"the character {chr(err.character)!r} is not allowed. Remove it"
    except (ValueError, OverflowError) as err:  # PyYAML lets escapes such as "\UFFFFFFFF" through
        place, problem = origin, str(err)
    raise Mistake(place, (), f"not valid YAML: {problem}.")


def plain_scalar(text: str) -> Scalar:
    """What an unquoted word means: null, true, false, a decimal number, or else the text itself.

    `no`, `on`, `010`, `0x1f`, `1_000` and `.inf` are text, `1e-4` is a number.

    Raises:
        ValueError: A number too large to be meant.

    Source: YAML 1.2.2, core schema, section 10.3.2; without octal, hexadecimal, infinity, not-a-
        number and leading zeros, which are more often mistakes than meant.
    """
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= 40 and (_INTEGER.fullmatch(text) or _FLOAT.fullmatch(text)):
        number = int(text) if _INTEGER.fullmatch(text) else float(text)
        if math.isinf(number) or (isinstance(number, int) and abs(number) >= _LARGEST):
            raise ValueError(f"the number {text} is too large, the limit is 2**63. Write less")
        return number
    return text


def check_text(text: str) -> str:
    r"""Join escaped surrogate pairs, as JSON writes them, and refuse what no file can hold.

    Raises:
        ValueError: A NUL character, or half of a surrogate pair.
    """
    if "\0" in text:
        raise ValueError("text holds a NUL character. Remove it")
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as err:
        raise ValueError("text holds half of a surrogate pair. Remove it") from err


class _Composer:
    """Builds the tree from PyYAML's events, which carry anchors, tags and positions."""

    def __init__(self, text: str, origin: Origin) -> None:
        self.events: Iterator[Any] = yaml.parse(text, Loader=yaml.SafeLoader)
        self.origin = origin

    def place(self, mark: Any) -> Origin:
        """Origin of a place in the text; PyYAML counts lines from 0."""
        return self.origin.at_line(mark.line + 1)

    def document(self) -> Node:
        root = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    text = "a second document starts here, expected one. Remove the '---' line."
                    raise Mistake(self.place(event.start_mark), (), text)
                root = self.node(next(self.events), self.origin, ())
        return root or Node(None, self.origin)

    def node(self, event: Any, origin: Origin, path: KeyPath) -> Node:
        """The value that begins with `event`."""
        refusal = _refusal(event)
        if len(path) > MAX_DEPTH:
            path, refusal = (), f"nested deeper than {MAX_DEPTH} levels. Flatten it."
        if refusal:
            raise Mistake(origin, path, refusal)
        if isinstance(event, yaml.MappingStartEvent):
            return Node(self.mapping(path), origin)
        if isinstance(event, yaml.SequenceStartEvent):
            return Node(self.sequence(path), origin)
        try:
            text = check_text(event.value)
            return Node(plain_scalar(text) if event.style is None else text, origin)
        except ValueError as err:
            raise Mistake(origin, path, f"{err}.") from err

    def sequence(self, path: KeyPath) -> list[Node]:
        items: list[Node] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, self.place(event.start_mark), (*path, len(items))))
        return items

    def mapping(self, path: KeyPath) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            origin = self.place(event.start_mark)
            name = self.key(event, origin, path)
            if name in entries:
                line = entries[name].origin.line
                place = f" on line {line}" if line else ""
                text = f"duplicate key, it is set already{place}. Keep one of the two."
                raise Mistake(origin, (*path, name), text)
            entries[name] = self.node(next(self.events), origin, (*path, name))
        return entries

    def key(self, event: Any, origin: Origin, path: KeyPath) -> str:
        refusal = _refusal(event)
        if refusal is None and not isinstance(event, yaml.ScalarEvent):
            refusal = "a key must be a word, got a mapping or a list. Write a word."
        if refusal:
            raise Mistake(origin, path, refusal)
        if event.value in _NO_KEYS:
            raise Mistake(origin, path, _NO_KEYS[event.value])
        try:
            return check_text(event.value)
        except ValueError as err:
            raise Mistake(origin, path, f"{err}.") from err


def _refusal(event: Any) -> str | None:
    if isinstance(event, yaml.AliasEvent):
        return f"aliases are refused, got '*{event.anchor}'. Write the value out."
    if event.anchor is not None:
        return f"anchors are refused, got '&{event.anchor}'. Write the value where it is used."
    if getattr(event, "tag", None) is not None:
        return f"tags are refused, got {event.tag!r}. Write the value alone; quotes make it text."
    return None
