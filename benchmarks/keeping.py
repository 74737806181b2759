"""Keeps runs as reference runs: what a report needs of them, without weights and others' texts."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastslow.records.data import DATA_FILE
from fastslow.results.report import write_report

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "runs" / "reference"
KEPT = ("run.json", "config.json", "environment.json", "scores.jsonl", "events.jsonl")
README_RUN, README_FIGURE = "demo", "stages.svg"
"""The one run whose page is kept, and the figure of it for the README's first screen."""
WITHHELD = frozenset({"agnews", "agnews-slow-only"})
"""Runs on texts that are not ours to publish: scores are kept, texts are not."""


def keep(run: Path, name: str) -> Path:
    """Copy what a report needs of `run` to runs/reference/`name`, replacing what was there."""
    folder = REFERENCE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in KEPT:
        shutil.copyfile(run / file, folder / file)
    if (run / DATA_FILE).is_file():  # runs of older versions have none
        shutil.copyfile(run / DATA_FILE, folder / DATA_FILE)
    if (run / "probe").is_dir():
        shutil.copytree(run / "probe", folder / "probe")
    if name in WITHHELD:
        for file in ("scores.jsonl", "events.jsonl"):
            rows = [withheld(json.loads(line)) for line in (run / file).read_text().splitlines()]
            (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_kept_report(name)
    return folder


def keep_figures(
    folder: Path, file: Path, command: str, read_run: Callable[[Path], Mapping[str, Any]]
) -> None:
    """Write what `read_run` gives for every finished run of an ablation, by arm and seed."""
    runs: dict[str, dict[str, Mapping[str, Any]]] = {}
    for card in sorted(folder.glob("*/run.json")):
        data = json.loads(card.read_text())
        if data["state"] == "finished":
            arm, _, seed = data["name"].rpartition("-s")
            runs.setdefault(arm, {})[seed] = read_run(card.parent)
    file.write_text(json.dumps({"command": command, "arms": runs}, indent=1) + "\n")
    print(f"written: {file.relative_to(ROOT)}")


def write_kept_report(name: str) -> None:
    """Write the report of a kept run again, as this version has it."""
    folder = REFERENCE / name
    write_report(folder)
    if name != README_RUN:  # `fastslow report` makes them again
        shutil.rmtree(folder / "figures")
        (folder / "report.html").unlink()
        return
    for file in (folder / "figures").iterdir():
        if file.name != README_FIGURE:
            file.unlink()  # report.html holds them all


def withheld(data: Any) -> Any:
    """The record without other people's texts, and without what the model wrote about them.

    Questions are in texts, completions in scores and, as token ids, in what the base drew; the
    reason of a score quotes its completion. The reason of a figure is ours and stays.
    """
    if isinstance(data, list | tuple):
        return [withheld(item) for item in data]
    if not isinstance(data, dict):
        return data
    if "completions" in data:
        return {**data, "completions": [[] for _ in data["completions"]]}
    texts = ("question", "completion", *(("reason",) if "completion" in data else ()))
    return {
        key: f"(withheld, {len(value)} characters)"
        if key in texts and isinstance(value, str)
        else withheld(value)
        for key, value in data.items()
    }


def kept(name: str) -> bool:
    """Whether there is a reference run called `name`."""
    return (REFERENCE / name / "scores.jsonl").is_file()
