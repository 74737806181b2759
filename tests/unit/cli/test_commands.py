"""Commands for people: init, diff, kept records, --json, and readers that leave."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO, cast

import pytest
import typer

from fastslow.cli.main import main
from fastslow.cli.streams import LastingStream
from tests.support.paths import ROOT

DEMO = ROOT / "runs" / "reference" / "demo"
ABLATION = ROOT / "runs" / "reference" / "ablations" / "channels-demo"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with data of a help desk."""
    monkeypatch.chdir(tmp_path)
    lines = [f"{i},printer {i} burns,{('low', 'high')[i % 2]}" for i in range(100)]
    (tmp_path / "tickets.csv").write_text("\n".join(["id,body,urgency", *lines]))
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    return tmp_path


def output(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    assert main(list(words)) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_init_proposes_columns_and_writes_what_check_accepts(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = output(capsys, "init", "--data", "tickets.csv", "--model", "tiny-random")
    assert "tickets: question 'body', answer 'urgency', 70 training examples" in out
    text = (place / "tickets.yaml").read_text()
    assert 'data: "tickets.csv"' in text
    assert 'text_column: "body"' in text
    assert 'label_column: "urgency"' in text
    assert output(capsys, "check", "tickets.yaml")[0].startswith("tickets.yaml: ok\n")

    _, err = output(capsys, "init", "--data", "tickets.csv", code=2)
    assert "tickets.yaml cannot be written: it is there already" in err
    assert (place / "tickets.yaml").read_text() == text


def test_init_makes_a_stage_of_every_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"is {i} even", "target": "yes" if i % 2 else "no"} for i in range(60)]
    (place / "Even Odd.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["--data", "tickets.csv", "--data", "Even Odd.jsonl", "--out", "both.yaml"]
    output(capsys, "init", *words)
    values = json.loads(output(capsys, "check", "both.yaml", "--json")[0])["files"][0]["values"]
    assert [values[f"stages.{i}.task"]["value"] for i in (0, 1)] == ["tickets", "even_odd"]
    assert values["tasks.even_odd.params.label_column"]["value"] == "target"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "init: no data given. Example: fastslow init --data tickets.csv"),
        (("--data", "tickets.csv", "--answer", "urgenci"), "Did you mean 'urgency'?"),
        (("--data", "ids.jsonl", "--question", "id"), "column 'id' should hold a text"),
        (("--data", "ids.jsonl"), "--question: ids.jsonl has no such column, got None"),
        (("--data", "nowhere.csv"), "no file or folder nowhere.csv"),
        (("--data", "numbers.csv"), "--answer: numbers.csv has no such column, got None"),
        (("--data", "empty.csv"), "empty.csv"),
        (("--data", "tickets.csv", "--data", "./tickets.csv"), "tasks of one name"),
    ],
)
def test_init_refuses_what_no_run_could_begin_with(
    place: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    (place / "numbers.csv").write_text("\n".join(["text", *map(str, range(100))]))
    (place / "empty.csv").write_text("")
    ids = [{"id": i, "label": "ab"[i % 2]} for i in range(60)]
    (place / "ids.jsonl").write_text("\n".join(map(json.dumps, ids)))
    before = sorted(place.iterdir())
    assert message in output(capsys, "init", *words, code=2)[1]
    assert sorted(place.iterdir()) == before


def test_init_asks_on_a_terminal_with_its_proposals(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    answers = {"Data (a file, a folder, or a hub id)": "tickets.csv", "Base model": "tiny-random"}

    def prompt(question: str, default: Any = None) -> Any:
        asked[question] = default
        return answers.get(question, default)

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "prompt", prompt)
    output(capsys, "init")
    assert asked["Column of the question"] == "body"
    assert asked["Column of the answer"] == "urgency"
    assert asked["File to write"] == "tickets.yaml"
    assert 'name: "tiny-random"' in (place / "tickets.yaml").read_text()


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_under_version_control_is_only_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "repository" / "run"
    shutil.copytree(DEMO, run)
    for words in (["init", "-q"], ["add", "run/run.json"]):
        subprocess.run(["git", *words], cwd=run.parent, check=True)
    before = files(run)
    assert (
        "not written again: it is kept under version control"
        in output(capsys, "report", str(run))[0]
    )
    assert "not written: it is kept under version control" in output(capsys, "gate", str(run))[0]
    assert files(run) == before

    shutil.rmtree(run.parent / ".git")
    assert "verdict: " in output(capsys, "gate", str(run))[0]
    assert (run / "gate" / "gate.json").is_file()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert "not written: it cannot be written" in output(capsys, "gate", str(run))[0]


def test_json_is_one_object_and_errors_stay_where_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    out, err = output(capsys, "report", str(DEMO), "--json")
    assert (json.loads(out), err) == (json.loads((DEMO / "report.json").read_text()), "")
    out, err = output(capsys, "gate", str(DEMO), "--json", "--min-score", "word_valence=1")
    verdict = json.loads(out)
    assert (verdict["verdict"], err) == ("yes" if not verdict["failed"] else "no", "")
    out, _ = output(capsys, "compare", str(DEMO), str(DEMO.with_name("demo-shrink")), "--json")
    assert json.loads(out)["baseline"] == "demo"
    listing = json.loads(output(capsys, "runs", "runs/reference", "--json")[0])
    [demo] = [run for run in listing["runs"] if run["path"].endswith("/demo")]
    assert (demo["state"], demo["stages_done"]) == ("finished", 3)

    words = ["configs/tests/tiny.yaml", "configs/base/fst-laptop.yaml", "nowhere.yaml"]
    out, err = output(capsys, "check", *words, "--json", code=2)
    checked = json.loads(out)["files"]
    assert [file["ok"] for file in checked] == [True, True, False]
    assert [file.get("kind") for file in checked] == ["run", "fragment", None]
    assert checked[2]["errors"] == err.splitlines()
    out, err = output(capsys, "report", "nowhere", "--json", code=2)
    assert out == ""
    assert "not a run folder" in err


def test_a_kept_ablation_is_shown_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = output(capsys, "ablate", "--from", str(ABLATION))
    assert "Claims put to the test: " in out
    assert out.endswith(f"every table: --full\nablation folder: {ABLATION}\n")
    paper = tmp_path / "paper"
    out, _ = output(capsys, "ablate", "--from", str(ABLATION), "--full", "--paper", str(paper))
    assert "Claims of Fast-Slow Training" in out
    assert list(paper.glob("tables/*.tex"))
    shutil.rmtree(paper)
    assert (
        f"fastslow ablate --from {ABLATION}" in output(capsys, "report", str(ABLATION), code=2)[1]
    )
    assert "no records.jsonl" in output(capsys, "ablate", "--from", str(tmp_path), code=2)[1]
    words = ["ablate", "configs/ablations/orders.yaml", "--from", str(ABLATION)]
    assert "Leave one of them out." in output(capsys, *words, code=2)[1]
    assert "expected one ablation file, got 0" in output(capsys, "ablate", code=2)[1]


def test_diff_shows_the_keys_that_differ_and_no_others(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ROOT / "configs" / "tests" / "tiny.yaml"
    (place / "other.yaml").write_text(
        f"extends: {config}\nseed: 7\nslow: {{kind: grpo, lr: 0.5}}\n"
    )
    out, _ = output(capsys, "diff", str(config), "other.yaml")
    rows = [line.split() for line in out.splitlines() if line.startswith((" s", "s"))]
    assert [row[0] for row in rows] == ["seed", "slow.lr"]
    assert rows[0][1:] == ["0", "7"]
    assert output(capsys, "diff", str(config), str(config))[0] == "No key differs.\n"
    run = place / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    (run / "config.json").write_text('{"seed": 7, "tasks": {"x": {"use": "evil.module:f"}}}')
    assert "evil.module:f" in output(capsys, "diff", str(run), "other.yaml")[0]  # never imported
    assert "not a run folder" in output(capsys, "diff", str(place), "other.yaml", code=2)[1]


def test_a_task_that_needs_data_says_how_to_give_it(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = output(capsys, "tasks", "show", "text_classification")
    assert "label_column (text)" in out or "label_column" in out
    assert "fastslow tasks show text_classification data=PATH" in out
    words = ["data=tickets.csv", "text_column=body", "label_column=urgency"]
    assert "sizes: train 70" in output(capsys, "tasks", "show", "text_classification", *words)[0]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "colour"), [(io.StringIO, "\\x1b[1m"), (Terminal, "\x1b[1m")])
def test_what_is_printed_cannot_act_on_a_terminal_wherever_it_came_from(
    stream: type[io.StringIO], colour: str
) -> None:
    inner = stream()
    with contextlib.redirect_stdout(cast(TextIO, LastingStream(inner))):
        print("\x1b]0;owned\x07 \u202eabc \x9b31m \ud800 naïve\u00a0☃\n\x1b[1mbold")
    title = r"\x1b]0;owned\x07 \u202eabc \x9b31m \ud800"
    assert inner.getvalue() == f"{title} naïve\u00a0☃\n{colour}bold\n"


def test_a_stream_without_a_reader_takes_whatever_comes() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as inner:
        stream = LastingStream(inner)
        for _ in range(3):
            assert stream.write("a line\n") == 7
            stream.flush()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("report", str(DEMO)), 0),
        (("runs", str(DEMO.parent)), 0),
        (("gate", str(DEMO), "--max-forgetting", "0", "--min-score", "word_language=1"), 3),
        (("report", "nowhere"), 2),
    ],
)
def test_a_reader_that_leaves_changes_no_exit_code(words: tuple[str, ...], code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "fastslow", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before the first line can be written
        errors = process.stderr.read()
    assert process.returncode == code
    assert (b"not a run folder" in errors) == (code == 2)
    assert b"Traceback" not in errors
