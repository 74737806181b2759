"""The experiments of configs/paper: each resolves without its hub, its data and its card."""

import re
from functools import cache
from pathlib import Path

import pytest

from fastslow.api.checks import CheckResult, inspect_file
from fastslow.core.errors import SandboxError
from fastslow.task.registry import build_task
from tests.support.paths import ROOT

FILES = sorted((ROOT / "configs" / "paper").glob("*.yaml"))
HEADINGS = ("# Question:", "# Command:", "# Expected:", "# Result:")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("OPENAI_API_KEY", "")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_resolves_and_says_what_is_not_here(file: Path) -> None:
    result = checked(file.stem)
    assert any("Qwen/Qwen3" in note and "not a folder here" in note for note in result.notes)
    lacks = ("no data given", "hub gave no dataset", "cannot be run safely here")
    waiting = [note for note in result.notes if any(words in note for words in lacks)]
    assert (waiting == []) == (file.stem == "star-graph")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_begins_with_what_it_asks_and_how_to_run_it(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    places = [text.index(heading) for heading in HEADINGS]
    assert places == sorted(places)
    assert text.startswith(HEADINGS[0])
    verb = "ablate" if "\narms:" in text else "train"
    assert re.search(
        rf"^# Command:  fastslow {verb} configs/paper/{file.name}\b", text, re.MULTILINE
    )
    assert "# Result:   not made; needs a GPU and a hub\n" in text


@cache
def checked(name: str) -> CheckResult:
    return inspect_file(ROOT / "configs" / "paper" / f"{name}.yaml", [])


def test_the_continual_run_has_the_papers_sizes() -> None:
    config = checked("continual").config
    assert config is not None
    assert config.fast is not None
    assert config.slow is not None
    assert (config.cycle.optimizer_steps, config.cycle.problems) == (6, 32)
    assert (config.fast.population, config.fast.metric_calls) == (4, 1200)
    assert config.slow.rollouts_per_problem == 8
    assert [stage.task for stage in config.stages] == ["hover", "code_io", "physics"]


def test_the_orders_are_permutations_of_the_same_tasks() -> None:
    for name, tasks in (("orders-1-3", 4), ("orders-4-6", 15)):
        plan = checked(name).plan
        assert plan is not None
        orders = {tuple(s.task for s in run.config.stages) for run in plan.runs}
        assert len(orders) == 3
        assert {len(order) for order in orders} == {tasks}
        assert len({frozenset(order) for order in orders}) == 1


def test_where_programs_cannot_be_run_the_task_is_noted_and_a_run_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reason = "there is no room for them."
    monkeypatch.setattr("fastslow.task.sandbox.run.why_unavailable", lambda: reason)
    result = inspect_file(ROOT / "configs" / "paper" / "code-io.yaml", [])
    words = f"task code_io: programs that the policy writes cannot be run safely here: {reason}"
    assert words in result.notes
    with pytest.raises(SandboxError, match=words):
        build_task("code_io", "code_io", {}, allow_code=True)
