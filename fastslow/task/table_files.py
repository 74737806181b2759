"""Rows of one file: JSONL, JSON, CSV, TSV or Parquet, compressed or not, each with its line.

Encoding and separator are detected and said. What is wrong with lines is collected, not raised.
"""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from fastslow.core.errors import TaskError, nearest
from fastslow.core.files import open_regular, parse_json
from fastslow.core.text import shorten

MAX_LINE_BYTES = 10_000_000
"""Length a line may have; of a CSV field, in characters."""
MAX_TABLE_BYTES = 4 * 2**30
"""Size a file of text may have, unpacked: a small archive can hold an endless one."""
SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_SNIFFED_RECORDS = 50
_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table."""

    where: str
    """File and line (text) or row number from 1 (Parquet, hub), for messages."""
    values: Mapping[str, Any]
    """Column name to value."""

    def value(self, column: str, key: str) -> Any:
        """The value in `column`, which the parameter `key` names; `a.b` is field b of column a.

        Raises:
            TaskError: There is no such column; names where, and the nearest one.
        """
        values, rest = self.values, column
        while rest not in values:
            head, dot, tail = rest.partition(".")
            if not dot or not isinstance(values.get(head), Mapping):
                break
            values, rest = values[head], tail
        if rest not in values:
            names = [shorten(str(name), 60) for name in list(values)[:40]]
            raise TaskError(
                f"{self.where}: no column {shorten(column, 60)!r}.{nearest(rest, names)} "
                f"Set {key}, or add the column."
            )
        return values[rest]


@dataclass
class Table:
    """The rows of one file or hub split."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """How it was read, where that is not plain UTF-8 with the usual separator."""
    problems: list[str] = field(default_factory=list)
    """Lines that cannot be read, one sentence each with its place."""


def read_table(path: Path) -> Table:
    """Read one file.

    Raises:
        TaskError: The format is not known, or the file cannot be opened or unpacked.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    unpack = UNPACKERS.get(suffixes[-1]) if suffixes else None
    suffix = "".join(suffixes[-2:-1] if unpack else suffixes[-1:])
    if suffix in (".xlsx", ".xls", ".ods"):
        raise TaskError(
            f"{path}: spreadsheets are not read. Save the sheet as CSV (UTF-8) and give that."
        )
    if suffix not in (READERS if unpack else FORMATS):
        raise TaskError(
            f"{path}: cannot read {''.join(suffixes[-2:]) or 'no suffix'}. Known: "
            f"{', '.join(FORMATS)}; all but {PARQUET} may be packed as {', '.join(UNPACKERS)}."
        )
    table = Table()
    try:
        with open_regular(path) as file:
            if suffix == PARQUET:
                _read_parquet(file, path, table)
            else:
                text = _decode(_content(file, unpack, path), path, table)
                READERS[suffix](text, path, table)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        words = getattr(error, "strerror", None) or shorten(str(error), 200)
        raise TaskError(f"{path}: cannot be read: {words}.") from error
    if not table.rows and not table.problems:
        table.problems.append(f"{path}: holds no rows. Every split needs some.")
    return table


def _content(
    file: IO[bytes], unpack: "Callable[[IO[bytes]], IO[bytes]] | None", path: Path
) -> bytes:
    content = (unpack(file) if unpack else file).read(MAX_TABLE_BYTES + 1)
    if len(content) > MAX_TABLE_BYTES:
        raise TaskError(f"{path}: more than {MAX_TABLE_BYTES:,} bytes of text. Give fewer rows.")
    return content


def _unpack_gz(file: IO[bytes]) -> IO[bytes]:
    return cast(IO[bytes], gzip.GzipFile(fileobj=file))


def _unpack_zst(file: IO[bytes]) -> IO[bytes]:
    import pyarrow  # type: ignore[import-untyped]  # it ships no types

    stream: IO[bytes] = pyarrow.CompressedInputStream(pyarrow.PythonFile(file), "zstd")
    return stream


UNPACKERS: Mapping[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": _unpack_gz,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _unpack_zst,
}


def _decode(content: bytes, path: Path, table: Table) -> str:
    """The text of a file; what is not UTF-8 is noted.

    Raises:
        TaskError: It is damaged UTF-8, or in an encoding that cannot be told.
    """
    bom = next((bom for bom in _BOMS if content.startswith(bom)), b"")
    encoding = _BOMS.get(bom) or _utf16_by_zeros(content) or "utf-8"
    if bom == codecs.BOM_UTF8:
        table.notes.append(f"{path}: begins with a byte order mark, which is left out.")
    try:
        text = content[len(bom) :].decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise TaskError(
                f"{path}: not {encoding} at byte {error.start}. Save it as UTF-8."
            ) from error
        encoding, text = _western(content, path, error)
    if encoding != "utf-8":
        name = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        table.notes.append(f"{path}: read as {name}. If letters look wrong, save it as UTF-8.")
    return text


def _utf16_by_zeros(content: bytes) -> str | None:
    """UTF-16 without a mark: every other byte of ASCII text is zero."""
    head = content[:2000]
    if len(head) >= 4 and 0 in head:
        for start, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
            half = head[start::2]
            if half.count(0) > 0.7 * len(half) and not head[1 - start :: 2].count(0):
                return encoding
    return None


