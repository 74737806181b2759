"""A budget of KL to the base, on a tiny model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastslow.channels.slow.channel import SlowChannel
from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.channels.slow.remedies.kl_budget import kl_budget, measured_kl
from fastslow.channels.slow.remedies.stack import Remedies
from fastslow.channels.slow.settings import GrpoConfig, SftConfig
from fastslow.channels.slow.sft import GoldTrainer
from fastslow.channels.slow.trainer import MakeUpdates
from fastslow.core.errors import CheckpointError
from fastslow.core.prompts import PromptProgram
from fastslow.core.types import Anchor
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task
from tests.integration.channels.test_channels import GRPO, silent, two_texts
from tests.integration.channels.test_sft import SFT
from tests.support.adapters import fresh

TEXT = PromptProgram("Write letters.")


def limited(
    limit: float,
    num_rows: int = 16,
    settings: GrpoConfig | SftConfig = GRPO,
    make_trainer: MakeUpdates = FastSlowTrainer,
) -> SlowChannel:
    """A slow channel with a budget."""
    remedies = Remedies([("kl_budget", kl_budget(limit, num_rows))])
    return SlowChannel(settings, make_trainer, remedies)


def set_limit(channel: SlowChannel, limit: float, num_rows: int = 16) -> None:
    """Give a channel another budget; what it remembers stays."""
    remedies = Remedies([("kl_budget", kl_budget(limit, num_rows))])
    remedies._memories = channel._remedies._memories
    channel._remedies = remedies


def kl_now(policy: Policy, channel: SlowChannel, num_rows: int) -> float:
    """KL of the adapter as it is, on the rows of the last update."""
    assert channel._trainer is not None
    return measured_kl(policy, channel._trainer.scored_rows(), num_rows)


def all_updates(policy: Policy, task: Task, anchors: list[Anchor], channel: SlowChannel) -> Any:
    channel.begin(policy, task, 0, takes_part=True)
    return [channel.adapt(policy, task, anchor, 1, silent) for anchor in anchors]


def test_a_stage_with_a_budget_ends_at_or_under_it_and_without_one_would_not(
    policy: Policy, task: Task, anchors: list[Anchor]
) -> None:
    two_texts(policy, task)
    start = policy.adapters.copied()
    fresh_fingerprint = policy.weights_fingerprint()
    cycles = all_updates(policy, task, anchors, limited(1e9, 8))
    unlimited = [cycle.metrics["kl_tuned_base"] for cycle in cycles]
    policy.adapters.put(start)

    limit = (unlimited[0] + unlimited[-1]) / 2
    assert unlimited[0] < limit < unlimited[-1]
    channel = limited(limit, 8)
    cycles = all_updates(policy, task, anchors, channel)
    assert kl_now(policy, channel, 8) == cycles[-1].metrics["kl_tuned_base"] <= limit
    assert cycles[-1].metrics["kl_budget_hit"] == 1.0
    assert cycles[0].metrics["kl_budget_hit"] == 0.0
    assert policy.weights_fingerprint() != fresh_fingerprint


def test_gold_answers_have_a_budget_too(policy: Policy, task: Task, anchors: list[Anchor]) -> None:
    channel = limited(1e9, 8, SFT, GoldTrainer)
    [first] = all_updates(policy, task, anchors[:1], channel)
    limit = 1.5 * first.metrics["kl_tuned_base"]
    set_limit(channel, limit, 8)
    cycles = [channel.adapt(policy, task, anchor, 1, silent) for anchor in anchors[1:]]
    assert cycles[-1].metrics["kl_budget_hit"] == 1.0
    assert kl_now(policy, channel, 8) <= limit


def test_an_update_over_budget_is_undone_with_its_moments_and_later_cycles_draw_nothing(
    policy: Policy, task: Task, anchors: list[Anchor], tmp_path: Path
) -> None:
    channel = limited(1e9)
    all_updates(policy, task, anchors[:1], channel)
    assert channel._optimizer is not None
    policy.save(tmp_path / "policy")
    channel.save(tmp_path)
    before = policy.weights_fingerprint()
    moments = {
        index: {name: value.clone() for name, value in state.items()}
        for index, state in channel._optimizer.state_dict()["state"].items()
    }
    kls: list[float] = []
    channel.adapt(policy, task, anchors[1], 2, lambda *step: kls.append(step[2]["kl_tuned_base"]))

    policy.load(tmp_path / "policy")
    limit = 0.999 * kls[0]  # the first update of the second cycle passes it, and no earlier one
    again = limited(limit)
    again.load(tmp_path)
    second = again.adapt(policy, task, anchors[1], 2, silent)
    assert second.metrics["kl_budget_hit"] == 1.0
    assert second.metrics["kl_tuned_base"] <= limit
    assert second.rollouts == 2 * 4  # one update of Q x G, not two
    assert policy.weights_fingerprint() == before
    assert again._optimizer is not None
    undone = again._optimizer.state_dict()["state"]
    assert undone.keys() == moments.keys()
    for index, expected in moments.items():
        for name, value in expected.items():
            assert torch.equal(undone[index][name], value), (index, name)
    third = again.adapt(policy, task, anchors[2], 3, silent)
    assert third.rollouts == 0
    assert third.metrics == {
        "kl_tuned_base": second.metrics["kl_tuned_base"],
        "kl_budget_hit": 1.0,
        "kl_budget_kept": 1.0,
    }
    assert policy.weights_fingerprint() == before

    set_limit(again, 1e9)
    again.begin(policy, task, 1, takes_part=True)
    next_stage = replace(anchors[0], stage=1)
    assert again.adapt(policy, task, next_stage, 4, silent).rollouts == 2 * 2 * 4


@pytest.mark.parametrize(
    ("share", "kept_shares"), [(0.5, {0.9, 0.8, 0.7, 0.6, 0.5, 0.4}), (1e-9, {0.0})]
)
def test_a_stage_that_new_inputs_put_over_its_budget_goes_back_towards_its_start(
    policy: Policy, task: Task, anchors: list[Anchor], share: float, kept_shares: set[float]
) -> None:
    start = policy.weights_fingerprint()
    channel = limited(1e9, 8)
    [first] = all_updates(policy, task, anchors[:1], channel)
    limit = share * first.metrics["kl_tuned_base"]
    set_limit(channel, limit, 8)
    second = channel.adapt(policy, task, anchors[1], 2, silent)
    assert second.metrics["kl_budget_kept"] in kept_shares
    assert kl_now(policy, channel, 8) <= limit
    assert (policy.weights_fingerprint() == start) == (kept_shares == {0.0})


@pytest.mark.parametrize("first_is_undone", [False, True])
def test_a_budget_that_is_spent_stays_spent_after_loading(
    policy: Policy, task: Task, anchors: list[Anchor], tmp_path: Path, first_is_undone: bool
) -> None:
    channel = limited(1e-9 if first_is_undone else 1e9)
    all_updates(policy, task, anchors[:1], channel)
    set_limit(channel, 1e-9)
    hit = channel.adapt(policy, task, anchors[1], 2, silent)
    assert hit.metrics["kl_budget_hit"] == 1.0
    before = policy.weights_fingerprint()
    channel.save(tmp_path)
    again = limited(1e-9)
    again.load(tmp_path)
    (tmp_path / "twice").mkdir()
    again.save(tmp_path / "twice")  # before any update, as a stage without the slow channel does
    twice = limited(1e-9)
    twice.load(tmp_path / "twice")
    standing = ("kl_tuned_base", "kl_budget_hit", "kl_budget_kept")
    for loaded in (again, twice):
        cycle = loaded.adapt(policy, task, anchors[2], 3, silent)
        assert cycle.rollouts == 0
        assert cycle.metrics == {name: hit.metrics[name] for name in standing}
    assert policy.weights_fingerprint() == before


def test_the_budget_is_measured_in_portions_as_in_one(
    moved: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(moved.renderer.prompt_ids(TEXT, q), (5, 6, 7)[: 1 + len(q) % 3]) for q in "abcdefgh"]
    at_once = measured_kl(moved, rows, 5)
    monkeypatch.setattr("fastslow.channels.slow.remedies.kl_budget.TOKENS_AT_ONCE", 3)
    assert measured_kl(moved, rows, 5) == pytest.approx(at_once, rel=1e-5)
    assert at_once > 1e-4


def test_resume_points_of_older_versions_load_unless_they_hold_a_budget(
    moved: Policy, tiny_folder: Path, tmp_path: Path
) -> None:
    moved.save(tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").glob("*.json")} == {
        "adapter_config.json",
        "texts.json",
    }
    state: dict[str, Any] = {"stage": None, "step": 0, "progress": None}
    (tmp_path / "slow.json").write_text(json.dumps(state))
    channel = limited(1.0, 4)
    channel.load(tmp_path)
    assert not channel._remedies.is_over()
    again = fresh(tiny_folder)
    again.load(tmp_path / "kept")
    assert again.adapters.owner is None

    (tmp_path / "slow.json").write_text(json.dumps(state | {"kl_budget": {"is_hit": False}}))
    with pytest.raises(CheckpointError, match=r"older version.*start a new run"):
        channel.load(tmp_path)
