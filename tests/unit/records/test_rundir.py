import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import get_args

import pytest

from fastslow.core.errors import CheckpointError
from fastslow.records.events import EvaluationEvent
from fastslow.records.jsonl import read_events
from fastslow.records.lock import State
from fastslow.records.run_card import read_day, read_dtype
from fastslow.records.run_folder import RunDir
from fastslow.records.state import RunState
from tests.support.run_folder import config


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[RunDir]:
    with RunDir.create(
        config(tmp_path), {"a.yaml": "name: small\n"}, ["fastslow", "train"]
    ) as made:
        yield made


def save(run_dir: RunDir, stage: int, cycle: int, content: str = "weights") -> Path:
    def write_parts(folder: Path) -> None:
        (folder / "adapter").mkdir()
        (folder / "adapter" / "weights.bin").write_text(content)

    return run_dir.save_state(RunState(stage, cycle, True), write_parts)


def points(run_dir: RunDir) -> list[str]:
    return sorted(path.name for path in (run_dir.path / "resume").iterdir())


def test_the_folder_is_named_by_time_name_and_hash_and_says_what_it_was_made_from(
    run_dir: RunDir,
) -> None:
    assert re.fullmatch(r"\d{4}-\d{4}-small-[0-9a-f]{8}", run_dir.path.name)
    made_from = config(run_dir.path.parent)
    assert (run_dir.path / "layers" / "00-a.yaml").read_text() == "name: small\n"
    assert json.loads((run_dir.path / "config.json").read_text()) == made_from.model_dump(
        mode="json"
    )
    card = json.loads((run_dir.path / "run.json").read_text())
    assert card["tasks"] == card["stages"] == ["alpha", "beta", "gamma"]
    assert (card["state"], card["command"]) == ("running", ["fastslow", "train"])


def test_the_day_of_a_run_is_kept_and_that_of_an_older_folder_is_when_it_began(
    tmp_path: Path,
) -> None:
    with RunDir.create(config(tmp_path), {}, [], day=date(2024, 2, 29)) as run_dir:
        path = run_dir.path
    assert read_day(path) == date(2024, 2, 29)
    card = json.loads((path / "run.json").read_text())
    older = {key: value for key, value in card.items() if key != "date"}
    (path / "run.json").write_text(json.dumps(older | {"started": "2026-11-21T16:41:41+00:00"}))
    assert read_day(path) == date(2026, 11, 21)
    (path / "run.json").write_text(json.dumps(older | {"started": None}))
    with pytest.raises(CheckpointError, match="does not say when the run began"):
        read_day(path)


def test_a_run_keeps_the_number_format_it_began_with(tmp_path: Path) -> None:
    with RunDir.create(config(tmp_path), {}, [], dtype="bfloat16") as run_dir:
        path = run_dir.path
    assert read_dtype(path) == "bfloat16"
    card = json.loads((path / "run.json").read_text())
    older = {key: value for key, value in card.items() if key != "dtype"}
    (path / "run.json").write_text(json.dumps(older))
    assert read_dtype(path) is None
    (path / "run.json").write_text(json.dumps(older | {"dtype": "int8"}))
    with pytest.raises(CheckpointError, match="expected float32 or bfloat16, got 'int8'"):
        read_dtype(path)


def test_a_folder_is_never_used_twice(tmp_path: Path) -> None:
    paths = []
    for _ in range(3):
        with RunDir.create(config(tmp_path), {}, []) as made:
            paths.append(made.path)
    assert [path.name.removeprefix(paths[0].name) for path in paths] == ["", "-2", "-3"]


def test_the_environment_has_versions_and_no_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "planted-secret-4711")
    with RunDir.create(config(tmp_path), {}, [], device="cuda:0") as made:
        text = (made.path / "environment.json").read_text()
        written = "".join(p.read_text() for p in made.path.rglob("*") if p.is_file())
    environment = json.loads(text)
    assert environment["device"] == "cuda:0"
    assert environment["card"] is None  # there is none here, whatever the device is called
    assert environment["packages"]["pydantic"]
    assert environment["cpus_usable"] >= 1
    assert "planted-secret" not in written


def test_layers_with_hostile_or_equal_names_stay_inside_the_folder(tmp_path: Path) -> None:
    layers = {"../../x.yaml": "a", "/etc/x.yaml": "b", "..": "c"}
    with RunDir.create(config(tmp_path), layers, []) as made:
        names = sorted(path.name for path in (made.path / "layers").iterdir())
    assert names == ["00-x.yaml", "01-x.yaml", "02-_"]


def test_one_writer_at_a_time_and_the_owner_is_named(run_dir: RunDir) -> None:
    with pytest.raises(CheckpointError, match=f"got lock of process {os.getpid()}"):
        RunDir.open(run_dir.path)
    run_dir.close()
    with RunDir.open(run_dir.path) as again:
        again.mark("interrupted")