def _western(content: bytes, path: Path, error: UnicodeDecodeError) -> tuple[str, str]:
    """Encoding and text of what is not UTF-8: Windows-1252, or Latin-1 where that has no letter.

    Western texts have their accents one at a time; runs of letters beyond ASCII are a sign of
    another alphabet, and whole UTF-8 sequences one of damage.
    """
    line = content.count(b"\n", 0, error.start) + 1
    sequences = content.decode("utf-8", errors="ignore").encode()
    is_damaged = 2 * _num_beyond_ascii(sequences) > _num_beyond_ascii(content)
    for encoding in ("cp1252", "latin-1"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        runs = re.findall(r"[^\x00-\x7f]+", text)
        together = sum(len(run) for run in runs if len(run) > 1)
        if not is_damaged and together <= sum(map(len, runs)) / 2:
            return encoding, text
        break
    why = "damaged UTF-8" if is_damaged else "its encoding cannot be told"
    raise TaskError(
        f"{path}:{line}: not UTF-8 at byte {error.start}, {why}. Save the file as UTF-8."
    ) from error


def _num_beyond_ascii(content: bytes) -> int:
    return len(content) - len(content.decode("ascii", errors="ignore"))


def _read_lines(text: str, path: Path, table: Table) -> None:
    """JSONL: an object a line; or the array of objects that some call so."""
    if re.match(r"\s*\[\s*\{", text):
        _read_array(text, path, table)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{path}:{number}"
        if len(line) > MAX_LINE_BYTES:
            table.problems.append(
                f"{where}: longer than {MAX_LINE_BYTES} characters. Cut the texts."
            )
        elif line.strip():
            try:
                _add(parse_json(line), where, table)
            except ValueError as error:
                table.problems.append(
                    f"{where}: not JSON: {_json_error(error)}. Each line must be one JSON object."
                )


def _read_json(text: str, path: Path, table: Table) -> None:
    """An array of objects; or lines of objects, as some call them."""
    if text.lstrip().startswith("["):
        _read_array(text, path, table)
        return
    try:
        is_one = isinstance(parse_json(text), dict) and "\n" in text.strip()
    except ValueError:
        is_one = False
    if is_one:
        table.problems.append(
            f"{path}: one JSON object over several lines. Expected an array of objects, one for "
            "each row, or an object on each line."
        )
    else:
        _read_lines(text, path, table)


def _read_array(text: str, path: Path, table: Table) -> None:
    """The objects of a JSON array, each with the line it begins on."""
    try:
        objects = parse_json(text)
    except ValueError as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        table.problems.append(f"{path}{line}: not a JSON array: {_json_error(error)}.")
        return
    scan, place = json.JSONDecoder().raw_decode, text.index("[") + 1
    number = 1 + text.count("\n", 0, place)
    for values in objects:
        start = place
        while text[start] in " \t\r\n,":
            start += 1
        number += text.count("\n", place, start)
        _add(values, f"{path}:{number}", table)
        _, place = scan(text, start)
        number += text.count("\n", start, place)


def _json_error(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return shorten(str(error), 120)


def _add(values: object, where: str, table: Table) -> None:
    """Add one JSON object. Half a surrogate pair, which no tokenizer takes, is refused."""
    if not isinstance(values, dict):
        name = type(values).__name__
        table.problems.append(f"{where}: expected a JSON object, got {name}.")
        return
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        table.problems.append(f"{where}: not JSON: {shorten(str(error), 120)}.")
        return
    table.rows.append(Row(where, values))


def _read_separated(text: str, path: Path, table: Table) -> None:
    """CSV or TSV with a header."""
    usual = "\t" if ".tsv" in path.name.lower() else ","
    csv.field_size_limit(MAX_LINE_BYTES)
    separator = _separator(text, usual)
    if separator != usual:
        table.notes.append(f"{path}: its fields are separated by {SEPARATORS[separator]}.")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    try:
        columns = reader.fieldnames or ()
        for values in reader:
            where = f"{path}:{reader.line_num}"
            if None in values or None in values.values():
                table.problems.append(
                    f"{where}: expected {len(columns)} fields as in the header, got another "
                    f"number. Quote fields that hold {SEPARATORS[separator]}."
                )
            else:
                table.rows.append(Row(where, values))
    except csv.Error as error:
        table.problems.append(f"{path}:{reader.reader.line_num}: not CSV: {error}.")


def _separator(text: str, usual: str) -> str:
    """The separator that cuts the header, and most records as the header; else the usual one."""

    def share(separator: str) -> float:
        lengths = _lengths(text, separator)
        header = next(lengths, 0)
        return sum(length == header for length in lengths) if header > 1 else -1

    candidates = [usual, *(separator for separator in SEPARATORS if separator != usual)]
    return max(candidates, key=share)


def _lengths(text: str, separator: str) -> Iterator[int]:
    """Numbers of fields of the first records, up to one that is not CSV."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    try:
        for _, fields in zip(range(_SNIFFED_RECORDS), reader, strict=False):
            yield len(fields)
    except csv.Error:
        return


def _read_parquet(file: IO[bytes], path: Path, table: Table) -> None:
    import pyarrow.parquet as parquet  # type: ignore[import-untyped]  # it ships no types
    from pyarrow.lib import ArrowException  # type: ignore[import-untyped]  # likewise

    try:
        rows = parquet.read_table(file).to_pylist()
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        raise TaskError(f"{path}: not a Parquet file: {shorten(str(error), 200)}.") from error
    table.rows = [Row(f"{path}:{number}", values) for number, values in enumerate(rows, start=1)]


READERS: Mapping[str, Callable[[str, Path, Table], None]] = {
    ".jsonl": _read_lines,
    ".ndjson": _read_lines,
    ".json": _read_json,
    ".csv": _read_separated,
    ".tsv": _read_separated,
}
PARQUET = ".parquet"
FORMATS = (*READERS, PARQUET)
