"""Text from outside, made safe to print: completions, datasets, file names, model answers.

Does not escape markup (rich, Markdown, HTML); that belongs to the writer of that format.
"""

import unicodedata
from collections.abc import Sequence

NGRAM = 4
"""Tokens in a row whose return inside one completion counts as repetition."""
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories without a glyph: controls, formats (bidi), surrogates, unassigned, breaks."""


def visible(text: str) -> str:
    r"""Replace every character that could act on a terminal by its escape, e.g. `\x1b`, `\n`.

    The result is one line without control, bidirectional, invisible or surrogate characters, so
    it can neither move the cursor, nor reorder its neighbours, nor fail to be encoded.
    Backslashes stay as they are: the result is for reading, not for parsing.
    """
    if text.isprintable():  # quick, and so of nearly all text
        return text
    return "".join(
        char.encode("unicode_escape").decode("ascii")
        if unicodedata.category(char) in _HIDDEN
        else char
        for char in text
    )


def shorten(text: str, limit: int) -> str:
    """`visible(text)` cut to `limit` >= 1 characters, ending in `…` when something was left out."""
    line = visible(text[: limit + 1])  # no character becomes shorter, and a megabyte takes a second
    return line if len(line) <= limit else line[: limit - 1] + "…"


def ngram_repetition(tokens: Sequence[int]) -> float | None:
    """Share of a completion's n-grams that occur earlier in it, in [0, 1); n = `NGRAM`.

    None for a completion too short to repeat one.
    """
    ngrams = [tuple(tokens[i : i + NGRAM]) for i in range(len(tokens) - NGRAM + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if len(ngrams) > 1 else None
