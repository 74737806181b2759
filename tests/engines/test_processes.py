"""Runs in two processes, with whole weights and with shared ones, killed and resumed.

Each against the same run in one process; minutes, so not a part of `make test`.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fastslow.policy.saved import ROUTER_FILE
from fastslow.records.events import CycleEvent, FiguresEvent, RemedyEvent
from fastslow.records.jsonl import read_scores
from tests.support.paths import ROOT
from tests.support.processes import (
    GUIDED,
    TOGETHER,
    adapter,
    events,
    in_two,
    require_alike,
    torchrun,
)
from tests.support.runs import TOY, WIDER, newest_point, outcome, start
from tests.support.tiny import save_tiny

pytestmark = [
    pytest.mark.network,  # torchrun's processes meet on loopback
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed"),
]

KINDS = {
    "grpo": ("slow.lr=0.001", "slow.kl_coefficient=0.05", "slow.weight_decay=0.01"),
    "sft": ("slow={kind: sft, lr: 0.01, weight_decay: 0.01}",),
    "distill": ("slow={kind: distill, group: 4, teacher: answer, lr: 0.001}",),
}
"""Kinds of slow channel, with KL and weight decay where they have them."""
SHARDINGS = ("none", "fsdp2")
PATIENCE_S = 600.0


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Any:
    """By kind the run in one process, made when it is asked for first."""
    runs: dict[str, Path] = {}

    def run(kind: str) -> Path:
        if kind not in runs:
            folder = tmp_path_factory.mktemp(kind)
            runs[kind] = start(folder, [f"model.name={tiny_folder}", *WIDER, *KINDS[kind]])
        return runs[kind]

    return run


def only_run(folder: Path) -> Path:
    [card] = folder.glob("*/run.json")
    return card.parent


def largest_gap(one: Path, other: Path) -> float:
    """Of any weight of any stage's adapter."""
    gaps = []
    for folder in sorted((one / "stages").iterdir()):
        ours, theirs = (adapter(run, folder.name) for run in (one, other))
        assert ours.keys() == theirs.keys()
        gaps += [float((ours[name] - theirs[name]).abs().max()) for name in ours]
    return max(gaps)


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_give_the_run_of_one_also_when_one_is_killed(
    tmp_path: Path, tiny_folder: Path, alone: Any, kind: str, sharding: str
) -> None:
    (tmp_path / "toy.yaml").write_text(TOY)
    words = [str(tmp_path / "toy.yaml"), f"model.name={tiny_folder}", *WIDER, *KINDS[kind]]
    words.append(f"engine.sharding={sharding}")
    whole_words = ["-m", "fastslow", "train", *words, f"runs_dir={tmp_path / 'whole'}"]
    whole_run = torchrun(*whole_words, timeout=PATIENCE_S)
    assert whole_run.returncode == 0, whole_run.stderr
    whole = only_run(tmp_path / "whole")
    gap = largest_gap(alone(kind), whole)
    print(f"{kind}, {sharding}: weights differ by at most {gap:.1e}")
    assert gap <= 1e-5
    completions = [
        [row.sample.completion for row in read_scores(run / "scores.jsonl")]
        for run in (alone(kind), whole)
    ]
    assert completions[0] == completions[1]

    script = str(ROOT / "tests" / "support" / "killed_run.py")
    killed_words = [script, "2", "train", *words, f"runs_dir={tmp_path / 'killed'}"]
    assert torchrun(*killed_words, timeout=PATIENCE_S).returncode != 0
    killed = only_run(tmp_path / "killed")
    assert not (killed / "stages" / "001-second").exists()
    resumed = torchrun("-m", "fastslow", "resume", str(killed), timeout=PATIENCE_S)
    assert resumed.returncode == 0, resumed.stderr
    assert outcome(killed) == outcome(whole)


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("kind", GUIDED)
def test_groups_that_cannot_be_halved_are_guided_as_in_one_process(
    tmp_path: Path, tiny_folder: Path, kind: str, sharding: str
) -> None:
    """An odd group is shared unevenly, and all that is drawn of it is counted."""
    guidance, names = GUIDED[kind]
    overrides = [
        f"model.name={tiny_folder}",
        *("stages=[{task: first, cycles: 2}]", "fast=null", "slow.group=5", "slow.lr=0.001"),
        "tasks.first={use: 'tests.support.toy_tasks:rare'}",
        f"slow.guidance={{kind: {guidance}}}",
    ]
    one = start(tmp_path, [*overrides, f"runs_dir={tmp_path / 'one'}"])
    words = [str(tmp_path / "toy.yaml"), *overrides, f"runs_dir={tmp_path / 'two'}"]
    words.append(f"engine.sharding={sharding}")
    result = torchrun("-m", "fastslow", "train", *words, timeout=PATIENCE_S)
    assert result.returncode == 0, result.stderr
    both = only_run(tmp_path / "two")
    assert largest_gap(one, both) <= 1e-5
    cycles = [events(run, CycleEvent) for run in (one, both)]
    assert [e.rollouts for e in cycles[0]] == [e.rollouts for e in cycles[1]]
    for of_one, of_both in zip(*cycles, strict=True):
        for name in (f"slow/guidance/{name}" for name in names):
            assert of_both.metrics[name] == pytest.approx(of_one.metrics[name], rel=1e-3)
    assert any(e.metrics[f"slow/guidance/{names[0]}"] > 0 for e in cycles[0])


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("name", TOGETHER)
def test_remedies_resume(tmp_path: Path, tiny_folder: Path, name: str, sharding: str) -> None:
    """The two runs make the same adapter to the last bit."""
    (tmp_path / "toy.yaml").write_text(TOY)
    words = [
        str(tmp_path / "toy.yaml"),
        f"model.name={tiny_folder}",
        "stages=[{task: first, cycles: 2}, {task: third, cycles: 2}]",
        "tasks.first={use: 'tests.support.toy_tasks:parity'}",
        "tasks.third={use: 'tests.support.toy_tasks:parity'}",
        f"engine.sharding={sharding}",
        "evaluation.measures=[{kind: concentration}, {kind: adherence}]",
        *TOGETHER[name],
    ]
    script = str(ROOT / "tests" / "support" / "cut_and_resume.py")
    result = torchrun(script, "4", *words, timeout=PATIENCE_S)
    assert result.returncode == 0, result.stderr
    cut, whole = (only_run(tmp_path / which) for which in ("cut", "whole"))
    assert outcome(cut) == outcome(whole)
    weights = load_file(whole / "stages" / "001-third" / "adapter_model.safetensors")
    assert all(bool(torch.isfinite(weight).all()) for weight in weights.values())


