"""Texts with labels out of tables, for any task of classes: made alike, checked, counted.

What is wrong is collected over all tables and raised at once; what is odd becomes a note.
"""

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fastslow.core.errors import TaskError, nearest
from fastslow.core.text import shorten
from fastslow.task.problems import Places, places, quoted, require_none
from fastslow.task.table_files import Row, Table

_MIN_NUMBERS, _MIN_WHOLE_NUMBERS = 5, 20
"""Distinct numbers from which labels may be a quantity; fewer, in few rows, prove nothing. Ours."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text with its label."""

    text: str
    """Without white space around it, cut to `max_chars`."""
    label: str
    """NFC, white space folded, under its name."""
    where: str
    length: int
    """Characters before it was cut."""
    cluster: str | None = None
    """Name of its source, where its rows share some; None where it is on its own."""

    @property
    def is_cut(self) -> bool:
        """Whether something was left out."""
        return self.length > len(self.text)


@dataclass(frozen=True, slots=True)
class LabelColumns:
    """Where texts and labels stand, and how they are written; as in `text_classification`."""

    text: str = "text"
    label: str = "label"
    cluster: str | None = None
    names: Mapping[str | int, str] | None = None
    """Names of coded labels."""
    max_chars: int | None = None
    """Longer texts are cut; None cuts none."""


def read_labelled(
    tables: Mapping[str, Table], columns: LabelColumns, labels: Iterable[str] | None = None
) -> tuple[dict[str, list[Labelled]], list[str]]:
    """The texts of every split with their labels, and notes on what is odd about them.

    Args:
        tables: By split, as `read_splits` gives them.
        columns: Where texts and labels stand.
        labels: Every label there may be; None takes those of train.

    Raises:
        TaskError: Names every problem of every table with its place, `MAX_PROBLEMS` at most.
    """
    problems = [problem for table in tables.values() for problem in table.problems]
    notes = [note for table in tables.values() for note in table.notes]
    codes: dict[str, list[tuple[Row, str]]] = {}
    for split, table in tables.items():
        rows = Places()
        codes[split] = list(_codes(table.rows, columns, rows))
        problems += rows.lines()
    every = [(row.where, code) for members in codes.values() for row, code in members]
    names = {folded(str(key)): name for key, name in (columns.names or {}).items()}
    problems += _name_problems(names, {folded(code) for _, code in every})
    if not names and labels is None:
        problems += _quantity_problems(columns.label, every)
    items = {
        split: [_labelled(row, code, names, columns) for row, code in members]
        for split, members in codes.items()
    }
    problems += _unknown_labels(items, None if labels is None else set(map(folded, labels)))
    notes += [*_spellings(every), *_twins(items), *_cuts(items, columns.max_chars)]
    require_none(problems, notes)
    return items, notes


