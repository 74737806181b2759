"""Files that are not what they seem, and texts that are longer than anyone meant."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fastslow.core.decode import shaped
from fastslow.core.errors import ConfigError, TaskError, nearest
from fastslow.core.files import is_file, parse_json, plain_name, read_regular
from fastslow.core.text import shorten
from fastslow.core.types import Example
from fastslow.task.data_files import read_splits
from fastslow.task.graders import boxed_match, exact_match, numeric
from fastslow.task.registry import build_task
from fastslow.task.table_files import MAX_LINE_BYTES


@pytest.mark.parametrize(
    "text",
    ["NaN", "[Infinity]", '{"a": -Infinity}', "1e999", "9" * 5000, str(2**64), "[" * 100_000, "{"],
)
def test_json_that_no_file_should_hold_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_numbers_that_programs_write_are_read() -> None:
    assert parse_json(b'[18446744073709551615, -0.5, 1e-7, "\\ud800"]') == [
        2**64 - 1,
        -0.5,
        1e-7,
        "\ud800",
    ]


def test_only_regular_files_are_read_and_nothing_waits(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert read_regular(tmp_path / "file") == b"x"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("pipe", "device", "loop", ".", "none", "n" * 300, "a\0b", "\ud800"):
        with pytest.raises(OSError, match=r"."):
            read_regular(tmp_path / name)
        assert name == "." or not is_file(tmp_path / name)


def test_a_file_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "sparse").write_bytes(b"[1")
    os.truncate(tmp_path / "sparse", 1 << 40)
    with pytest.raises(OSError, match="1,099,511,627,776 bytes with nothing in them"):
        read_regular(tmp_path / "sparse")
    os.truncate(tmp_path / "sparse", 1 << 20)  # a hole of this size does nobody harm
    assert len(read_regular(tmp_path / "sparse")) == 1 << 20


@pytest.mark.parametrize("name", ["", "a", "a b", "..a", "é\u202e", "a:b"])
def test_a_plain_name_names_one_part_of_a_path(name: str) -> None:
    assert plain_name(name) == name


@pytest.mark.parametrize("name", [".", "..", "/", "a/", "/a", "a/b", "../a", None, 3, ["a"]])
def test_what_leads_elsewhere_is_no_plain_name(name: object) -> None:
    with pytest.raises(ValueError, match="not a plain name"):
        plain_name(name)


def write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


ROW = b'{"text": "a", "label": "good"}\n'


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("train.jsonl", write(ROW + b'{"text": "\xff"}'), "train.jsonl:2: no column 'label'"),
        ("train.jsonl", write("é".encode() * 9 + b"\xff"), "train.jsonl:1: not UTF-8 at byte 18"),
        ("train.jsonl", write("текст".encode("cp1251")), "its encoding cannot be told"),
        ("train.jsonl", write(b"\x00" * 100), "train.jsonl:1: not JSON"),
        ("train.jsonl", write(ROW + b"[" * 100_000), "train.jsonl:2: not JSON: nested too deeply"),
        ("train.jsonl", write(b'{"text": ' + b"9" * 5000), "train.jsonl:1: not JSON"),
        ("train.jsonl", write(b'{"text": "\\ud800", "label": "a"}'), "train.jsonl:1: not JSON"),
        ("train.jsonl", write(ROW + b"x" * (MAX_LINE_BYTES + 1)), "train.jsonl:2: longer than"),
        ("train.jsonl", os.mkfifo, "not a regular file"),
        ("train.jsonl", lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        ("train.csv", write(b"text,label\n" + b"\xff" * 9 + b",a\n"), "train.csv:2: not UTF-8 at"),
        ("train.csv", write(b'text,label\n"x,a\n'), "train.csv:2: not CSV"),
        ("train.csv.gz", write(b"\x1f\x8b\x08\x00"), "cannot be read"),
        ("train.csv.zst", write(b"no archive"), "cannot be read"),
        ("train.parquet", write(b"PAR1" + b"\x00" * 64 + b"PAR1"), "not a Parquet file"),
        ("train.jsonl", write(ROW.replace(b"text", b"t" * 5000)), "no column 'text'"),
    ],
)
def test_a_hostile_data_file_is_one_typed_error(
    tmp_path: Path, name: str, make: Callable[[Path], object], said: str
) -> None:
    (tmp_path / "data").mkdir()
    make(tmp_path / "data" / name)
    with pytest.raises(TaskError) as caught:
        build_task("texts", "text_classification", {"data": str(tmp_path / "data")})
    assert said in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("data", ["a" * 5000, "~nobody-here/x", "\x00", "x/" + "b" * 300])
def test_what_is_no_path_is_a_typed_error(data: str) -> None:
    with pytest.raises(TaskError, match="data: "):
        read_splits(data)


def test_a_message_does_not_repeat_a_megabyte(tmp_path: Path) -> None:
    from fastslow.config.loading.load import load_config

    long = "k" * 900_000
    (tmp_path / "a.yaml").write_text(f"name: a\nstages: [{{task: word_valence}}]\n'{long}': 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config((tmp_path / "a.yaml",), (f"seed={long}", f"{long}=1"))
    assert max(map(len, str(caught.value).splitlines())) < 1500
    assert len(nearest(long, [long, "x"])) < 300


@pytest.mark.parametrize(
    "token", ["x", "9", " ", "\n", "####", "\\boxed{", "1,", "-1", "\u202e", "e9"]
)
def test_a_megabyte_of_one_token_is_a_grade_in_no_time(token: str) -> None:
    text = token * (1_000_000 // len(token))
    before = time.process_time()
    for grade in (exact_match, numeric, boxed_match):
        given = grade(Example("1", "?", r"\boxed{4}"), text)
        assert given.score == 0
        assert len(given.reason) < 300
    assert len(shorten(text, 60)) <= 60
    assert time.process_time() - before < 1.0


@dataclass(frozen=True)
class Inner:
    count: int


@dataclass(frozen=True)
class Outer:
    name: str
    share: float | None
    inner: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "expected an object, got list"),
        ({"name": "a"}, "missing share"),
        ({"name": "a", "share": 1, "x": 1}, "unknown key 'x'"),
        ({"name": 1, "share": 1}, "name: expected text, got 1"),
        ({"name": "a", "share": True}, "share: expected a number, got True"),
        ({"name": "a", "share": 1, "inner": {}}, "inner: expected a list, got dict"),
        ({"name": "a", "share": 1, "inner": [{"count": -1}]}, "inner.0.count: expected a whole"),
        ({"name": "a", "share": 1, "inner": [{"count": 1.0}]}, "inner.0.count: expected a whole"),
    ],
)
def test_data_of_another_shape_is_refused_by_name(data: Any, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        shaped(Outer, data)
    assert said in str(caught.value)


def test_data_of_the_right_shape_becomes_the_dataclass() -> None:
    made = shaped(Outer, {"name": "\ud800", "share": None, "inner": [{"count": 3}]})
    assert made == Outer("\ud800", None, (Inner(3),))


@pytest.mark.parametrize(
    "override",
    [
        "fast.population=9007199254740993",
        "slow.group=9007199254740993",
        "cycle.problems=9223372036854775807",
        "fast={kind: simba, metric_calls: 9223372036854775807}",
        "fast={kind: gepa, minibatch: 9223372036854775807}",
        "fast={kind: mipro, candidates: 9223372036854775807, pool: 9223372036854775807}",
        "fast={kind: demos, pool: 9223372036854775807, population: 9223372036854775807}",
    ],
)
def test_absurd_numbers_are_answered_at_once(override: str) -> None:
    from fastslow.config.cost import estimate_cost
    from fastslow.config.loading.load import load_config

    before = time.process_time()
    said = ""
    try:
        loaded = load_config((), ("name=a", "stages=[{task: word_valence}]", override))
        assert estimate_cost(loaded.config).lines()
    except ConfigError as err:
        said = str(err)
    assert len(said) < 1000
    assert time.process_time() - before < 1.0


@pytest.mark.parametrize("name", ["a\x00b", "\ud800"])
def test_what_no_file_can_be_called_is_a_typed_error(name: str) -> None:
    from fastslow.cli.check import check

    with pytest.raises(ConfigError, match="no file can have this name"):
        check([name])
