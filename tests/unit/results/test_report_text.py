"""What a report looks like: all of it there, nothing in it able to leave its place."""

import re
from pathlib import Path

import pytest

from fastslow.core.prompts import Demonstration, PromptProgram
from fastslow.records.events import CycleEvent, DriftEvent, TextEvent
from fastslow.records.jsonl import RecordWriter, read_events
from fastslow.records.run_folder import RunDir
from tests.support.run_folder import report_json, terminal, write_run

HOSTILE = "```\n# Owned\n[red]loud[/red] <script>x</script> \x1b[31mESC\x07 | a | \u202e `````"


def hostile_run(tmp_path: Path) -> Path:
    run = write_run(tmp_path)
    program = PromptProgram(HOSTILE, (Demonstration(HOSTILE, HOSTILE + "\ud800"),))
    with RunDir.open(run) as run_dir:
        run_dir.events.append(
            TextEvent(2, "gamma", "live", program, None, 0),
            DriftEvent(3, "gamma", "kl_fst", None, HOSTILE, 0, program.text_hash),
        )
    return run


def test_what_a_channel_noted_is_in_the_report(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    event = CycleEvent(1, 0, {"fast": 1}, {"fast": 0.0}, {}, ("stayed away: \x1b[31m`code`",))
    with RecordWriter(run / "events.jsonl") as events:
        events.append(event)
    assert read_events(run / "events.jsonl")[-1] == event
    (note,) = report_json(run)["notes"]
    assert note == {"stage": 1, "cycle": 0, "channel": "fast", "text": event.notes[0]}
    for text in ((run / "report.md").read_text(), terminal(run)):
        assert "Notes" in text
        assert "stayed away" in text
        assert "\x1b" not in text


def test_hostile_text_cannot_leave_its_code_block_in_markdown(tmp_path: Path) -> None:
    run = hostile_run(tmp_path)
    report_json(run)
    text = (run / "report.md").read_text(encoding="utf-8")
    assert all(c == "\n" or c.isprintable() for c in text)
    fence: str | None = None
    inside: list[str] = []
    outside: list[str] = []
    for line in text.splitlines():
        found = re.match(r"^(`{3,})(text)?$", line)
        if found and fence is None:
            fence = found[1]
        elif found and len(found[1]) >= len(fence or "") and not found[2]:
            fence = None
        else:
            (inside if fence else outside).append(line)
    assert fence is None
    assert "# Owned" in inside
    assert "# Owned" not in outside
    assert not any("<script>" in line for line in outside)
    columns = {
        line.count(" | ") for line in outside if line.startswith("| 3 | deployed prompt | 0.3750")
    }
    assert columns == {4}


def test_hostile_text_cannot_reach_the_terminal(tmp_path: Path) -> None:
    shown = terminal(hostile_run(tmp_path))
    assert all(c == "\n" or c.isprintable() for c in shown)
    assert "[red]loud[/red]" in shown
    assert "\\x1b[31mESC" in shown


def test_report_json_keeps_hostile_text_whole(tmp_path: Path) -> None:
    data = report_json(hostile_run(tmp_path))
    assert data["prompts"]["gamma"]["instruction"] == HOSTILE
    assert data["prompts"]["gamma"]["validation_mean"] is None
    assert data["prompts"]["alpha"]["demonstrations"] == [
        {"question": "alpha?", "answer": "alpha!"}
    ]


def test_the_terminal_shows_what_the_issue_asks_for(tmp_path: Path) -> None:
    shown = terminal(write_run(tmp_path))
    assert shown.startswith("Learned 2 of 3 tasks")
    for word in (
        "0 base",
        "1.00*",
        "(0.12)",
        "forgetting_chaudhry",
        "bwt_gem",
        "fwt_gem",
        "kl_fst",
        "minutes",
        "fast + slow",
        "312",
        "Answer alpha.",
        "learned in the last stage",
    ):
        assert word in shown, word


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_terminal_report_fits_its_width(tmp_path: Path, width: int) -> None:
    assert max(map(len, terminal(write_run(tmp_path), width).splitlines())) <= width