def folded(text: str) -> str:
    """`text` in Unicode's composed form (NFC), each run of white space as one space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _codes(
    rows: Sequence[Row], columns: LabelColumns, problems: Places
) -> Iterator[tuple[Row, str]]:
    """The rows that hold a text and a label, each with its label as it is written."""
    for row in rows:
        try:
            text = row.value(columns.text, "text_column")
            label = row.value(columns.label, "label_column")
            cluster_of(row, columns.cluster)
        except TaskError as error:
            problems[str(error).removeprefix(f"{row.where}: ")].append(row.where)
            continue
        sound = True
        if not isinstance(text, str) or not text.strip():
            sound = False
            problems[
                f"column {columns.text!r} should hold a text, got {quoted(text)}. Remove the row, "
                "or name another text_column."
            ].append(row.where)
        code, problem = _code(label, columns.label)
        if problem:
            problems[problem].append(row.where)
        elif sound:
            yield row, code


def _code(label: object, column: str) -> tuple[str, str | None]:
    """A label as text, or what is wrong with it; 1.0 is 1, as tables turn whole numbers to it."""
    if isinstance(label, Mapping) and label:
        field = next(
            (name for name in ("name", "label", "text") if name in label), next(iter(label))
        )
        return "", (
            f"column {column!r} holds an object, not a label, got {quoted(dict(label))}. Name one "
            f"of its fields: label_column: {column}.{field}"
        )
    if isinstance(label, float) and label.is_integer():
        return str(int(label)), None
    if label is None or (isinstance(label, float) and math.isnan(label)) or not str(label).strip():
        return "", (
            f"column {column!r} holds no label, got {quoted(label)}. Remove the row, or name "
            "another label_column."
        )
    if isinstance(label, str | int | float):
        return str(label).strip(), None
    return "", (
        f"column {column!r} should hold one label as text or number, got a {type(label).__name__}: "
        f"{quoted(label)}. Write one label in each row, or name another label_column."
    )


def _labelled(row: Row, code: str, names: Mapping[str, str], columns: LabelColumns) -> Labelled:
    text, label = row.value(columns.text, "").strip(), folded(code)
    cut, cluster = text[: columns.max_chars].rstrip(), cluster_of(row, columns.cluster)
    return Labelled(cut, names.get(label, label), row.where, len(text), cluster)


def cluster_of(row: Row, column: str | None) -> str | None:
    """Name of a row's source; None where no column has it, or nothing stands there.

    Raises:
        TaskError: There is no such column.
    """
    if column is None:
        return None
    value = row.value(column, "cluster_column")
    return None if value is None else str(value).strip() or None


def _name_problems(names: Mapping[str, str], codes: set[str]) -> Iterator[str]:
    for key in names:
        if codes and key not in codes:
            hint = nearest(key, codes)
            yield f"label_names: no row has the label {key!r}.{hint} Correct it."


def _quantity_problems(column: str, codes: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Whether the labels are a quantity to estimate: numbers, nearly as many as rows."""
    distinct = {code for _, code in codes}
    least = _MIN_WHOLE_NUMBERS if all(map(str.isdecimal, distinct)) else _MIN_NUMBERS
    if len(distinct) >= max(least, 0.5 * len(codes)) and all(map(_is_number, distinct)):
        first = ", ".join(sorted(distinct)[:3])
        yield (
            f"{codes[0][0]}: column {column!r} holds {len(distinct):,} different numbers in "
            f"{len(codes):,} rows ({first}, ...): a quantity to estimate (regression), no classes. "
            "Name another label_column, or cut the numbers into classes in the file."
        )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _unknown_labels(
    items: Mapping[str, Sequence[Labelled]], allowed: set[str] | None
) -> Iterator[str]:
    labels = {item.label for item in items["train"]} if allowed is None else allowed
    rows = Places()
    for item in (item for split in items.values() for item in split if item.label not in labels):
        rows[
            f"label {quoted(item.label)} is not one of the {len(labels)} known."
            f"{nearest(item.label, labels)} Correct the row, or set labels or label_names."
        ].append(item.where)
    yield from rows.lines() if labels else ()


