"""A whole run whose reflection LM is a real server on this machine, which dies on the way."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastslow.channels.fast.reflection.endpoint import Answer, Endpoint
from fastslow.cli.main import main
from fastslow.records.events import CycleEvent, PopulationEvent
from fastslow.records.jsonl import read_events
from tests.support.servers import real_server

pytestmark = pytest.mark.network
RUN = """
name: dies
stages: [{task: first, cycles: 2}, {task: second, cycles: 1}]
tasks:
  first: {use: "tests.support.toy_tasks:parity"}
  second: {use: "tests.support.toy_tasks:letters"}
cycle: {optimizer_steps: 1, problems: 2, pool: 4}
fast:
  kind: gepa
  population: 2
  minibatch: 2
  metric_calls: 40
  reflection: {model: MODEL, api_base: ADDRESS, max_tokens: 8, attempts: 2, wait_s: 0.01}
slow: {kind: grpo, group: 4, lr: 0.02}
evaluation: {test_examples: 2, validation_examples: 2, kl_examples: 0}
tracking: null
"""


def test_a_run_outlives_its_reflection_server_and_says_what_was_missed(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, requests = Endpoint.complete, 0
    with real_server(tiny_folder, tmp_path / "serve.log") as server:

        def ask_until_it_dies(self: Endpoint, request: Any) -> Answer:
            nonlocal requests
            requests += 1
            if requests == 2:
                server.kill()
            return ask(self, request)

        monkeypatch.setattr(Endpoint, "complete", ask_until_it_dies)
        text = RUN.replace("MODEL", server.model).replace("ADDRESS", server.api_base)
        (tmp_path / "run.yaml").write_text(text)
        words = [f"model.name={tiny_folder}", f"runs_dir={tmp_path / 'runs'}"]
        assert main(["train", str(tmp_path / "run.yaml"), *words]) == 0

    [run] = (tmp_path / "runs").iterdir()
    assert json.loads((run / "run.json").read_text())["state"] == "finished"
    report = json.loads((run / "report.json").read_text())
    missed = [note for note in report["notes"] if "reflection model stayed away" in note["text"]]
    assert [(n["stage"], n["cycle"], n["channel"]) for n in missed] == [
        (0, 0, "fast"),
        (0, 1, "fast"),
        (1, 0, "fast"),
    ]
    assert all("Connection refused (2 failed attempts)" in note["text"] for note in missed)
    page = (run / "report.md").read_text()
    for place in ("| 1 first | 1 | fast |", "| 1 first | 2 | fast |", "| 2 second | 1 | fast |"):
        assert f"{place} the reflection model stayed away" in page
    account = report["reflection"]
    assert (account["calls"], account["failures"], account["away"]) == (1, 6, 3)

    events = read_events(run / "events.jsonl")
    found = [e for e in events if isinstance(e, PopulationEvent)]
    texts = [[c.program.text_hash for c in e.candidates] for e in found]
    assert texts[0] == texts[1]  # the old population went on
    slow = [e for e in events if isinstance(e, CycleEvent) and "slow" in e.rollouts]
    assert len(slow) == len(found) == 3
