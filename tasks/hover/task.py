"""Claims of HoVer, whose verdict hangs on up to four Wikipedia articles."""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import PositiveInt, model_validator

from fastslow.core.errors import TaskError
from fastslow.core.types import Example, Grade
from fastslow.task.choices import ChoiceConfig
from fastslow.task.data_config import DataConfig
from fastslow.task.definition import Task, task
from fastslow.task.graders import CORRECT, quote
from fastslow.task.labelled import Labelled, class_notes, without_copies
from fastslow.task.problems import quoted, read_items, text_of
from fastslow.task.table_files import Row, Table

LABELS = ("NOT_SUPPORTED", "SUPPORTED")
"""In the order of their codes on the hub."""
MAX_TITLES = 10
"""Titles of an answer that are read: one who lists half of Wikipedia knows nothing. Ours."""

_MARK = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s*")
_WORD = re.compile(r"[^\W_]+")


class Hover(ChoiceConfig, DataConfig):
    """Parameters of `hover`. `options` and `grader` are those of `ask: label`."""

    ask: Literal["label", "articles"] = "label"
    """What is asked for: whether the claim is supported, or the articles that it takes to know."""
    max_tokens: PositiveInt = 12
    """Limit of one completion, in tokens; titles and reasoning need more."""

    @model_validator(mode="after")
    def _choices_fit(self) -> "Hover":
        if self.ask == "articles" and (self.options, self.grader) != ("hidden", "exact_match"):
            raise ValueError(
                "options and grader are about labels, but ask is articles. Remove them, or set "
                "ask to label."
            )
        return self

    @property
    def variant(self) -> str:
        """Articles are another question than the label."""
        return "+articles" if self.ask == "articles" else super().variant

    def item(self, row: Row) -> Labelled:
        """The claim of a row with its label or its articles.

        Raises:
            TaskError: It has none, its place first.
        """
        claim = text_of(row, "claim")
        answer = _label(row) if self.ask == "label" else "\n".join(_titles(row))
        return Labelled(claim, answer, row.where, len(claim))


@task(
    name="hover",
    version=1,
    source="HoVer, arXiv 2011.03088 (CC BY-SA 4.0), in the files or hub dataset named by `data`",
)
def hover(config: Hover) -> Task:
    """Label of a claim, or the articles that it takes. Score in [0, 1], higher is better.

    The articles count as named if every one is among the first ten lines of the answer.
    """
    items, notes = read_items(config.tables("hover", _hand_over), config.item)
    splits = config.carved(without_copies(items, notes))
    parts = config.examples(splits, items)
    if config.ask == "articles":
        return Task(
            *parts,
            instruction="Name the Wikipedia articles that it takes to verify the claim.",
            grade=names_articles,
            max_tokens=config.max_tokens,
            notes=tuple(notes),
        )
    return Task(
        *parts,
        instruction=config.instructed("Is the claim supported by Wikipedia?", LABELS),
        grade=config.grader_of(LABELS),
        max_tokens=config.max_tokens,
        notes=(*notes, *class_notes(splits, LABELS)),
    )


def names_articles(example: Example, text: str) -> Grade:
    """Score 1 if every title of the answer is a line of its own among the first ten, 0 otherwise.

    Capitals, punctuation and marks of a list do not count.
    """
    titles = example.answer.split("\n")
    lines = {_words(line) for line in _lines(text)}
    missing = [title for title in titles if _words(title) not in lines]
    if not missing:
        return Grade(1.0, CORRECT)
    right = len(titles) - len(missing)
    return Grade(
        0.0,
        f"{right} of {len(titles)} articles are named, each title on a line of its own, "
        f"{MAX_TITLES} lines at most; {quote(missing[0])} is not.",
    )


def _lines(text: str) -> list[str]:
    written = (_MARK.sub("", line) for line in text.splitlines())
    return [line for line in written if line.strip()][:MAX_TITLES]


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(unicodedata.normalize("NFC", text).casefold()))


def _label(row: Row) -> str:
    """The label of a row, which Parquet files may hold as a code."""
    value = row.value("label", "data")
    label = {"0": LABELS[0], "1": LABELS[1]}.get(str(value), str(value))
    if label not in LABELS:
        raise TaskError(
            f"{row.where}: column 'label' should hold {' or '.join(LABELS)}, got {quoted(value)}. "
            "Correct the row, or remove it."
        )
    return label


def _titles(row: Row) -> list[str]:
    """Titles of the supporting facts: pairs `[title, sentence]`, or `{key, value}` on the hub."""
    facts = row.value("supporting_facts", "data")
    titles = sorted(set(_facts(facts if isinstance(facts, list) else [])))
    if not titles:
        raise TaskError(
            f"{row.where}: column 'supporting_facts' should hold pairs of a title and the number "
            f"of a sentence, got {quoted(facts)}. Correct the row, or remove it."
        )
    return titles


def _facts(facts: list[object]) -> Iterator[str]:
    for fact in facts:
        title = fact.get("key") if isinstance(fact, Mapping) else None
        if isinstance(fact, list) and fact:
            title = fact[0]
        if isinstance(title, str) and _words(title):
            yield " ".join(title.split())


def _hand_over(tables: dict[str, Table]) -> None:
    """Leave out a test split without labels, HoVer's own, for validation to be tested on."""
    test = tables.get("test")
    if test is None or any(row.values.get("label") not in (None, -1) for row in test.rows):
        return
    del tables["test"]
    notes = tables["train"].notes
    if "validation" not in tables:
        notes.append("the test split has no labels and is left out.")
        return
    tables["test"] = tables.pop("validation")
    notes.append("the test split has no labels: the validation split is tested on in its place.")
