"""Questions with reference answers from your own files or a hub dataset: maths, physics, TRACE."""

import importlib.util
import logging
import os
import re
from collections.abc import Callable, Mapping
from difflib import SequenceMatcher
from functools import cache, partial
from math import isclose
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from fastslow.core.errors import TaskError
from fastslow.core.types import Example, Grade
from fastslow.task.data_config import DataConfig
from fastslow.task.definition import Grader, Task, task
from fastslow.task.graders import BOX, CORRECT, exact_match, numeric, quote
from fastslow.task.labelled import Labelled, cluster_of, without_copies
from fastslow.task.problems import quoted, read_items, text_of
from fastslow.task.table_files import Row

MAX_FORMULA_CHARS = 300
"""Longer answers are no formula and score 0 unread. Ours."""
COMPARING_S = 3
"""Seconds of computing for one answer, below `graders.timeout_s`. Ours."""
COMPARING_BYTES = 2 << 30
"""Memory for one answer, beside what the process holds that grades. Ours."""
_TYPICAL = (r"\frac{1}{2}", r"(x+1)^2", r"2\sqrt{3}", r"9.8\ \mathrm{m}", r"\{1, 2\}", r"x = \pi")
"""Formulas that are read once, so that the reader has its tables before it is forked."""

_SETTLED = re.compile(r"(?i:answer)\W+(?:(?i:is)\W+)?(?=[(\[]?[A-Z](?![A-Za-z]))")
_LETTER = re.compile(r"\W*([A-Z])(?![A-Za-z'\u2019])")
_EXPONENT = re.compile(r"(?<=[\d.])[eE]([+-]?\d+)\b")

GraderName = Literal["exact_match", "numeric", "letter", "math", "rouge_l", "edit_similarity"]


class QuestionAnswering(DataConfig):
    """Parameters of `question_answering`."""

    question_column: str = Field("question", min_length=1)
    """Column that holds the question; `a.b` is field b of column a."""
    answer_column: str = Field("answer", min_length=1)
    """Column that holds the reference answer. With `math`, what follows its last `####` or stands
    in its last box counts, as in GSM8K and MATH."""
    choices_column: str | None = None
    """Column with the options of a question: a list of texts, or `{text: [...], label: [...]}`;
    they are put behind it, each with its letter. A question without any stays as it is."""
    cluster_column: str | None = None
    """Column that names the source that several rows share: intervals then count sources."""
    grader: GraderName = "exact_match"
    r"""`exact_match`: the answer alone. `numeric`: its last number. `letter`: the letter of an
    option. `math`: a formula or number in `\boxed{}`, by math-verify. `rouge_l`: words in the
    same order, F1. `edit_similarity`: share of characters that agree."""
    tolerance: NonNegativeFloat = 0.0
    """With `math`: numbers are equal if they differ by no more than this share of the larger."""
    max_chars: PositiveInt = 8000
    """Longer questions are cut to this many characters, and marked `cut` in their metadata."""
    instruction: str = "Answer the question."
    """The seed text."""
    max_tokens: PositiveInt = 64
    """Limit of one completion, in tokens; must hold the longest answer, reasoning included."""

    @property
    def variant(self) -> str:
        """The grader, so that scores by different ones are never compared."""
        grader = "" if self.grader == "exact_match" else f"+{self.grader}"
        return grader + (f"+{self.tolerance:g}" if self.tolerance else "")

    def item(self, row: Row) -> Labelled:
        """The question of a row with its answer, written as the grader wants it.

        Raises:
            TaskError: It has none, its place first.
        """
        text = text_of(row, self.question_column, "question_column") + self._options(row)
        answer = text_of(row, self.answer_column, "answer_column")
        if self.grader == "math":
            answer = f"{BOX}{formula_in(answer)}}}"
        elif self.grader == "letter" and letter_in(answer) is None:
            raise TaskError(
                f"{row.where}: column {self.answer_column!r} should begin with the letter of an "
                f"option, got {quoted(answer)}. Correct the row, or take another grader."
            )
        cluster = cluster_of(row, self.cluster_column)
        return Labelled(text[: self.max_chars].rstrip(), answer, row.where, len(text), cluster)

    def _options(self, row: Row) -> str:
        if self.choices_column is None:
            return ""
        choices = row.value(self.choices_column, "choices_column")
        texts, labels = choices or [], None
        if isinstance(choices, Mapping):
            texts, labels = choices.get("text") or [], choices.get("label") or []
        if isinstance(texts, list) and labels is None:
            labels = list(ascii_uppercase[: len(texts)])
        if not isinstance(texts, list) or not isinstance(labels, list) or len(labels) != len(texts):
            raise TaskError(
                f"{row.where}: column {self.choices_column!r} should hold a list of options, or "
                f"lists `text` and `label` of equal length, got {quoted(choices)}. Correct the row."
            )
        lines = zip(labels, texts, strict=True)
        return "".join(f"\n{label}. {text}" for label, text in lines)


