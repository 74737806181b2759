"""Tables are read in every form that spreadsheets and libraries write; what was guessed is said."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from fastslow.core.errors import TaskError
from fastslow.task import table_files
from fastslow.task.data_files import read_splits
from fastslow.task.table_files import Table, read_table

ROWS = [
    {"text": "Ein schöner Tag", "label": "gut"},
    {"text": "schade, leider", "label": "schlecht"},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CSV = 'text,label\nEin schöner Tag,gut\n"schade, leider",schlecht\n'
SEMICOLONS = "text;label\nEin schöner Tag;gut\nschade, leider;schlecht\n"


def zst(content: bytes) -> bytes:
    import pyarrow  # type: ignore[import-untyped]  # it ships no types

    packed: bytes = pyarrow.Codec("zstd").compress(content, asbytes=True)
    return packed


def read(path: Path, content: bytes | str) -> Table:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path)


def values(table: Table) -> list[dict[str, object]]:
    assert table.problems == []
    return [dict(row.values) for row in table.rows]


@pytest.mark.parametrize(
    ("name", "content", "lines", "notes"),
    [
        ("a.jsonl", LINES, [1, 2], []),
        ("a.ndjson", LINES.replace("\n", "\n\n"), [1, 3], []),
        ("A.JSONL", LINES, [1, 2], []),
        ("a.json", json.dumps(ROWS, indent=2), [2, 6], []),
        ("a.json", json.dumps(ROWS), [1, 1], []),
        ("a.json", LINES, [1, 2], []),
        ("a.jsonl", json.dumps(ROWS, indent=1), [2, 6], []),
        ("a.csv", CSV, [2, 3], []),
        ("a.CSV", CSV.replace("\n", "\r\n"), [2, 3], []),
        ("a.csv", SEMICOLONS, [2, 3], ["separated by a semicolon"]),
        ("a.csv", SEMICOLONS.replace(";", "\t"), [2, 3], ["separated by a tab"]),
        ("a.csv", SEMICOLONS.replace(";", "|"), [2, 3], ["separated by a bar"]),
        ("a.tsv", SEMICOLONS.replace(";", "\t"), [2, 3], []),
        ("a.tsv", CSV, [2, 3], ["separated by a comma"]),
        ("a.csv", CSV.encode("utf-8-sig"), [2, 3], ["byte order mark"]),
        ("a.csv", CSV.encode("utf-16"), [2, 3], ["read as UTF-16"]),
        ("a.csv", CSV.encode("utf-16-be"), [2, 3], ["read as UTF-16"]),
        ("a.jsonl", LINES.encode("utf-32"), [1, 2], ["read as UTF-32"]),
        ("a.csv", CSV.encode("cp1252"), [2, 3], ["read as CP1252"]),
        (
            "a.csv",
            SEMICOLONS.encode("latin-1"),
            [2, 3],
            ["read as CP1252", "separated by a semicolon"],
        ),
    ],
)
def test_every_form_gives_the_same_rows_with_their_lines(
    tmp_path: Path, name: str, content: bytes | str, lines: list[int], notes: list[str]
) -> None:
    table = read(tmp_path / name, content)
    assert values(table) == ROWS
    assert [row.where for row in table.rows] == [f"{tmp_path / name}:{line}" for line in lines]
    assert len(table.notes) == len(notes)
    for note, words in zip(table.notes, notes, strict=True):
        assert words in note


@pytest.mark.parametrize(
    ("ending", "pack"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zst)],
)
@pytest.mark.parametrize(("name", "content"), [("a.csv", CSV), ("a.jsonl", LINES)])
def test_packed_files_are_read(
    tmp_path: Path, name: str, content: str, ending: str, pack: Callable[[bytes], bytes]
) -> None:
    assert values(read(tmp_path / f"{name}{ending}", pack(content.encode()))) == ROWS


def test_a_small_archive_of_an_endless_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_files, "MAX_TABLE_BYTES", 1000)
    with pytest.raises(TaskError, match="more than 1,000 bytes"):
        read(tmp_path / "a.csv.gz", gzip.compress(b"x" * 1001))


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Очень хороший день, спасибо", "cp1251"),
        ("とても良い日です", "shift-jis"),
        ("今天天气很好", "gbk"),
    ],
)
def test_another_alphabet_is_not_taken_for_a_western_one(
    tmp_path: Path, text: str, encoding: str
) -> None:
    with pytest.raises(TaskError, match=r"a\.csv:2: not UTF-8 at byte 11, its encoding cannot be"):
        read(tmp_path / "a.csv", f"text,label\n{text},a\n".encode(encoding))


def test_damaged_utf8_is_not_read_as_another_encoding(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"a\.csv:3: not UTF-8 .*, damaged UTF-8"):
        read(tmp_path / "a.csv", "text,label\nnaïve,é\nb".encode() + b"\xff,c\n")


def test_all_bad_lines_of_a_file_are_collected(tmp_path: Path) -> None:
    table = read(tmp_path / "a.jsonl", '{"text": \n[1]\n{"text": "\\ud800"}\n{"text": "b"}\n')
    words = ["a.jsonl:1: not JSON: Expecting", "a.jsonl:2: expected a JSON", "a.jsonl:3: not JSON"]
    for problem, expected in zip(table.problems, words, strict=True):
        assert expected in problem
    assert [row.values for row in table.rows] == [{"text": "b"}]
    wide = read(tmp_path / "a.csv", "text,label\na\nb,c\nd,e,f\n")
    assert [problem.split(": ")[0].rpartition(":")[2] for problem in wide.problems] == ["2", "4"]


@pytest.mark.parametrize("name", ["Train.CSV", "TRAIN.csv.gz", "train.Json"])
def test_names_of_splits_match_without_case(tmp_path: Path, name: str) -> None:
    content = (json.dumps(ROWS) if name.endswith("Json") else CSV).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    (tmp_path / "dev.csv").write_text(CSV)
    tables = read_splits(str(tmp_path))
    assert values(tables["train"]) == ROWS
    assert tables["train"].notes == [f"{tmp_path}: not read: dev.csv."]


@pytest.mark.parametrize("name", ["data.xlsx", "tickets.CSV", "some/tickets.parquet"])
def test_a_name_with_the_suffix_of_a_file_never_asks_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ticket.csv").touch()
    with pytest.raises(TaskError, match="data: no file or folder") as caught:
        read_splits(name)
    assert ("Did you mean 'ticket.csv'?" in str(caught.value)) == (name == "tickets.CSV")