SFT = ("slow={kind: sft, lr: 0.02, kl_budget: 0.009, shrink: 0.9}", "cycle.optimizer_steps=4")


def test_two_processes_give_the_adapter_of_one_also_where_it_is_held_and_shrunk(
    tmp_path: Path, tiny_folder: Path
) -> None:
    stage = "stages=[{task: first, cycles: 1}]"
    overrides = [f"model.name={tiny_folder}", *WIDER, stage, *SFT, "fast.metric_calls=48"]
    alone = start(tmp_path, [*overrides, f"runs_dir={tmp_path / 'one'}"])
    require_alike(alone, in_two(tmp_path, overrides))


def test_two_processes_remember_and_hold_the_same(tmp_path: Path, tiny_folder: Path) -> None:
    """Both draw no answer twice, add the remedies' gradient once, and end on one adapter."""
    remedies = "[{kind: replay, rows: 4, keep: 40}, {kind: ewc, examples: 4, strength: 10.0}]"
    overrides = [
        f"model.name={tiny_folder}",
        "stages=[{task: first, cycles: 1}, {task: third, cycles: 1}]",
        "tasks.first={use: 'tests.support.toy_tasks:parity'}",
        "tasks.third={use: 'tests.support.toy_tasks:parity'}",
        *("fast=null", "cycle.optimizer_steps=3", "slow.lr=0.001"),
        f"slow.remedies={remedies}",
    ]
    alone = start(tmp_path, [*overrides, f"runs_dir={tmp_path / 'one'}"])
    both = in_two(tmp_path, overrides)
    for name, tensor in adapter(alone, "001-third").items():
        torch.testing.assert_close(adapter(both, "001-third")[name], tensor, atol=1e-5, rtol=0)
    reports = [events(run, RemedyEvent) for run in (alone, both)]
    assert [(e.stage, e.name, e.rollouts) for e in reports[1]] == [
        *((0, "replay", 40), (0, "ewc", 4), (1, "replay", 40), (1, "ewc", 4))
    ]
    for of_one, of_both in zip(*reports, strict=True):
        assert of_both.figures == pytest.approx(of_one.figures, rel=1e-3)
    last = [events(run, CycleEvent)[-1] for run in (alone, both)]
    for name in ("slow/remedy/replay/loss", "slow/remedy/ewc/loss"):
        assert last[0].metrics[name] > 0
        assert last[1].metrics[name] == pytest.approx(last[0].metrics[name], rel=1e-3)
    memories = [newest_point(run) / "slow" / "remedies" for run in (alone, both)]
    facts = [(folder / "replay" / "memory.json").read_text() for folder in memories]
    assert facts[0] == facts[1]
    assert json.loads(facts[0])["first"]


def test_two_processes_route_as_one_does(tmp_path: Path, tiny_folder: Path) -> None:
    """The leader alone measures the routers; the other waits for it and ends with it."""
    overrides = [
        f"model.name={tiny_folder}",
        *("fast=null", "slow={kind: sft, lr: 0.01, adapter_policy: new-per-stage}"),
        "evaluation.routers=[nearest_mean, surprisal]",
    ]
    alone = start(tmp_path, [*overrides, f"runs_dir={tmp_path / 'one'}"])
    both = in_two(tmp_path, overrides)
    of_one, of_both = (
        [event for event in events(run, FiguresEvent) if event.kind == "router"]
        for run in (alone, both)
    )
    assert [(e.row, e.of) for e in of_both] == [(2, "first"), (2, "second")]
    assert of_both == of_one
    means = [load_file(newest_point(run) / "policy" / ROUTER_FILE) for run in (alone, both)]
    assert means[0].keys() == means[1].keys() == {"first", "second"}
    for name, mean in means[0].items():
        assert torch.equal(means[1][name], mean)