@task(
    name="question_answering",
    version=1,
    source="the files or hub dataset named by `data`",
)
def question_answering(config: QuestionAnswering) -> Task:
    """Answer to a question, held against a reference. Score in [0, 1], higher is better.

    1 or 0, but for `rouge_l` and `edit_similarity`, which give the share that is right.
    """
    if config.grader == "math" and importlib.util.find_spec("math_verify") is None:
        raise TaskError(
            "task question_answering: grader: math needs the package math-verify, which is not "
            "installed. Install it with: pip install 'fastslow[math]'"
        )
    if config.grader == "math" and not hasattr(os, "fork"):
        raise TaskError(
            "task question_answering: grader: math compares formulas in processes of their own, "
            "which need a Unix system. Use another grader here."
        )
    items, notes = read_items(config.tables("question_answering"), config.item)
    splits = config.carved(without_copies(items, notes))
    if cut := sum(item.is_cut for members in items.values() for item in members):
        notes.append(f"{cut:,} questions cut to max_chars = {config.max_chars:,} characters.")
    graders: dict[GraderName, Grader] = {
        "exact_match": exact_match,
        "numeric": numeric,
        "letter": letter,
        "math": partial(same_formula, tolerance=config.tolerance),
        "rouge_l": rouge_l,
        "edit_similarity": edit_similarity,
    }
    return Task(
        *config.examples(splits, items),
        instruction=config.instruction,
        grade=graders[config.grader],
        max_tokens=config.max_tokens,
        notes=tuple(notes),
    )


def letter(example: Example, text: str) -> Grade:
    """Score 1 if the option that `text` settles on is the gold answer's, 0 otherwise.

    That is the letter in its last box, else behind the last "answer is", else at its beginning.
    """
    wrote, gold = letter_in(text), letter_in(example.answer)
    if wrote is None:
        return Grade(0.0, f"Give the letter of an option; it is {gold}.")
    return (
        Grade(1.0, CORRECT) if wrote == gold else Grade(0.0, f"The answer is {gold}, not {wrote}.")
    )


def letter_in(text: str) -> str | None:
    """The letter of an option that a text settles on, see `letter`; None if there is none."""
    _, box, rest = text.rpartition(BOX)
    if not box and (ends := [match.end() for match in _SETTLED.finditer(text)]):
        rest = text[ends[-1] :]
    first = _LETTER.match(rest)
    return first[1] if first else None


def rouge_l(example: Example, text: str) -> Grade:
    """ROUGE-L: F1 of the longest sequence of words that both have in this order, in [0, 1].

    Source: Lin 2004. Capitals do not count, and words are what white space parts.
    """
    wrote, gold = text.casefold().split(), example.answer.casefold().split()
    lengths = [0] * (len(gold) + 1)  # longest common sequence with each beginning of gold
    for word in wrote[: 4 * len(gold) + 100]:
        corner = 0
        for i, gold_word in enumerate(gold, start=1):
            above = lengths[i]
            lengths[i] = corner + 1 if word == gold_word else max(above, lengths[i - 1])
            corner = above
    score = 2 * lengths[-1] / (len(wrote) + len(gold)) if wrote else 0.0
    return _partial_grade(score, example)


