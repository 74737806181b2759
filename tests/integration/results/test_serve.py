"""The pages of `fastslow serve`, asked for without a socket."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fastslow.results.report import Report, build_report
from tests.support.asgi import ask
from tests.support.hostile_folder import write_hostile_run
from tests.support.paths import ROOT
from tests.support.run_folder import OUTCOMES, write_run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    runs = tmp_path / "runs"
    write_run(runs)
    hostile = write_hostile_run(runs)
    hostile.rename(runs / "hostile")
    half = write_run(runs, OUTCOMES[:2])
    half.rename(runs / "half & <b>half")
    kept = ROOT / "runs" / "reference" / "ablations" / "orders"
    shutil.copytree(kept, runs / "orders")
    (tmp_path / "secret.txt").write_text("secret")
    return runs


@pytest.fixture
def app(root: Path) -> Any:
    pytest.importorskip("starlette")
    from fastslow.results.live.server import build_app

    return build_app(root)


def test_every_page_is_there_with_a_strict_policy_and_nothing_of_a_run_is_markup(
    app: Any, root: Path
) -> None:
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    small = next(path.name for path in root.iterdir() if "small" in path.name)
    for path in (
        *("/", "/part/runs", "/run/hostile", "/part/now/hostile", "/part/record/hostile"),
        *("/report/hostile", f"/compare?run=hostile&run={small}", "/ablation/orders"),
        *(
            "/run/half%20%26%20%3Cb%3Ehalf",
            "/part/record/half%20%26%20%3Cb%3Ehalf",
        ),
    ):
        answer = ask(app, path)
        assert answer.status == 200, (path, answer.text[:300])
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self';" in policy
        assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")
        assert "access-control-allow-origin" not in answer.headers
        for attack in ("<script>window", "<img src=x", "<b>half", "\x1b", "\u202e"):
            assert attack not in answer.text, path
    assert {path: path.lstat().st_mtime_ns for path in root.rglob("*")} == before


def test_the_list_shows_each_run_with_its_state(app: Any, root: Path) -> None:
    (root / "hostile" / "scores.jsonl").write_text("<script>nonsense\n")
    text = ask(app, "/part/runs").text
    assert text.count('<th scope="row"') == 3
    assert ">finished<" in text
    assert ">died<" in text
    assert ">unreadable<" in text
    assert "not a record, got b&#39;&lt;script&gt;nonsense" in text
    assert 'href="/ablation/orders"' in text
    assert ask(app, "/report/hostile").status == 422
    assert "not a record" in ask(app, "/part/record/hostile").text


@pytest.mark.parametrize(
    "path",
    [
        *("/run/..", "/run/../secret.txt", "/run/%2e%2e%2fsecret.txt", "/run/", "/report/orders"),
        *("/run//etc", "/ablation/..", "/ablation/hostile", "/compare?run=../secret.txt&run=x"),
        *("/live.js/../../site.py", "/nothing"),
    ],
)
def test_only_what_is_listed_can_be_asked_for(app: Any, path: str) -> None:
    answer = ask(app, path)
    assert answer.status == 404
    assert "secret" not in answer.text.replace("secret.txt", "")


def test_links_lead_nowhere(app: Any, root: Path) -> None:
    (root / "link").symlink_to(root / "hostile")
    assert ask(app, "/run/link").status == 404
    (root / "hostile" / "figures").mkdir(exist_ok=True)
    (root / "hostile" / "figures" / "x").symlink_to(root.parent / "secret.txt")
    for path in ("/report/hostile", "/part/record/hostile"):
        assert "a link, got one to" in ask(app, path).text


def test_other_names_and_other_methods_are_refused(app: Any) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil", "", "127.0.0.1:x"):
        assert ask(app, "/", host=host).status == 421, host
    for host in ("127.0.0.1", "localhost:8765", "[::1]:8765"):
        assert ask(app, "/", host=host).status == 200, host
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        assert ask(app, "/", method).status == 405, method


def test_a_comparison_of_one_run_says_what_it_needs(app: Any) -> None:
    answer = ask(app, "/compare?run=hostile")
    assert answer.status == 422
    assert "needs two run folders at least" in answer.text


def test_a_report_is_made_again_only_after_the_run_went_on(
    app: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []

    def read(path: Path) -> Report:
        reads.append(path)
        return build_report(path)

    monkeypatch.setattr("fastslow.results.live.site.build_report", read)
    name = next(path.name for path in root.iterdir() if "small" in path.name)
    first = ask(app, f"/report/{name}").text
    assert ask(app, f"/report/{name}").text == first
    assert len(reads) == 1
    card = json.loads((root / name / "run.json").read_text())
    (root / name / "run.json").write_text(json.dumps(card | {"state": "failed"}))
    assert "The run is failed" in ask(app, f"/report/{name}").text