def _spellings(codes: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Labels that are written in several ways which are read as one."""
    by_label: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for where, code in codes:
        by_label[folded(code)][code].append(where)
    for label, spellings in by_label.items():
        for code, wheres in spellings.items():
            if code != label:
                is_space = code.split() != code.split(" ")
                odd = "with other white space" if is_space else "in another Unicode form (not NFC)"
                yield (
                    f"label {quoted(label)} is written {odd} in {_count(wheres, 'row')} and read "
                    f"as the same: {places(wheres)}."
                )


def _twins(items: Mapping[str, Sequence[Labelled]]) -> Iterator[str]:
    """Labels that differ in their capitals alone."""
    wheres: dict[str, list[str]] = defaultdict(list)
    for item in (item for split in items.values() for item in split):
        wheres[item.label].append(item.where)
    twins: dict[str, list[str]] = defaultdict(list)
    for label in wheres:
        twins[label.casefold()].append(label)
    for labels in twins.values():
        if len(labels) > 1:
            counts = "; ".join(
                f"{quoted(n)} {len(wheres[n]):,} times, first at {wheres[n][0]}" for n in labels
            )
            yield (
                f"{len(labels)} labels differ in capitals alone and stay different classes: "
                f"{counts}. Set label_names to make them one."
            )


def _cuts(items: Mapping[str, Sequence[Labelled]], max_chars: int | None) -> Iterator[str]:
    for split, members in items.items():
        if cut := [item for item in members if item.is_cut]:
            longest = max(item.length for item in cut)
            yield (
                f"{len(cut):,} of {len(members):,} texts of {split} cut to max_chars = "
                f"{max_chars:,} characters, the longest has {longest:,}: "
                f"{places([item.where for item in cut])}. Raise max_chars if what decides stands "
                "at their end."
            )


def without_copies(
    items: Mapping[str, Sequence[Labelled]], notes: list[str]
) -> dict[str, list[Labelled]]:
    """Each text once, in the first of test, validation, train that holds it; the rest is noted.

    Raises:
        TaskError: Nothing is left of a split.
    """
    taken: dict[str, tuple[str, Labelled]] = {}
    distinct: dict[str, list[Labelled]] = {}
    repeats, overlaps = list[str](), list[str]()
    quarrels: dict[str, tuple[Labelled, Labelled]] = {}
    for split in (split for split in ("test", "validation", "train") if split in items):
        distinct[split] = []
        for item in items[split]:
            first_split, first = taken.setdefault(item.text, (split, item))
            if first is item:
                distinct[split].append(item)
                continue
            (repeats if first_split == split else overlaps).append(item.where)
            if first.label != item.label:
                quarrels.setdefault(item.text, (first, item))
        if items[split] and not distinct[split]:
            raise TaskError(
                f"all {len(items[split])} texts of {split} are in another split too (test wins "
                "over validation, validation over train), so none is left. Give other files, or "
                "raise max_chars if texts are cut alike."
            )
    notes += _copy_notes(repeats, overlaps, list(quarrels.values()))
    return distinct


def _copy_notes(
    repeats: Sequence[str], overlaps: Sequence[str], quarrels: Sequence[tuple[Labelled, Labelled]]
) -> Iterator[str]:
    if repeats:
        yield (
            f"{_count(repeats, 'row')} with a text that its split holds already, left out: "
            f"{places(repeats)}."
        )
    if overlaps:
        yield (
            f"{_count(overlaps, 'row')} with a text of another split, left out (test wins over "
            f"validation, validation over train): {places(overlaps)}."
        )
    if quarrels:
        first, second = quarrels[0]
        yield (
            f"{_count(quarrels, 'text')} with contradicting labels, of which the first is kept: "
            f"{quoted(first.label)} at {first.where}, {quoted(second.label)} at {second.where}"
            f"{', and others' if len(quarrels) > 1 else ''}."
        )


def class_notes(splits: Mapping[str, Sequence[Labelled]], labels: Iterable[str]) -> Iterator[str]:
    """A single class, and classes that some splits lack."""
    counts = {split: Counter(item.label for item in items) for split, items in splits.items()}
    every = {label for split in counts.values() for label in split}
    if len(every) == 1:
        label = quoted(next(iter(every)))
        yield f"every label is {label}: with a single class there is nothing to learn."
    for split, present in counts.items():
        if lacking := sorted(every - present.keys()):
            rows = sum(split_counts[label] for split_counts in counts.values() for label in lacking)
            yield (
                f"{split} has no example of {len(lacking)} of {len(every)} classes ({rows:,} rows "
                f"elsewhere): {shorten(', '.join(lacking), 200)}."
            )
    if unused := sorted(set(labels) - every):
        yield f"no row has {len(unused)} of the labels given: {shorten(', '.join(unused), 200)}."


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things):,} {noun}{'' if len(things) == 1 else 's'}"