def edit_similarity(example: Example, text: str) -> Grade:
    """Twice the characters in matching blocks, over those of both texts, in [0, 1].

    TRACE takes `fuzz.ratio` for Py150, which is this in percent.
    """
    wrote = text.strip()[: 4 * len(example.answer) + 100]
    score = SequenceMatcher(None, wrote, example.answer.strip(), autojunk=False).ratio()
    return _partial_grade(score, example)


def _partial_grade(score: float, example: Example) -> Grade:
    if score == 1:
        return Grade(1.0, CORRECT)
    return Grade(score, f"{score:.0%} like the reference, {quote(example.answer)}.")


def same_formula(example: Example, text: str, tolerance: float) -> Grade:
    r"""Score 1 if the last `\boxed{...}` of `text` equals the gold answer's, 0 otherwise.

    By math-verify, which takes 1/2, 0.5 and \frac{1}{2} for the same, and leaves units aside. Text
    is parsed as LaTeX, never run. Formulas that take too long to compute, as towers of powers,
    score 0 unless they are written as the gold answer is.
    """
    wrote, gold = formula_in(text), formula_in(example.answer)
    if not wrote:
        return Grade(0.0, f"Put the answer in {BOX}}}; it is {quote(gold)}.")
    if "".join(wrote.split()) == "".join(gold.split()):
        return Grade(1.0, CORRECT)
    if len(wrote) <= MAX_FORMULA_CHARS and _is_equal(gold, wrote, tolerance):
        return Grade(1.0, CORRECT)
    return Grade(0.0, f"The answer is {quote(gold)}, not {quote(wrote)}.")


def formula_in(text: str) -> str:
    """The answer that a text gives: its last box, else behind the last `####`, else all of it."""
    _, box, rest = text.rpartition(BOX)
    if not box:
        return rest.rpartition("####")[2].strip()
    depth = 1
    for place, char in enumerate(rest):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if depth == 0:
            return rest[:place].strip()
    return rest.strip()


def _is_equal(gold: str, wrote: str, tolerance: float) -> bool:
    """Whether two formulas are equal, found out in a process that ends when it takes too much.

    No limit within a process reaches into the product of two numbers of a billion digits.
    """
    import resource

    _reader()
    verdict, to_verdict = os.pipe()
    if (child := os.fork()) == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (COMPARING_S, COMPARING_S))
            most = _data_bytes() + COMPARING_BYTES
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
            os.write(to_verdict, b"equal" if _has_same_value(gold, wrote, tolerance) else b"")
        finally:
            os._exit(0)
    os.close(to_verdict)
    with os.fdopen(verdict, "rb") as pipe:
        is_equal = pipe.read() == b"equal"
    os.waitpid(child, 0)
    return is_equal


def _data_bytes() -> int:
    """What this process holds in memory of its own; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _has_same_value(gold: str, wrote: str, tolerance: float) -> bool:
    from math_verify import verify

    first, second = _reader()(gold), _reader()(wrote)
    if verify(first, second, timeout_seconds=None):
        return True
    numbers = [_number(formula) for formula in (first, second)] if tolerance else [None]
    return None not in numbers and isclose(*numbers, rel_tol=tolerance)


@cache
def _reader() -> Callable[[str], list[Any]]:
    """What turns LaTeX into formulas of SymPy."""
    from math_verify import LatexExtractionConfig, parse

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # the limits are ours

    def read(text: str) -> list[Any]:
        latex = _EXPONENT.sub(r" \\cdot 10^{\1}", text.strip("$"))
        formulas: list[Any] = parse(
            f"${latex}$",
            extraction_config=[LatexExtractionConfig()],
            fallback_mode="no_fallback",
            parsing_timeout=None,
        )
        return formulas

    for text in _TYPICAL:
        read(text)
    return read


def _number(formulas: list[Any]) -> float | None:
    """The value of what a text was read as, if it is a real number."""
    value: Any = formulas[0] if formulas else None
    value = getattr(value, "rhs", value)  # x = 3 is 3
    try:
        return float(value) if getattr(value, "is_number", False) else None
    except (TypeError, ValueError, OverflowError):
        return None
