r"""Graders: pure functions from an example and a completion to a `Grade`.

They never raise, whatever the completion holds, and their reason is one sentence that teaches: it
is what prompt evolution reads. A task whose answers need more writes its own in its `task.py`.
"""

import re
from decimal import Decimal

from fastslow.core.text import shorten
from fastslow.core.types import Example, Grade

CORRECT = "correct"
"""The reason that goes with full marks."""
BOX = r"\boxed{"
"""Opens the answer that `boxed_match` reads."""

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\d))?", re.ASCII)
_QUOTE_CHARS = 60


def exact_match(example: Example, text: str) -> Grade:
    """Score 1 if `text` is the gold answer and nothing else, 0 otherwise.

    White space around both and one full stop at their end do not count; capitals do, since the
    answer convention is part of what a task asks.
    """
    wrote, gold = _bare(text), _bare(example.answer)
    if wrote == gold:
        return Grade(1.0, CORRECT)
    if not wrote:
        return Grade(0.0, f"Nothing was written; the answer is {quote(gold)}.")
    if wrote.casefold() == gold.casefold():
        return Grade(0.0, f"Write {quote(gold)} with exactly these capitals, not {quote(wrote)}.")
    if re.search(rf"(?<!\w){re.escape(gold)}(?!\w)", wrote):
        return Grade(0.0, f"Write {quote(gold)} alone, without other words: {quote(wrote)}.")
    return Grade(0.0, f"The answer is {quote(gold)}, not {quote(wrote)}.")


def numeric(example: Example, text: str) -> Grade:
    """Score 1 if the last number in `text` equals the gold answer's last number, 0 otherwise.

    Only what follows the last `####` counts when there is one. Thousands may be parted by commas;
    3, 3.0 and 3e0 are equal; there is no tolerance.
    """
    wrote, gold = _last_number(text), _last_number(example.answer)
    if gold is None:
        return Grade(0.0, f"The gold answer {quote(example.answer)} holds no number.")
    if wrote is None:
        return Grade(0.0, f"Write the result as a number; it is {quote(example.answer)}.")
    if wrote == gold:
        return Grade(1.0, CORRECT)
    return Grade(0.0, f"The result is {quote(example.answer)}, not {quote(str(wrote))}.")


def boxed_match(example: Example, text: str) -> Grade:
    r"""Score 1 if the last `\boxed{...}` of `text` holds what the gold answer's does, 0 otherwise.

    White space inside does not count; braces inside are not supported.
    """
    wrote, gold = _last_boxed(text), _last_boxed(example.answer)
    if gold is None:
        return Grade(0.0, f"The gold answer {quote(example.answer)} holds no box.")
    if wrote is None:
        return Grade(0.0, f"Put the answer in a box: {quote(example.answer)}.")
    if wrote == gold:
        return Grade(1.0, CORRECT)
    return Grade(0.0, f"The box should hold {quote(gold)}, not {quote(wrote)}.")


def reasoning(text: str) -> str:
    """What a completion for `boxed_match` says before its answer; all of it where it has none."""
    before, box, rest = text.rpartition(BOX)
    return (before if box else rest).strip()


def quote(text: str) -> str:
    """`text` in quotes for a message: one printable line of at most 60 characters."""
    return f'"{shorten(text, _QUOTE_CHARS)}"'


def _bare(text: str) -> str:
    return text.strip().removesuffix(".").rstrip()


def _last_number(text: str) -> Decimal | None:
    numbers: list[str] = _NUMBER.findall(text.rpartition("####")[2])
    return Decimal(numbers[-1].replace(",", "")) if numbers else None


def _last_boxed(text: str) -> str | None:
    _, box, rest = text.rpartition(BOX)
    inside, brace, _ = rest.partition("}")
    return "".join(inside.split()) if box and brace else None
