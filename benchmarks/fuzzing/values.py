"""Hostile values, and mutations of trees and of bytes, all drawn from a seeded generator."""

import copy
import random
from collections.abc import Iterator
from typing import Any, TypeAlias

Tree: TypeAlias = Any
"""What JSON or YAML holds."""
Place: TypeAlias = tuple[Any, Any]
"""A mapping or list of a tree, and the key or position of something in it."""

NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 7, 255, -(2**31), 2**31, 2**53 + 1, 2**63 - 1, 2**63, 10**30, 0.0, -0.0, 0.5,
    1.0, 1.5, -0.1, 1e-300, 1e308, -1e308, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
WORDS = (
    "", " ", "~", "null", "true", "yes", "on", "0", "-1", "1e999", ".inf", ".nan", "0x1f", "010",
    "1_000", "2024-01-01", "12:30:45", "=", "-", "?", ":", "{}", "[]", "!!python/object:os.system",
    "*a", "&a", "<<", "__class__", "__proto__", "__init__", "constructor", "kind", "extends",
    "../../../../etc/passwd", "/etc/passwd", "..", ".", "/", "~root", "a/../../b", "C:\\x", "\\\\h",
    "/dev/zero", "/dev/stdin", "/dev/null", "/proc/self/environ", "/proc/self/mem", "con", "a\0b",
    "os:system", "os:getcwd", "builtins:eval", "tasks.word_valence.task:word_valence", "a.b:c",
    "json:loads", "this:s", "${HOME}", "$(id)", "`id`", "{{7*7}}", "%s%n", "\x1b[2J\x1b]0;t\x07",
    "\u202eabc", "\u2028", "\ufeff", "\r", "\t", "a\nb", "\x00", "\x7f", "\x9b31m", "\ud800",
    "\U0001f600", "é", "e\u0301", "ß", "İ",
    "\uff11\uff12", "x" * 300, "a" * 5000, "sk-" + "a1B2" * 12,
    "https://user:pass1@host/?api_key=abc123def456", "file:///etc/passwd", "sqlite:////tmp/x.db",
    "openai/gpt-5", "self", "smollm2-135m-instruct", "hf-internal-testing/tiny", "name@1", "[b]",
    "word_valence", "text_classification", "reasoning_gym", "star_graph", "grpo", "sft", "gepa",
)  # fmt: skip
"""Paths out, references, markup, escapes, look-alikes, and words that mean something somewhere."""

FORMULAS = (
    "=1+1", '=HYPERLINK("http://127.0.0.1:9","x")', "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0", "@SUM(1+1)", "\t=1", "\r=1", "-", "+", "--help",
)  # fmt: skip
"""What a spreadsheet computes, and words that it must not be confused with."""
PATHS = (
    "..", ".", "/", "../outside/secret.txt", "../../outside", "/etc/passwd", "a/../../../outside/x",
    "/dev/zero", "~root", "a/b", "a\\b", "file:///etc/passwd", "",
)  # fmt: skip
"""Names that lead out of a folder."""


def hostile(draw: random.Random, depth: int = 0) -> Tree:
    """A value that nobody expects there."""
    kind = draw.randrange(10)
    if kind < 3:
        return draw.choice(NUMBERS)
    if kind < 6:
        return draw.choice(WORDS)
    if kind < 7:
        return draw.choice((None, True, False))
    if kind < 8 and depth < 3:
        return [hostile(draw, depth + 1) for _ in range(draw.choice((0, 1, 2, 5)))]
    if kind < 9 and depth < 3:
        size = draw.choice((0, 1, 2, 4))
        return {draw.choice(WORDS): hostile(draw, depth + 1) for _ in range(size)}
    return draw.choice((nested(draw), "é" * draw.choice((10, 1000, 100_000)), [0] * 2000))


def nested(draw: random.Random) -> Tree:
    """A list or mapping in itself, up to a hundred levels."""
    value: Tree = draw.choice(WORDS)
    as_list = draw.random() < 0.5
    for _ in range(draw.choice((3, 31, 32, 33, 100))):
        value = [value] if as_list else {"a": value}
    return value


def places(tree: Tree) -> Iterator[Place]:
    """Every place of a tree in which something stands."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield tree, key
            yield from places(value)


def mutate_tree(tree: Tree, draw: random.Random) -> Tree:
    """One change to a tree, in place where it has places; returns the tree."""
    found = list(places(tree))
    if not found:
        return hostile(draw)
    holder, key = draw.choice(found)
    how = draw.randrange(9)
    if how < 3:
        holder[key] = hostile(draw)
    elif how == 3:
        del holder[key]
    elif how == 4:
        other_holder, other = draw.choice(found)
        holder[key] = copy.deepcopy(other_holder[other])
    elif how == 5:
        holder[key] = draw.choice(([holder[key]], {"a": holder[key]}, str(holder[key])[:1000]))
    elif how == 6 and isinstance(holder, dict):
        holder[draw.choice((str(key) + "s", str(key).upper(), draw.choice(WORDS)))] = holder[key]
        if draw.random() < 0.5:
            del holder[key]
    elif how == 7 and isinstance(holder, list):
        holder.extend([holder[key]] * draw.choice((1, 3, 200)))
    elif isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = draw.choice((-holder[key], holder[key] * 1000, holder[key] + 0.5, 0))
    else:
        holder[key] = draw.choice(WORDS)
    return tree


def mutate_bytes(data: bytes, draw: random.Random) -> bytes:
    """One change to bytes, of the kinds that decoders and parsers fall over."""
    at = draw.randrange(len(data) + 1)
    end = min(len(data), at + draw.choice((1, 2, 8, 100)))
    how = draw.randrange(8)
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:at] + data[end:]
    if how == 2:
        return data[:at] + data[at:end] * draw.choice((2, 10, 100)) + data[end:]
    if how == 3:
        flipped = bytes(byte ^ (1 << draw.randrange(8)) for byte in data[at:end])
        return data[:at] + flipped + data[end:]
    if how == 4:
        return data[:at] + draw.randbytes(draw.choice((1, 4, 64))) + data[end:]
    if how == 5:
        other = draw.randrange(len(data) + 1)
        return data[:at] + data[other : other + 60] + data[at:]
    if how == 6:
        return data.decode("utf-8", "replace").encode(
            draw.choice(("utf-16", "utf-32", "cp037")), "replace"
        )
    return data[:at] + draw.choice(TOKENS) + data[at:]


TOKENS = (
    b"\x00", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe2\x80\xae", b"\r",
    b"\r\n", b"\t", b"\x1b[31m", b"\x0b", b"\xc2\x85", b"\xe2\x80\xa8", b"{", b"}", b"[", b"]",
    b"'", b'"',
    b": ", b"- ", b"\n", b"#", b"|", b">", b"%YAML 1.1\n---\n", b"---\n", b"...\n", b"&a ", b"*a ",
    b"!!set ", b"!!python/name:os.system ", b"<<: *a\n", b"? ", b"@", b"`", b"\\ud800", b"\\u0000",
    b"NaN", b"Infinity", b"1" * 6000, b"[" * 2000,
    b"{a: " * 200, b'{"a":' * 3000, b"," * 50,
    b"9" * 400 + b"e" + b"9" * 30,
)  # fmt: skip
"""Bytes that mean something to a decoder, to YAML, to JSON or to a terminal."""