def test_the_lock_of_a_process_that_was_killed_is_free(run_dir: RunDir) -> None:
    run_dir.close()
    code = (
        "import os, sys; from pathlib import Path; from fastslow.records.run_folder import RunDir; "
        "RunDir.open(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(run_dir.path)], check=False)
    assert killed.returncode == -9
    with RunDir.open(run_dir.path) as again:
        assert again.load_state() is None


def test_opening_what_is_no_run_folder_says_what_would_be(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not a run folder \(no run\.json\)"):
        RunDir.open(tmp_path)


def test_a_resume_point_brings_back_state_parts_and_the_length_of_the_records(
    run_dir: RunDir,
) -> None:
    run_dir.events.append(EvaluationEvent(0, 12, 1.5))
    state = RunState(1, 2, True, {"fast": 40, "slow": 64}, 12.5)

    def write_parts(folder: Path) -> None:
        (folder / "x.bin").write_bytes(b"abc")

    run_dir.save_state(state, write_parts)
    run_dir.events.append(EvaluationEvent(1, 12, 1.5), EvaluationEvent(2, 12, 1.5))
    run_dir.close()

    with RunDir.open(run_dir.path) as again:
        loaded = again.load_state()
        assert loaded is not None
        assert loaded[0] == state
        assert (loaded[1] / "x.bin").read_bytes() == b"abc"
        assert loaded[1].name == "001-002"
        assert read_events(run_dir.path / "events.jsonl") == [EvaluationEvent(0, 12, 1.5)]
        again.events.append(EvaluationEvent(1, 12, 1.5))
    assert len(read_events(run_dir.path / "events.jsonl")) == 2


def test_a_run_without_a_resume_point_starts_over_with_empty_records(run_dir: RunDir) -> None:
    run_dir.events.append(EvaluationEvent(0, 12, 1.5))
    assert run_dir.load_state() is None
    assert read_events(run_dir.path / "events.jsonl") == []


def test_the_last_two_resume_points_are_kept_in_the_order_of_the_run(run_dir: RunDir) -> None:
    for stage, cycle in [(0, 0), (0, 1), (0, 10), (1, 0)]:
        save(run_dir, stage, cycle)
    assert points(run_dir) == ["000-010", "001-000"]
    loaded = run_dir.load_state()
    assert loaded is not None
    assert loaded[1].name == "001-000"
    assert run_dir.warnings == []


@pytest.mark.parametrize("damage", ["change", "remove", "add", "checksums"])
def test_a_damaged_resume_point_is_named_and_the_one_before_is_used(
    run_dir: RunDir, damage: str
) -> None:
    save(run_dir, 0, 1)
    newest = save(run_dir, 0, 2)
    weights = newest / "adapter" / "weights.bin"
    match damage:
        case "change":
            weights.write_text("weighty")
        case "remove":
            weights.unlink()
        case "add":
            (newest / "extra").touch()
        case "checksums":
            (newest / "checksums.json").write_text("{")
    loaded = run_dir.load_state()
    assert loaded is not None
    assert loaded[1].name == "000-001"
    assert len(run_dir.warnings) == 1
    assert "000-002: damaged" in run_dir.warnings[0]

    assert save(run_dir, 0, 2, "new weights") == newest
    assert weights.read_text() == "new weights"
    assert points(run_dir) == ["000-001", "000-002"]


def test_damage_to_every_resume_point_is_an_error_and_never_a_silent_fresh_start(
    run_dir: RunDir,
) -> None:
    (save(run_dir, 0, 1) / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"state\.json is missing"):
        run_dir.load_state()


def test_a_resume_point_that_fails_half_way_leaves_the_one_before(run_dir: RunDir) -> None:
    save(run_dir, 0, 1)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="earlier ones are intact, got No space left"):
        run_dir.save_state(RunState(0, 2), fail)
    loaded = run_dir.load_state()
    assert loaded is not None
    assert loaded[1].name == "000-001"
    save(run_dir, 0, 2)
    assert points(run_dir) == ["000-001", "000-002"]


def test_records_lost_after_a_resume_point_are_noticed(run_dir: RunDir) -> None:
    run_dir.events.append(EvaluationEvent(0, 12, 1.5))
    save(run_dir, 0, 1)
    run_dir.close()
    (run_dir.path / "events.jsonl").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"events\.jsonl has 0 bytes, expected at least 111"):
        RunDir.open(run_dir.path)


def test_the_state_of_a_run_is_written_with_its_end(run_dir: RunDir) -> None:
    for state in get_args(State):
        run_dir.mark(state)
        card = json.loads((run_dir.path / "run.json").read_text())
        assert card["state"] == state
        assert (card["ended"] is None) == (state == "running")


def test_samples_are_readable_text_without_control_characters(run_dir: RunDir) -> None:
    path = run_dir.write_samples(1, "../..", ["prompt\nZürich", "\x1b[31mred\x07"], cycle=2)
    assert path.parent == run_dir.path / "rollouts"
    assert path.name == "001-002-__...txt"
    assert path.read_text() == "prompt\nZürich\n\\x1b[31mred\\x07\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_place_is_a_typed_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match="Permission denied"):
        RunDir.create(config(tmp_path / "runs"), {}, [])


def test_a_file_where_the_runs_folder_should_be_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(CheckpointError, match="a run folder cannot be made here"):
        RunDir.create(config(tmp_path / "runs"), {}, [])


def test_a_link_in_the_folder_is_refused_before_anything_is_written(
    run_dir: RunDir, tmp_path: Path
) -> None:
    run_dir.close()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept\n")
    (run_dir.path / "metrics.jsonl").unlink()
    (run_dir.path / "metrics.jsonl").symlink_to(elsewhere)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: a link, got one to"):
        RunDir.open(run_dir.path)
    assert elsewhere.read_text() == "kept\n"
