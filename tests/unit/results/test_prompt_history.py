"""`fastslow prompts` on a small run folder: no model, no network."""

from pathlib import Path

import pytest

from fastslow.cli.main import main
from fastslow.core.prompts import Candidate, Demonstration, Lineage, PromptProgram
from fastslow.records.events import PopulationEvent, TextEvent
from fastslow.records.jsonl import RecordWriter
from tests.support.run_folder import text_of, write_run

SEED, TASK_TEXT = PromptProgram("alpha: "), text_of("alpha")
FIRST = PromptProgram(
    "Name it.",
    (Demonstration("Peru", "America"),),
    Lineage("demos-labelled", SEED.text_hash, 0, 0, "0f0f0f"),
)
SECOND = PromptProgram(
    "Name it.\n\x1b[31mNow.",
    (Demonstration("Peru", "America"), Demonstration("Chad", "Africa")),
    Lineage("demos-bootstrapped", FIRST.text_hash, 1, 0, "ababab"),
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = write_run(tmp_path)
    with RecordWriter(path / "events.jsonl") as events:
        events.append(
            PopulationEvent(0, 0, "alpha", (Candidate(FIRST, {"a": 1.0, "b": 0.0}),)),
            TextEvent(0, "alpha", "live", FIRST, 0.25, 4),
            PopulationEvent(
                1, 0, "alpha", (Candidate(SECOND, {"a": 1.0}), Candidate(FIRST, {"a": 0.0}))
            ),
            TextEvent(1, "alpha", "live", SECOND, 0.75, 4),
        )
    return path


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["prompts", *words]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    return printed.splitlines()


def test_prompts_are_listed_by_cycle_with_scores_and_the_deployed_one(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(capsys, str(run))
    assert lines[:6] == [
        "stage 1, cycle 1, alpha",
        f"  * {FIRST.text_hash}  0.50 on 2  demos-labelled  1 examples  Name it.",
        "stage 2, cycle 1, alpha",
        f"  * {SECOND.text_hash}  1.00 on 1  demos-bootstrapped  2 examples  "
        r"Name it.\n\x1b[31mNow.",
        f"    {FIRST.text_hash}  0.00 on 1  demos-labelled  1 examples  Name it.",
        "* stage-1: alpha deploys " + f"{TASK_TEXT.text_hash}, validation 0.50 on 32",
    ]
    assert lines[-1] == f"* stage-2: alpha deploys {SECOND.text_hash}, validation 0.75 on 4"


def test_two_prompts_are_compared_by_stage_or_by_the_beginning_of_their_hash(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = [
        "@@ -1,3 +1,6 @@",
        " system: Name it.",
        r"+system: \x1b[31mNow.",
        " user: Peru",
        " assistant: America",
        "+user: Chad",
        "+assistant: Africa",
    ]
    by_stage = shown(capsys, str(run), "--diff", FIRST.text_hash, "stage-2")
    assert by_stage[:2] == [
        f"--- {FIRST.text_hash}",
        f"+++ stage-2 ({SECOND.text_hash})",
    ]
    assert by_stage[2:] == expected
    by_hash = shown(capsys, str(run), "--diff", FIRST.text_hash[:6], SECOND.text_hash)
    assert by_hash[2:] == expected
    same = shown(capsys, str(run), "--diff", "stage-2", SECOND.text_hash)
    assert same == [f"stage-2 and {SECOND.text_hash} are the same prompt."]


def test_a_prompt_is_traced_back_to_the_one_the_task_started_from(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [x for x in shown(capsys, str(run), "--trace", "stage-2") if not x.startswith(" ")]
    assert lines == [
        f"{SECOND.text_hash}  demos-bootstrapped, stage 2, cycle 1, weights ababab, "
        f"from {FIRST.text_hash}",
        f"{FIRST.text_hash}  demos-labelled, stage 1, cycle 1, weights 0f0f0f, "
        f"from {SEED.text_hash}",
        f"{SEED.text_hash}  the prompt the task started from",
    ]


def test_an_unknown_prompt_is_refused_with_the_nearest_name(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prompts", str(run), "--trace", "stage-7"]) == 2
    message = capsys.readouterr().err
    assert "no such prompt, got 'stage-7'. Did you mean 'stage-" in message
    assert main(["prompts", str(run), "--diff", "stage-1", "ffff\x1b"]) == 2
    assert r"got 'ffff\x1b'" in capsys.readouterr().err


def test_a_run_without_a_fast_phase_has_no_prompts_and_a_strange_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path)
    (run / "events.jsonl").write_text("")
    assert shown(capsys, str(run)) == ["No prompts: no fast phase has ended in this run."]
    assert main(["prompts", str(tmp_path)]) == 2
    assert "Give the folder of a run" in capsys.readouterr().err
