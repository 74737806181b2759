"""Runs watched from their folders: what they are doing, in a terminal, and a list of them."""

import io
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fastslow.cli.main import main
from fastslow.records.events import StepEvent
from fastslow.records.progress_file import PROGRESS_FILE, ProgressWriter
from fastslow.records.run_folder import RunDir
from fastslow.results.live.catalogue import Catalogue
from fastslow.results.live.snapshot import RunWatch, Snapshot
from fastslow.results.live.terminal import sparkline, view
from fastslow.results.live.terminal import watch as follow
from fastslow.results.report.build import build_report
from fastslow.results.report.sections.metrics import Metrics
from tests.support.hostile_folder import write_hostile_run
from tests.support.run_folder import OUTCOMES, report_json, write_row, write_run, write_stage

SAMPLE = "step 3 | text 0123456789ab | e7: 'Peru' -> 'Lima' | reward 0.25 (not it)"


def printed(snapshot: Snapshot, width: int = 100) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(view(snapshot))
    return out.getvalue()


def test_a_run_is_seen_as_it_goes_on(tmp_path: Path) -> None:
    run = write_run(tmp_path, OUTCOMES[:1])
    watch = RunWatch(run)
    first = watch.look()
    assert (first.state, first.rows, len(first.cells)) == ("died", 1, 1)
    with RunDir.open(run) as run_dir:
        ProgressWriter(run, 60.0, lambda: None)("stage 1/3 alpha, cycle 1/1, slow", "2/5", 5.0, 65)
        run_dir.metrics.append(*(StepEvent(0, 0, n, {"slow/reward": n / 4}) for n in (1, 2)))
        run_dir.write_samples(0, "alpha", [SAMPLE], 0)
        second = watch.look()
        assert second.state == "running"
        assert (second.place, second.step) == ("stage 1/3 alpha, cycle 1/1, slow", "2/5")
        assert 65 <= second.elapsed_s < 600
        assert second.remaining_s is not None
        assert second.remaining_s <= 65
        assert (second.curve_name, second.curve) == ("slow/reward", [(0, 0.25), (0, 0.5)])
        assert [sample.example for sample in second.samples] == ["e7"]
        for index, row in enumerate(OUTCOMES[1:]):
            write_stage(run_dir, index, ("alpha", "beta", "gamma")[index])
            write_row(run_dir, index + 1, row)
        run_dir.mark("finished")
    last = watch.look()
    metrics = build_report(run).section(Metrics).metrics
    assert last.state == "finished"
    assert last.metrics["average_accuracy"] == metrics["average_accuracy"].value
    assert last.metrics["forgetting_chaudhry"] == metrics["forgetting_chaudhry"].value
    text = printed(last)
    assert "3 of 3 stages measured" in text
    assert re.search(r"3 gamma +0\.12 +0\.75 +0\.62\*", text), text
    assert "last sample: Peru -> Lima | reward 0.25 (not it)" in text
    assert "slow/reward ▁█ now 0.500" in text


def test_a_folder_that_is_broken_says_so_and_is_read_once_it_is_whole(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    whole = (run / "scores.jsonl").read_text()
    watch = RunWatch(run)
    (run / "scores.jsonl").write_text(whole + "nonsense\n")
    snapshot = watch.look()
    assert snapshot.state == "unreadable"
    assert "not a record, got b'nonsense" in snapshot.reason
    assert "not a record" in printed(snapshot)
    (run / "scores.jsonl").write_text(whole)
    assert watch.look().state == "finished"
    (run / "run.json").unlink()
    assert watch.look().state == "unreadable"


@pytest.mark.parametrize("name", ["scores.jsonl", "run.json", PROGRESS_FILE])
def test_links_are_not_followed(tmp_path: Path, name: str) -> None:
    run, other = write_run(tmp_path / "a"), tmp_path / "other"
    other.write_bytes((run / name).read_bytes() if (run / name).exists() else b"{}")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(other)
    snapshot = RunWatch(run).look()
    assert (snapshot.state, snapshot.reason) == (
        "unreadable",
        f"{name} is a link, and links are not followed",
    )


def test_a_curve_is_a_line_of_bars() -> None:
    assert sparkline([]) == ""
    assert sparkline([1.0, 1.0]) == "▅▅"
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.0, 0.0, 4.0, 4.0], width=2) == "▁█"
    assert len(sparkline([0.0] * 1000)) <= 60


