"""Adapter policies on a tiny model: frozen under a new one, put aside, and what is saved."""

from pathlib import Path

import pytest
import torch

from fastslow.channels.slow.channel import SlowChannel
from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.core.types import Anchor
from fastslow.policy.adapter.lora import save_adapter
from fastslow.policy.adapter.parts import (
    freeze_trained,
    frozen_rank,
    trainable_weights,
)
from fastslow.policy.policy import Policy, load_policy
from fastslow.task.definition import Task
from tests.integration.channels.test_channels import GRPO, silent
from tests.support.adapters import begin, fresh, move

IDS = torch.tensor([[7, 3, 9, 120, 11, 42]])


def logits(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = policy.model(input_ids=IDS).logits
    return output


def base_logits(policy: Policy) -> torch.Tensor:
    with policy.scorer.base_weights():
        return logits(policy)


@pytest.mark.parametrize("stages", [1, 2])
def test_merging_keeps_the_logits_and_the_base_and_trains_the_new_adapter_alone(
    moved: Policy, task: Task, anchors: list[Anchor], tiny_folder: Path, tmp_path: Path, stages: int
) -> None:
    untouched = logits(load_policy(str(tiny_folder)))
    begin(moved, "letters0")
    num_trainable = sum(p.requires_grad for p in moved.model.parameters())
    for stage in range(stages):
        move(moved, stage)
        before, fingerprint = logits(moved), moved.weights_fingerprint()
        begin(moved, f"letters{stage + 1}", "merge-then-new", seed=stage)
        torch.testing.assert_close(logits(moved), before, atol=1e-5, rtol=0)
        assert moved.weights_fingerprint() != fingerprint
    assert frozen_rank(moved.model) == 4 * stages
    assert torch.equal(base_logits(moved), untouched)
    assert sum(p.requires_grad for p in moved.model.parameters()) == num_trainable

    frozen = {n: b.clone() for n, b in moved.model.named_buffers() if ".earlier." in n}
    assert len(frozen) == num_trainable
    trained = moved.adapters.copied()
    SlowChannel(GRPO, FastSlowTrainer).adapt(moved, task, anchors[0], 1, silent)
    assert sum(p.requires_grad for p in moved.model.parameters()) == num_trainable
    assert all(torch.equal(b, frozen[n]) for n, b in moved.model.named_buffers() if n in frozen)
    now = trainable_weights(moved.model)
    assert any(not torch.equal(now[name], value) for name, value in trained.items())

    moved.save(tmp_path / "kept")
    again = fresh(tiny_folder)
    again.load(tmp_path / "kept")
    assert again.weights_fingerprint() == moved.weights_fingerprint()
    assert frozen_rank(again.model) == 4 * stages
    assert torch.equal(logits(again), logits(moved))
    assert again.adapters.owner == f"letters{stages}"


def test_a_merged_adapter_is_one_plain_adapter_for_others(
    moved: Policy, tiny_folder: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    freeze_trained(moved.model, seed=3)
    move(moved, 8)
    save_adapter(moved.model, tmp_path)
    plain = PeftModel.from_pretrained(load_policy(str(tiny_folder)).model, tmp_path)
    assert plain.peft_config["default"].r == 8
    torch.testing.assert_close(plain(input_ids=IDS).logits, logits(moved), atol=1e-5, rtol=0)


def test_the_fingerprint_covers_the_frozen_part(moved: Policy) -> None:
    freeze_trained(moved.model, seed=3)
    before = moved.weights_fingerprint()
    next(b for n, b in moved.model.named_buffers() if ".earlier." in n).add_(1e-3)
    assert moved.weights_fingerprint() != before


def test_a_merged_adapter_loads_into_a_plain_one_and_back(
    moved: Policy, tiny_folder: Path, tmp_path: Path
) -> None:
    moved.save(tmp_path / "plain")
    plain = moved.weights_fingerprint()
    freeze_trained(moved.model, seed=3)
    moved.load(tmp_path / "plain")
    assert (moved.weights_fingerprint(), frozen_rank(moved.model)) == (plain, 0)


def test_each_stage_has_its_own_adapter_and_each_task_is_given_its_own(
    moved: Policy, tiny_folder: Path, tmp_path: Path
) -> None:
    begin(moved, "first", "new-per-stage")
    move(moved, 1)
    first = moved.weights_fingerprint()
    begin(moved, "second", "new-per-stage")
    assert torch.equal(logits(moved), base_logits(moved))
    move(moved, 2)
    second = moved.weights_fingerprint()
    moved.save(tmp_path / "kept")
    again = fresh(tiny_folder)
    again.load(tmp_path / "kept")
    for policy in (moved, again):
        fingerprints = {}
        for task in ("first", "second", "unseen"):
            with policy.adapters.serving(task):
                fingerprints[task] = policy.weights_fingerprint()
        assert fingerprints == {"first": first, "second": second, "unseen": second}
        assert policy.weights_fingerprint() == second
    assert {p.name for p in (tmp_path / "kept" / "adapters").iterdir()} == {"first"}

    moved.adapters.begin("first", trains=False, keep_start=False)
    assert moved.weights_fingerprint() == first  # texts alone are adapted, under its own weights
    begin(moved, "first", "new-per-stage")
    assert torch.equal(logits(moved), base_logits(moved))


def test_the_start_of_a_stage_is_saved_with_the_policy(
    moved: Policy, tiny_folder: Path, tmp_path: Path
) -> None:
    begin(moved, "first")
    start = moved.adapters.copied()
    move(moved, 1)
    moved.save(tmp_path / "kept")
    again = fresh(tiny_folder)
    again.load(tmp_path / "kept")
    assert again.adapters.start is not None
    assert all(torch.equal(again.adapters.start[name], value) for name, value in start.items())
