"""Runs watched from their folders: in a terminal, and by `fastslow serve` without a socket."""

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fastslow.cli.main import main
from fastslow.records.events import StepEvent
from fastslow.records.progress_file import PROGRESS_FILE, ProgressWriter
from fastslow.records.run_folder import RunDir
from fastslow.results.live.catalogue import Catalogue
from fastslow.results.live.snapshot import RunWatch, Snapshot
from fastslow.results.live.terminal import sparkline, view
from fastslow.results.report.build import build_report
from fastslow.results.report.sections.metrics import Metrics
from tests.support.hostile_folder import write_hostile_run
from tests.support.paths import ROOT
from tests.support.run_folder import OUTCOMES, write_row, write_run, write_stage

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
    assert "all 3 stages measured" in text
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


@pytest.fixture
def root(tmp_path: Path) -> Path:
    runs = tmp_path / "runs"
    write_run(runs)
    hostile = write_hostile_run(runs)
    hostile.rename(runs / "hostile")
    half = write_run(runs, OUTCOMES[:2])
    half.rename(runs / "half & <b>half</b>")
    kept = ROOT / "runs" / "reference" / "ablations" / "orders"
    shutil.copytree(kept, runs / "orders")
    (tmp_path / "secret.txt").write_text("secret")
    return runs


@pytest.fixture
def client(root: Path) -> Iterator[Any]:
    pytest.importorskip("starlette")
    from starlette.testclient import TestClient

    from fastslow.results.live.server import build_app

    with TestClient(build_app(root), base_url="http://127.0.0.1:8765") as opened:
        yield opened


def test_every_page_is_there_with_a_strict_policy_and_nothing_of_a_run_is_markup(
    client: Any, root: Path
) -> None:
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    small = next(path.name for path in root.iterdir() if "small" in path.name)
    for path in (
        *("/", "/part/runs", "/run/hostile", "/part/now/hostile", "/part/record/hostile"),
        *("/report/hostile", f"/compare?run=hostile&run={small}", "/ablation/orders"),
        *(
            "/run/half%20%26%20%3Cb%3Ehalf%3C/b%3E",
            "/part/record/half%20%26%20%3Cb%3Ehalf%3C%2Fb%3E",
        ),
    ):
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.text[:300])
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self';" in policy
        assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")
        assert "access-control-allow-origin" not in answer.headers
        for attack in ("<script>window", "<img src=x", "<b>half", "\x1b", "\u202e"):
            assert attack not in answer.text, path
    assert {path: path.lstat().st_mtime_ns for path in root.rglob("*")} == before


def test_the_list_shows_each_run_with_its_state(client: Any, root: Path) -> None:
    (root / "hostile" / "scores.jsonl").write_text("<script>nonsense\n")
    text = client.get("/part/runs").text
    assert text.count('<th scope="row"') == 3
    assert ">finished<" in text
    assert ">died<" in text
    assert ">unreadable<" in text
    assert "not a record, got b&#39;&lt;script&gt;nonsense" in text
    assert 'href="/ablation/orders"' in text
    assert client.get("/report/hostile").status_code == 422
    assert "not a record" in client.get("/part/record/hostile").text


@pytest.mark.parametrize(
    "path",
    [
        *("/run/..", "/run/../secret.txt", "/run/%2e%2e%2fsecret.txt", "/run/", "/report/orders"),
        *("/run//etc", "/ablation/..", "/ablation/hostile", "/compare?run=../secret.txt&run=x"),
        *("/live.js/../../site.py", "/nothing"),
    ],
)
def test_only_what_is_listed_can_be_asked_for(client: Any, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "secret" not in answer.text.replace("secret.txt", "")


def test_links_lead_nowhere(client: Any, root: Path) -> None:
    (root / "link").symlink_to(root / "hostile")
    assert client.get("/run/link").status_code == 404
    (root / "hostile" / "figures").mkdir(exist_ok=True)
    (root / "hostile" / "figures" / "x").symlink_to(root.parent / "secret.txt")
    for path in ("/report/hostile", "/part/record/hostile"):
        assert "a link, got one to" in client.get(path).text


def test_other_names_and_other_methods_are_refused(client: Any) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil", "", "127.0.0.1:x"):
        assert client.get("/", headers={"host": host}).status_code == 421, host
    for host in ("127.0.0.1", "localhost:8765", "[::1]:8765"):
        assert client.get("/", headers={"host": host}).status_code == 200, host
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        assert client.request(method, "/").status_code == 405, method


def test_a_comparison_of_one_run_says_what_it_needs(client: Any) -> None:
    answer = client.get("/compare?run=hostile")
    assert answer.status_code == 422
    assert "needs two run folders at least" in answer.text


def test_a_report_is_made_again_only_after_the_run_went_on(
    client: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastslow.results.live import site

    reads = []
    inner = site.build_report
    monkeypatch.setattr(site, "build_report", lambda path: reads.append(path) or inner(path))
    name = next(path.name for path in root.iterdir() if "small" in path.name)
    first = client.get(f"/report/{name}").text
    assert client.get(f"/report/{name}").text == first
    assert len(reads) == 1
    card = json.loads((root / name / "run.json").read_text())
    (root / name / "run.json").write_text(json.dumps(card | {"state": "failed"}))
    assert "The run is failed" in client.get(f"/report/{name}").text


def test_serve_says_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["serve", str(tmp_path / "gone")]) == 2
    assert "no such folder" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["serve", str(tmp_path)]) == 2
    assert "pip install 'fastslow[serve]'" in capsys.readouterr().err
