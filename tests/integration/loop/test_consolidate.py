"""A run that distils its prompts into the weights at the end of a stage, and drops them."""

import json
from pathlib import Path

import pytest

from fastslow.core.prompts import Demonstration, PromptProgram
from fastslow.loop.run import Run
from fastslow.policy.policy import seed_program
from fastslow.records.events import RemedyEvent, TextEvent
from fastslow.records.jsonl import read_events, read_scores
from fastslow.results.deploy.export import export
from fastslow.results.report.write import write_report
from fastslow.task.definition import Task
from tests.support.runs import start
from tests.support.toy_tasks import letters

PROMPT = PromptProgram("Write letters.", (Demonstration("zz", "bbbb"), Demonstration("q", "bb")))


def evolve(run: Run, task: Task, stage: int) -> None:
    """In place of `choose_text`."""
    run.policy.live[task.name] = PROMPT
    event = TextEvent(stage, task.name, "live", PROMPT, 0.5, 2, rollouts=2)
    run.run_dir.events.append(event)


@pytest.mark.parametrize("keep_text", [True, False])
def test_the_prompt_stays_deployed_or_goes_and_the_report_has_both_scores(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, keep_text: bool
) -> None:
    monkeypatch.setattr("fastslow.loop.stages.choose_text", evolve)
    remedy = f"{{kind: consolidate, updates: 2, problems: 2, group: 2, keep_text: {keep_text}}}"
    run = start(
        tmp_path,
        [
            f"model.name={tiny_folder}",
            "stages=[{task: first, cycles: 1}, {task: second, cycles: 1}]",
            f"slow.remedies=[{remedy.lower()}]",
        ],
        finish=write_report,
    )
    events = read_events(run / "events.jsonl")
    reports = [e for e in events if isinstance(e, RemedyEvent)]
    assert [(e.name, e.figures["updates"]) for e in reports] == [("consolidate", 2.0)] * 2
    assert all(e.rollouts == 2 * 2 * 2 + 4 * 2 for e in reports)
    seed = seed_program(letters.build("first"))
    deployed = PROMPT if keep_text else seed
    last = {(e.stage, e.task): e.program for e in events if isinstance(e, TextEvent)}
    assert last == {(0, "first"): deployed, (1, "second"): deployed}
    rows = [r for r in read_scores(run / "scores.jsonl") if r.row == 1 and r.cycle is None]
    by_role = {r.sample.prompt_policy: r.sample.text_hash for r in rows if r.sample.task == "first"}
    assert by_role["live"] == deployed.text_hash
    assert by_role["seed"] == seed.text_hash
    data = json.loads((run / "report.json").read_text())
    assert [r["figures"].keys() >= {"with_text_after"} for r in data["remedies"]] == [True, True]
    assert f"`{deployed.text_hash}`" in (run / "report.md").read_text()
    assert (export(run, out=tmp_path / "export") / "prompts" / "second.json").is_file()
