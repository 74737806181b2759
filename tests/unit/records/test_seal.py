"""Seals of run folders: what was edited is noticed, and whose folder it is."""

import hashlib
import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fastslow.core.errors import CheckpointError
from fastslow.records.events import EvaluationEvent
from fastslow.records.run_folder import RunDir
from fastslow.records.seal import KEY_VARIABLE, broken_seal, is_ours, read_seal
from fastslow.records.state import RunState
from fastslow.records.trust import followed, load_run
from fastslow.results.report import build_report
from fastslow.results.report.verdict import verdict
from tests.support.run_folder import OUTCOMES, config, write_row


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTSLOW_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    return tmp_path / "home"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that ended, with a resume point and a kept stage."""
    with RunDir.create(config(tmp_path / "runs"), {}, ["fastslow", "train"]) as run_dir:
        write_row(run_dir, 0, OUTCOMES[0])
        run_dir.save_state(RunState(0, 1, True), lambda folder: None)
        write_row(run_dir, 1, OUTCOMES[1])
        stage = run_dir.path / "stages" / "000-alpha"
        run_dir.keep_folder(stage, lambda folder: write(folder, '{"lora_alpha": 16}'))
        run_dir.mark("finished")
    return run_dir.path


def write(folder: Path, text: str) -> None:
    (folder / "adapter_config.json").write_text(text)


def replace_in(file: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(run: Path) -> None:
        text = (run / file).read_text()
        assert old in text
        (run / file).write_text(text.replace(old, new, 1))

    return edit


def test_what_a_run_wrote_is_as_it_was_sealed_and_the_users_own(run: Path, home: Path) -> None:
    assert broken_seal(run) is None
    assert is_ours(run)
    seal = read_seal(run)
    assert seal is not None
    assert (seal.points, list(seal.folders)) == (1, ["stages/000-alpha"])
    assert stat.S_IMODE((home / "key").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("edit", "part"),
    [
        (replace_in("scores.jsonl", '"score": 0.0', '"score": 1.0'), "scores.jsonl"),
        (replace_in("scores.jsonl", '"completion": "no"', '"completion": "No"'), "scores.jsonl"),
        (replace_in("config.json", '"seed": 0', '"seed": 1'), "config.json"),
        (replace_in("config.json", '"lr"', '"lr" '), "config.json"),
        (replace_in("stages/000-alpha/adapter_config.json", "16", "1600"), "stages/000-alpha"),
        (lambda run: (run / "stages/000-alpha/adapter_config.json").unlink(), "stages/000-alpha"),
        (lambda run: write(run / "stages/000-alpha", ""), "stages/000-alpha"),
        (lambda run: (run / "scores.jsonl").write_text(""), "scores.jsonl has 0 bytes"),
    ],
)
def test_an_edit_is_noticed_and_nothing_goes_on_from_it(
    run: Path, edit: Callable[[Path], None], part: str
) -> None:
    edit(run)
    problem = broken_seal(run)
    assert problem is not None
    assert part in problem
    with pytest.raises(CheckpointError, match="edited or damaged"):
        RunDir.open(run)
    with pytest.raises(CheckpointError, match="edited or damaged"):
        load_run(run, trust=True)


def test_the_report_of_an_edited_run_begins_with_that(run: Path) -> None:
    assert not verdict(build_report(run)).startswith("Not what the run wrote")
    replace_in("scores.jsonl", '"score": 0.0', '"score": 1.0')(run)
    assert verdict(build_report(run)).startswith("Not what the run wrote: the first ")


def test_a_stage_that_was_removed_for_its_room_is_no_edit(run: Path) -> None:
    shutil.rmtree(run / "stages" / "000-alpha")
    assert broken_seal(run) is None


def test_records_after_the_last_seal_are_no_edit(run: Path) -> None:
    with RunDir.open(run) as run_dir:
        run_dir.events.append(EvaluationEvent(2, 1, 1.0))
    assert broken_seal(run) is None


def test_a_kill_between_cutting_and_sealing_is_no_edit(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunDir.open(run) as run_dir:
        for writer in (run_dir.scores, run_dir.events, run_dir.metrics):
            monkeypatch.setattr(writer, "truncate", lambda position: None)
        run_dir.load_state()
    assert broken_seal(run) is None
    with RunDir.open(run) as run_dir:
        run_dir.load_state()
    assert broken_seal(run) is None


def test_a_removed_resume_folder_throws_no_records_away(run: Path) -> None:
    (run / "resume" / "000-001" / "state.json").unlink()
    (run / "resume" / "000-001" / "checksums.json").unlink()
    (run / "resume" / "000-001").rmdir()
    before = (run / "scores.jsonl").read_bytes()
    with RunDir.open(run) as run_dir, pytest.raises(CheckpointError, match="there are records"):
        run_dir.load_state()
    assert (run / "scores.jsonl").read_bytes() == before != b""


def test_a_run_that_never_came_to_a_resume_point_begins_again(tmp_path: Path) -> None:
    with RunDir.create(config(tmp_path), {}, []) as run_dir:
        write_row(run_dir, 0, OUTCOMES[0])
    with RunDir.open(run_dir.path) as again:
        assert again.load_state() is None
    assert (run_dir.path / "scores.jsonl").read_bytes() == b""


def test_a_seal_made_to_fit_without_the_key_is_not_the_users(run: Path) -> None:
    replace_in("config.json", '"seed": 0', '"seed": 1')(run)
    seal = json.loads((run / "seal.json").read_text())
    seal["config"] = hashlib.sha256((run / "config.json").read_bytes()).hexdigest()
    (run / "seal.json").write_text(json.dumps(seal))
    assert broken_seal(run) is None
    assert not is_ours(run)
    with RunDir.open(run) as run_dir:  # who continues it does not make it his
        run_dir.mark("finished")
    assert not is_ours(run)


def test_the_key_of_the_environment_comes_first(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a key of the whole cluster")
    assert not is_ours(run)
    with RunDir.create(config(tmp_path / "shared"), {}, []) as run_dir:
        pass
    assert is_ours(run_dir.path)
    monkeypatch.setenv("FASTSLOW_HOME", str(tmp_path / "home of another machine"))
    assert is_ours(run_dir.path)


def test_a_home_that_cannot_be_written_stops_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTSLOW_HOME", str(tmp_path / "file" / "home"))
    with RunDir.create(config(tmp_path), {}, []) as run_dir:
        run_dir.mark("finished")
    assert broken_seal(run_dir.path) is None
    assert not is_ours(run_dir.path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"run": "r", "config": 3}',
        '{"run": "r", "config": "", "folders": {"../x": ""}}',
        '{"run": "r", "config": "", "records": {"/etc/x": {"bytes": 1, "sha256": ""}}}',
    ],
)
def test_what_is_not_a_seal_is_a_typed_error(run: Path, text: str) -> None:
    (run / "seal.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"seal\.json: not a seal"):
        broken_seal(run)


def test_what_a_configuration_would_have_called_or_imported_is_listed() -> None:
    data = {
        "tracking": [{"kind": "mlflow", "uri": "http://a.example/x"}, {"folder": "/srv"}],
        "engine": {"urls": ["http://b.example"], "python": None, "arguments": ["--x"]},
        "fast": {"reflection": {"model": "openai/gpt-5", "api_base": "http://c.example"}},
        "trackers": [{"kind": "wandb", "project": "x"}],
        "publish": "s3://bucket/x",
        "stages": [{"task": "their.module:function"}, {"task": "word_valence"}],
        "tasks": {"t": {"use": "text_classification", "data": "https://d.example/t.csv"}},
        "slow": {"remedies": [{"kind": "custom", "use": "a.b:c"}], "lr": 1e-4},
        "runs_dir": "../elsewhere",
        "name": "a: b",
    }
    assert [line.partition(" = ")[0] for line in followed(data)] == [
        "tracking.0.uri",
        "tracking.1.folder",
        "engine.urls",
        "engine.arguments",
        "fast.reflection.model",
        "fast.reflection.api_base",
        "trackers.0.kind",
        "publish",
        "stages.0.task",
        "tasks.t.data",
        "slow.remedies.0.use",
        "runs_dir",
    ]
    quiet = {"runs_dir": "runs", "tracking": {"kind": "mlflow", "uri": None}}
    assert not list(followed(quiet | {"fast": {"reflection": {"model": "self", "api_base": None}}}))


def test_a_folder_of_somebody_else_is_not_acted_on_unless_its_user_says_so(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTSLOW_HOME", str(tmp_path / "another user"))
    with pytest.raises(CheckpointError, match=r"stages\.0\.task = planted_module:task") as error:
        load_run(_naming(run, "planted_module:task"))
    assert "--trust" in str(error.value)


def _naming(run: Path, task: str) -> Path:
    """The folder with a configuration that names `task`, and no seal."""
    data = json.loads((run / "config.json").read_text())
    data["stages"][0]["task"] = task
    (run / "config.json").write_text(json.dumps(data))
    (run / "seal.json").unlink()
    return run
