"""The pages of the guide, gone through as a reader would, with the tiny model."""

import csv
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastslow.cli.main import main
from tests.support.paths import ROOT

GUIDE = ROOT / "docs" / "guide"
PAGES = sorted(path.name for path in GUIDE.glob("*.md") if path.name != "python.md")
CHEAP = (
    *("check", "tasks", "remedies", "models", "runs", "report", "prompts", "compare", "gate"),
    *("export", "rollback", "diff", "init", "ablate"),
)
"""Commands that a page may run; of the others tests/unit/test_docs.py parses the words."""


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Language and content of every fenced block of a page, in order."""
    text = (GUIDE / page).read_text(encoding="utf-8")
    yield from re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    """The run that the page on Python trains: its blocks are carried out one after the other."""
    folder = home / "python"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTSLOW_HOME", str(home / "cache"))
        patch.chdir(folder)
        assert main(["models", "fetch", "tiny-random"]) == 0
        names: dict[str, object] = {}
        for language, block in blocks("python.md"):
            assert language == "python"
            exec(compile(block, "python.md", "exec"), names)
    return Path(next(folder.glob("runs/*-tiny-*"))).resolve()


def is_cheap(words: list[str]) -> bool:
    if words[0] not in CHEAP or "--calibrate" in words or "FOLDER" in " ".join(words):
        return False
    return words[0] != "ablate" or "--dry-run" in words


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_writes_and_calls_works(
    page: str, run: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTSLOW_HOME", str(home / "cache"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, tmp_path / "runs" / run.name)
    shutil.copytree(run, tmp_path / "other")
    with (tmp_path / "tickets.csv").open("w", newline="") as file:
        urgencies = ("low", "medium", "high")
        rows = [(f"ticket {n} is about {n % 7}", urgencies[n % 3]) for n in range(90)]
        csv.writer(file).writerows([("text", "urgency"), *rows])
    for language, block in blocks(page):
        if name := re.match(r"# ([\w/]+\.(?:py|yaml))\n", block):
            (tmp_path / name[1]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name[1]).write_text(block)
        lines = block.splitlines() if language == "bash" else ()
        for line in lines:
            program, *words = shlex.split(line, comments=True) or [""]
            if program == "fastslow" and is_cheap(words):
                places = {"RUN": f"runs/{run.name}", "OTHER_RUN": "other", "OLD_RUN": "other"}
                code = main([places.get(word, word) for word in words])
                assert code in ((0, 3) if words[0] == "gate" else (0,)), line