def test_nothing_of_a_run_acts_on_a_terminal(tmp_path: Path) -> None:
    run = write_hostile_run(tmp_path)
    (run / "rollouts").mkdir()
    (run / "rollouts" / "002-000-x.txt").write_text(
        "text 0123456789ab | \x1b[31m: '\x1b]0;owned\x07' -> '[bold]\u202e' | reward 1 (\x00)\n"
    )
    text = printed(RunWatch(run).look(), 400)
    assert "\\x1b]0;owned\\x07 -> [bold]\\u202e | reward 1 (\\x00)" in text
    assert not set(text) & set("\x1b\x07\x00\u202e")


def test_watch_prints_a_run_once_and_fails_where_it_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    for words in ([], ["--once"]):
        assert main(["watch", str(run), *words]) == 0
        assert "average accuracy 0.50" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    (run / "events.jsonl").write_text("{\n")
    assert main(["watch", str(run)]) == 2
    assert "cannot be read, got" in capsys.readouterr().err


def test_runs_and_ablations_are_listed_and_read_again_only_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, broken = write_run(tmp_path), write_run(tmp_path / "grid")
    (broken / "scores.jsonl").write_text("nonsense\n")
    (tmp_path / "linked").symlink_to(old)
    (tmp_path / "no-run").mkdir()
    (tmp_path / "grid" / "records.jsonl").touch()
    catalogue, looks = Catalogue(tmp_path), []
    inner = RunWatch.look

    def look(watch: RunWatch) -> Snapshot:
        looks.append(watch.path)
        return inner(watch)

    monkeypatch.setattr(RunWatch, "look", look)
    entries = {entry.key: entry.snapshot for entry in catalogue.look()}
    assert entries.keys() == {old.name, f"grid/{broken.name}"}
    assert [s.state for s in entries.values() if s] == ["unreadable", "finished"]
    assert set(catalogue.ablations()) == {"grid"}
    looks.clear()
    catalogue.look()
    assert looks == [broken]  # it may become readable
    with (old / "events.jsonl").open("a") as file:
        file.write("\n")
    catalogue.look()
    assert old in looks
    shutil.rmtree(old)
    assert [entry.key for entry in catalogue.look()] == [f"grid/{broken.name}"]


def test_a_finished_run_is_listed_as_its_report_has_it_unless_its_records_are_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path)
    report_json(run)
    from_records = RunWatch(run).look()
    with monkeypatch.context() as patch:
        patch.setattr(RunWatch, "look", None)  # not needed
        [entry] = Catalogue(tmp_path).look()
    assert entry.snapshot is not None
    assert entry.snapshot.elapsed_s == from_records.elapsed_s
    assert entry.snapshot.place == from_records.place
    for name in ("average_accuracy", "forgetting_chaudhry"):
        assert entry.snapshot.metrics[name] == pytest.approx(from_records.metrics[name], abs=5e-7)
    text = (run / "report.json").read_text().replace('"finished"', '"failed"')
    (run / "report.json").write_text(text.replace('"value": 0.5', '"value": 0.75'))
    [entry] = Catalogue(tmp_path).look()
    assert entry.snapshot == from_records  # the report is of another state
    report_json(run)
    os.utime(run / "scores.jsonl")
    (run / "report.json").write_text((run / "report.json").read_text().replace("0.5", "0.75"))
    os.utime(run / "report.json", (1, 1))
    [entry] = Catalogue(tmp_path).look()
    assert entry.snapshot == from_records


def test_what_there_is_no_time_for_is_listed_and_read_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        write_run(tmp_path)
    catalogue = Catalogue(tmp_path)
    monkeypatch.setattr("fastslow.results.live.catalogue.BUDGET_S", 0.0)
    assert [entry.snapshot for entry in catalogue.look()] == [None] * 3
    monkeypatch.undo()
    assert all(entry.snapshot for entry in catalogue.look())


def test_serve_says_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["serve", str(tmp_path / "gone")]) == 2
    assert "no such folder" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["serve", str(tmp_path)]) == 2
    assert "pip install 'fastslow[serve]'" in capsys.readouterr().err


def test_a_terminal_follows_a_run_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, out = RunWatch(write_run(tmp_path)), io.StringIO()
    last = watch.look()
    states = iter(["running", "unreadable", "running", "finished"])
    monkeypatch.setattr(watch, "look", lambda: replace(last, state=next(states)))
    terminal = Console(file=out, force_terminal=True, width=100, color_system=None)
    assert follow(watch, terminal, 0.0, once=False).state == "finished"
    assert out.getvalue().count("average accuracy") >= 4
    assert next(states, "over") == "over"
