"""`text_classification` on files: every format, every mistake with its file and line."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fastslow.core.errors import TaskError
from fastslow.task.definition import Task
from fastslow.task.registry import build_task

SHARED = Path(__file__).parents[3] / "shared" / "data" / "cl-benchmark"
Rows = list[dict[str, Any]]


def rows(size: int, start: int = 0) -> Rows:
    return [
        {"text": f"text {n}", "label": "even" if n % 2 == 0 else "odd"}
        for n in range(start, start + size)
    ]


def write(path: Path, table: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, table[0])
            writer.writeheader()
            writer.writerows(table)
    else:
        import pyarrow  # type: ignore[import-untyped]  # it ships no types
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(table), path)
    return path


def classify(data: Path, **params: Any) -> Task:
    return build_task("texts", "text_classification", {"data": str(data), **params})


def failure(data: Path, **params: Any) -> str:
    with pytest.raises(TaskError) as caught:
        classify(data, **params)
    return str(caught.value).replace(f"{data}", "DATA")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_every_format_gives_the_same_task(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"train{suffix}", rows(40))
    write(tmp_path / f"test{suffix}", rows(10, start=40))
    task = classify(tmp_path)
    assert [len(task.train), len(task.validation), len(task.test)] == [36, 4, 10]
    assert {e.question: e.answer for e in task.test} == {
        r["text"]: r["label"] for r in rows(10, 40)
    }
    assert Counter(e.answer for e in task.train) == {"even": 18, "odd": 18}
    first = next(e for e in task.test if e.question == "text 40")
    line = {".jsonl": 1, ".csv": 2, ".parquet": 1}[suffix]
    assert first.metadata == {"source": f"test{suffix}:{line}", "copies": 0, "cut": False}
    assert task.grade(first, "even").score == 1.0


def test_a_single_file_is_carved_into_three_splits(tmp_path: Path) -> None:
    task = classify(write(tmp_path / "all.csv", rows(100)))
    assert [len(task.train), len(task.validation), len(task.test)] == [70, 10, 20]
    assert Counter(e.answer for e in task.test) == {"even": 10, "odd": 10}


def test_rows_may_name_the_source_that_they_share(tmp_path: Path) -> None:
    table = [row | {"author": f"a{n // 4}" if n else " "} for n, row in enumerate(rows(40))]
    path = write(tmp_path / "all.jsonl", table)
    of_text = {e.question: e.cluster for e in classify(path, cluster_column="author").train}
    assert {text: of_text[text] for text in of_text} == {
        f"text {n}": f"a{n // 4}" if n else None for n in map(int, (t[5:] for t in of_text))
    }
    assert {example.cluster for example in classify(path).train} == {None}
    assert "no column 'autor'. Did you mean 'author'? Set cluster_column" in failure(
        path, cluster_column="autor"
    )


def test_sizes_can_be_limited_in_proportion(tmp_path: Path) -> None:
    path = write(tmp_path / "all.jsonl", rows(100))
    task = classify(path, max_train=20, max_validation=4, max_test=10)
    assert [len(task.train), len(task.validation), len(task.test)] == [20, 4, 10]
    assert Counter(e.answer for e in task.train) == {"even": 10, "odd": 10}
    whole = classify(path)
    assert task.test == whole.test[:10]


def test_a_validation_file_is_used_as_it_is(tmp_path: Path) -> None:
    for split, start in (("train", 0), ("validation", 20), ("test", 30)):
        write(tmp_path / f"{split}.jsonl", rows(10, start))
    task = classify(tmp_path)
    assert sorted(e.question for e in task.validation) == [f"text {n}" for n in range(20, 30)]
    assert len(task.train) == 10


def test_a_subset_is_a_sub_folder(tmp_path: Path) -> None:
    write(tmp_path / "news" / "train.jsonl", rows(30))
    assert classify(tmp_path, subset="news").train
    assert failure(tmp_path, subset="new") == (
        "subset: no folder 'new' in DATA. Did you mean 'news'?"
    )
    assert failure(tmp_path).startswith("data: no train file in DATA, which holds news. Expected")


def test_columns_and_label_codes_are_named_in_the_config(tmp_path: Path) -> None:
    coded = [{"body": f"b {n}", "stars": n % 2} for n in range(30)]
    path = write(tmp_path / "all.jsonl", coded)
    names = {"text_column": "body", "label_column": "stars", "label_names": {0: "bad", "1": "good"}}
    assert {e.answer for e in classify(path, **names).train} == {"bad", "good"}
    assert failure(path, label_column="stars") == (
        "DATA:1: no column 'text'. Known: body, stars. Set text_column, or add the column. "
        "Also at DATA:2, 3, 4, 5, 6 and 24 more."
    )
    assert failure(path, text_column="boddy").startswith(
        "DATA:1: no column 'boddy'. Did you mean 'body'? Set text_column"
    )


def test_labels_come_from_the_config_then_the_file_beside_the_data(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", [*rows(30), {"text": "t", "label": "od"}])
    assert "od" in {e.answer for e in classify(tmp_path, validation_frac=0.01).train}
    (tmp_path / "labels.json").write_text('{"labels": ["even", "odd"]}')
    assert failure(tmp_path) == (
        "DATA/train.jsonl:31: label 'od' is not one of the 2 known. Did you mean 'odd'? "
        "Correct the row, or set labels or label_names."
    )
    assert failure(path).startswith("DATA:31: label 'od'")
    assert classify(tmp_path, labels=["even", "odd", "od"]).train
    (tmp_path / "labels.json").write_text('{"names": []}')
    assert "labels.json: expected" in failure(tmp_path)
    (tmp_path / "labels.json").write_text("[")
    assert "labels.json: not JSON" in failure(tmp_path)


def test_a_label_that_train_never_shows_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", rows(30))
    write(tmp_path / "test.jsonl", [{"text": "t", "label": "prime"}])
    assert failure(tmp_path).startswith("DATA/test.jsonl:1: label 'prime' is not one of the 2")


def test_texts_in_two_splits_stay_in_test_and_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [*rows(40), *rows(5)])
    write(tmp_path / "test.jsonl", rows(10))
    task = classify(tmp_path)
    assert [len(task.train), len(task.validation), len(task.test)] == [27, 3, 10]
    copies = {e.question: e.metadata["copies"] for e in task.test}
    assert copies == {f"text {n}": 2 if n < 5 else 1 for n in range(10)}


def test_nothing_left_after_removing_copies_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", rows(10))
    write(tmp_path / "test.jsonl", rows(10))
    assert failure(tmp_path).startswith("all 10 texts of train are in another split too")


def test_long_texts_are_cut_marked_and_compared_as_cut(tmp_path: Path) -> None:
    long = [{"text": f"{n:02} " + "x" * 50, "label": "a"} for n in range(20)]
    task = classify(write(tmp_path / "all.jsonl", long), max_chars=10)
    assert {len(e.question) for e in task.train} == {10}
    assert all(e.metadata["cut"] for e in task.train)
    alike = [{"text": "x" * 50 + str(n), "label": "a"} for n in range(20)]
    write(tmp_path / "train.jsonl", alike)
    write(tmp_path / "test.jsonl", alike)
    assert "raise max_chars if texts are cut alike" in failure(tmp_path, max_chars=10)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "a", "label": "b"}\n{"text": ', "DATA:2: not JSON: Expecting value"),
        ("a.jsonl", "\n[1]\n", "DATA:2: expected a JSON object, got list."),
        ("a.jsonl", '{"text": 3, "label": "b"}', "DATA:1: column 'text' should hold a text, got 3"),
        ("a.jsonl", '{"text": " ", "label": "b"}', "DATA:1: column 'text' should hold a text"),
        ("a.jsonl", '{"text": "t", "label": null}', "DATA:1: column 'label' holds no label"),
        ("a.jsonl", "", "DATA: holds no rows."),
        ("a.jsonl", b'{"text": "\xff"}', "DATA:1: no column 'label'."),
        ("a.csv", "text,label\na,b\nc\n", "DATA:3: expected 2 fields as in the header"),
        ("a.csv", "text,label\na,b,c\n", "DATA:2: expected 2 fields as in the header"),
        ("a.csv", 'text,label\n"a"b,c\n', "DATA:2: not CSV:"),
        ("a.csv", "text,label\n", "DATA: holds no rows."),
        ("a.parquet", "text", "DATA: not a Parquet file:"),
        ("a.xlsx", "text", "DATA: spreadsheets are not read. Save the sheet as CSV"),
    ],
)
def test_a_bad_file_is_named_with_the_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert failure(path).startswith(message)


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", rows(10))
    write(tmp_path / "train.csv", rows(10))
    assert failure(tmp_path).startswith("DATA: holds train.csv and train.jsonl.")


def test_missing_data_says_how_to_give_some(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"needs data, got none\. Give a folder"):
        build_task("texts", "text_classification", {})
    assert failure(tmp_path / "none.jsonl").startswith(
        f"data: no file or folder DATA, seen from {Path.cwd()}. Give"
    )
    path = write(tmp_path / "all.jsonl", rows(10))
    assert failure(path, subset="x").startswith("subset: got 'x', but data is one file")


def test_a_hub_that_cannot_be_reached_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(TaskError) as caught:
        build_task("texts", "text_classification", {"data": "someone/some-data"})
    message = str(caught.value)
    assert message.startswith("data: 'someone/some-data' is not a file or folder here, and the hub")
    assert message.endswith("or download it elsewhere and give the folder.")
    assert "\n" not in message


@pytest.mark.skipif(not SHARED.is_dir(), reason="the benchmark files are not beside this checkout")
@pytest.mark.parametrize("subset", ["agnews", "amazon", "boolqa", "dbpedia", "qqp", "sst-2"])
def test_the_benchmark_files_load_whole(subset: str) -> None:
    task = classify(SHARED, subset=subset)
    assert [len(task.train), len(task.validation), len(task.test)] == [720, 80, 400]
    labels = json.loads((SHARED / subset / "labels.json").read_text())["labels"]
    assert {e.answer for e in task.test} <= set(labels)


def test_labels_are_listed_and_mentioned_where_that_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", rows(40))
    task = classify(tmp_path, options="listed", grader="mention")
    assert task.version == "text_classification@1+listed+mention"
    assert task.instruction == "Classify the text. Options: even, odd."
    assert task.grade(task.test[0], f"It is {task.test[0].answer}.").score == 1
    signs = {"even": "+", "odd": "-"}
    table = [{**row, "label": signs[row["label"]]} for row in rows(40)]
    write(tmp_path / "train.jsonl", table)
    assert failure(tmp_path, grader="mention") == (
        'grader: mention reads words, and the answer "+" has none. Use exact_match.'
    )
