"""`fastslow serve` in a real browser, while a tiny run trains, is killed and resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastslow.cli.main import main
from tests.support.browser import NAMES, Browser, chromium
from tests.support.page_checks import WIDTHS, cut_off
from tests.support.paths import ROOT
from tests.support.runs import TOY, newest
from tests.support.servers import free_port

PROGRAM = chromium()
WITHIN_S = 240.0
pytestmark = [
    pytest.mark.network,
    pytest.mark.timeout(900),
    pytest.mark.skipif(PROGRAM is None, reason=f"none of {', '.join(NAMES)} is on PATH"),
]
SLOW = """
import sys, time
from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.cli.main import main

inner = FastSlowTrainer.update

def update(*args):
    time.sleep(1.0)
    return inner(*args)

FastSlowTrainer.update = update
sys.exit(main(sys.argv[1:]))
"""
"""A run whose updates take so long that one can look at them."""
FIGURES = """
Object.fromEntries(
  [...document.querySelectorAll('[data-figure]')].map(e => [e.dataset.figure, e.textContent]))
"""
CELLS = """
[...document.querySelectorAll('.heat .score')].map(e => +e.textContent.replace(/[()*]/g, ''))
"""
NUM_FIGURES = "document.querySelectorAll('figure').length"


def until(check: Any, what: str) -> Any:
    deadline = time.monotonic() + WITHIN_S
    while not (result := check()):
        assert time.monotonic() < deadline, f"it did not come: {what}"
        time.sleep(0.2)
    return result


def fastslow(folder: Path, log: str, *words: str) -> "subprocess.Popen[bytes]":
    with (folder / log).open("ab") as file:
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=file,
            stderr=file,
        )


class Served:
    """A server over the runs of a folder, and its log."""

    def __init__(self, folder: Path) -> None:
        (folder / "runs").mkdir(exist_ok=True)
        self.port, self.log = free_port(), folder / "serve.log"
        words = ("-m", "fastslow", "serve", "runs", "--port", str(self.port))
        self.process = fastslow(folder, "serve.log", *words)
        until(self._is_up, "the server")

    def _is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(self.url("/part/runs"), timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def end(self) -> str:
        """What it printed until Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)
        return self.log.read_text()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with Browser(PROGRAM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def figures(browser: Browser) -> dict[str, str]:
    """The figures at the top of the page of a run, by their names."""
    by_name: dict[str, str] = browser.value(FIGURES)
    return by_name


def state(browser: Browser) -> str:
    return str(browser.value("document.querySelector('[data-state]')?.dataset.state || ''"))


def assert_quiet(browser: Browser) -> None:
    """No exception, no error or warning on the console, nothing refused by the policy."""
    assert browser.named("Runtime.exceptionThrown", "Page.javascriptDialogOpening") == []
    assert [e for e in browser.named("Log.entryAdded") if e["entry"]["level"] != "verbose"] == []
    assert browser.named("Runtime.consoleAPICalled") == []
    failed = browser.named("Network.loadingFailed")
    assert [event for event in failed if not event.get("canceled")] == []
    answers = [e["response"] for e in browser.named("Network.responseReceived")]
    assert {answer["status"] for answer in answers} <= {200, 204}
    assert all(answer["url"].startswith("http://127.0.0.1:") for answer in answers)


def test_a_run_is_watched_while_it_trains_dies_and_is_resumed(
    browser: Browser, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy.yaml").write_text(TOY)
    served = Served(tmp_path)
    try:
        words = ("-c", SLOW, "train", "toy.yaml", f"model.name={tiny_folder}")
        training = fastslow(tmp_path, "train.log", *words)
        card = tmp_path / "runs"
        until(lambda: list(card.glob("*/run.json")), "a run folder")
        run = newest(tmp_path)
        browser.open(served.url(f"/run/{run.name}"), width=1440)
        until(lambda: state(browser) == "running", "running")
        until(lambda: "slow/reward" in figures(browser), "a reward")
        assert "stage 1/2 first" in browser.value("document.querySelector('.now').textContent")
        training.kill()
        training.wait()
        until(lambda: state(browser) == "died", "died")
        resumed = fastslow(tmp_path, "train.log", "-c", SLOW, "resume", str(run))
        until(lambda: state(browser) == "running", "running again")
        assert resumed.wait(timeout=WITHIN_S) == 0, (tmp_path / "train.log").read_text()[-2000:]
        until(lambda: state(browser) == "finished", "finished")
        shown = figures(browser)
        report = json.loads((run / "report.json").read_text())
        metrics = {name: figure["value"] for name, figure in report["metrics"].items()}
        assert shown["average accuracy"] == f"{metrics['average_accuracy']:.2f}"
        assert shown["learning accuracy"] == f"{metrics['learning_accuracy']:.2f}"
        assert shown["forgetting"] == f"{metrics['forgetting_chaudhry']:+.2f}"
        assert shown["backward transfer"] == f"{metrics['bwt_gem']:+.2f}"
        rollouts = report["rollouts"]
        assert shown["rollouts to train"] == f"{rollouts['fast'] + rollouts['slow']:,}"
        cells = browser.value(CELLS)
        expected = [round(cell, 2) for row in report["scores"] for cell in row]
        assert cells == pytest.approx(expected, abs=0.0051)
        until(lambda: browser.value(NUM_FIGURES) == 3, "figures")
        assert_quiet(browser)
        monkeypatch.chdir(tmp_path)
        assert main(["watch", str(run)]) == 0
    finally:
        printed = served.end()
    assert "error" not in printed.lower(), printed
    assert "Traceback" not in printed, printed


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The kept runs and ablations of this repository."""
    folder = tmp_path_factory.mktemp("kept")
    shutil.copytree(ROOT / "runs" / "reference", folder / "runs")
    served = Served(folder)
    yield served
    assert "Traceback" not in served.end()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "path", ["/", "/run/demo", "/report/demo", "/compare?run=agnews&run=agnews-slow-only"]
)
def test_nothing_sticks_out_of_a_page_that_is_served(
    browser: Browser, kept: Served, path: str, width: int
) -> None:
    browser.open(kept.url(path), width=width)
    if path.startswith("/run/"):
        until(lambda: browser.value(NUM_FIGURES) == 3, "figures")
    assert cut_off(browser) == []
    assert_quiet(browser)


def test_what_is_chosen_and_opened_stays_when_the_list_is_read_again(
    browser: Browser, kept: Served
) -> None:
    browser.open(kept.url("/"), width=1440)
    browser.value("document.querySelectorAll('input')[1].click()")
    part = "document.querySelector('[data-live]')"
    browser.value(f"{part}.latest = 'old'; {part}.querySelector('h2').textContent = 'old'")
    until(lambda: browser.value(f"{part}.querySelector('h2').textContent") == "Ablations", "list")
    assert browser.value("document.querySelectorAll('input')[1].checked")
    assert browser.value("document.querySelectorAll('input:checked').length") == 1
    assert_quiet(browser)


def test_a_server_that_is_gone_is_said_on_the_page(browser: Browser, tmp_path: Path) -> None:
    served = Served(tmp_path)
    browser.open(served.url("/"), width=768)
    served.end()
    lost = "document.getElementById('lost').textContent"
    until(lambda: "does not answer" in browser.value(lost), "the word")
