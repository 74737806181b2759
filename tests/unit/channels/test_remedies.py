"""Remedies by themselves: EWC's penalty, order, streams of random numbers, memories, names."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from fastslow.channels.slow.remedies.base import (
    Ended,
    EndReport,
    Figures,
    Memory,
    Remedy,
    RemedyConfig,
    Stage,
    Update,
    Weights,
    remedy,
)
from fastslow.channels.slow.remedies.ewc import EwcConfig, ewc
from fastslow.channels.slow.remedies.stack import Remedies
from fastslow.channels.slow.settings import GrpoConfig
from fastslow.core.plugins import CustomUse
from fastslow.core.types import Batch
from fastslow.loop.build import build_remedies
from tests.support.toy_tasks import letters

TASK, EARLIER = letters.build("letters"), letters.build("earlier")


class Trained:
    """A policy as far as remedies need one: two named weights and a count of rollouts."""

    def __init__(self) -> None:
        self.weights = {
            "a": torch.nn.Parameter(torch.tensor([3.0, 4.0])),
            "b": torch.nn.Parameter(torch.tensor([[2.0]])),
        }
        self.adapters = SimpleNamespace(trainable=lambda: self.weights)
        self.sampler = SimpleNamespace(num_rollouts=0)
        self.device = "cpu"


def stage_of(policy: Any, index: int = 1) -> Stage:
    return Stage(policy, TASK, index, (EARLIER,)[:index], seed=7)


def update_of(stage: Stage) -> Update:
    return Update(stage, Batch(()), step=0, seed=11, lr=0.1, rows=list)


def ended(stage: Stage) -> Ended:
    return Ended(stage, lambda task: {}, lambda task: None)


def ewc_memory() -> Memory:
    return Memory(
        {
            "fisher/a": torch.tensor([2.0, 0.0]),
            "anchor/a": torch.tensor([1.0, 1.0]),
            "fisher/b": torch.tensor([[5.0]]),
            "anchor/b": torch.tensor([[0.0]]),
        }
    )


def test_the_penalty_of_ewc_is_half_the_weighted_squared_distance_from_the_anchor() -> None:
    policy = Trained()
    penalty = ewc.build(EwcConfig(strength=3.0)).penalty
    assert penalty is not None
    value = penalty(policy.weights, ewc_memory())
    assert value is not None
    assert value.item() == (2 * (3 - 1) ** 2 + 0 + 5 * 2**2) / 2
    gradient = torch.autograd.grad(value, list(policy.weights.values()))
    assert [of_weight.tolist() for of_weight in gradient] == [[2 * (3 - 1), 0.0], [[5 * 2]]]


def test_the_penalty_joins_the_gradient_with_its_strength_and_its_share_is_recorded() -> None:
    policy = Trained()
    remedies = Remedies([("ewc", ewc.build(EwcConfig(strength=3.0)))])
    remedies._memories["ewc"] = ewc_memory()
    policy.weights["a"].grad = torch.tensor([0.0, 1.0])
    figures = remedies.add_gradients(update_of(stage_of(policy)))
    assert policy.weights["a"].grad.tolist() == [3 * 4, 1]
    assert policy.weights["b"].grad is not None
    assert policy.weights["b"].grad.tolist() == [[3 * 10]]
    assert figures["remedy/ewc/loss"] == 14
    assert figures["remedy/ewc/gradient_share"] == pytest.approx((12**2 + 30**2) ** 0.5)


def test_a_weight_that_no_stage_has_seen_is_free() -> None:
    policy = Trained()
    penalty = ewc.build(EwcConfig()).penalty
    assert penalty is not None
    assert penalty(policy.weights, Memory()) is None


def test_the_first_stage_is_asked_for_neither_rows_nor_a_penalty() -> None:
    def refuse(*unused: Any) -> Any:
        raise AssertionError("nothing is earlier")

    remedies = Remedies([("mine", Remedy(rows=refuse, penalty=refuse))])
    assert remedies.add_gradients(update_of(stage_of(Trained(), index=0))) == {}
    with pytest.raises(AssertionError, match="nothing is earlier"):
        remedies.add_gradients(update_of(stage_of(Trained())))


def noted(name: str, calls: list[str]) -> Remedy:
    """Writes down which hook was called."""

    def attempt(
        update: Update, memory: Memory, optimizer: Any, make: Callable[[], Figures]
    ) -> Figures:
        calls.append(f"{name} before")
        figures = make()
        calls.append(f"{name} after")
        return figures | {name: 1.0}

    def end(ended: Ended, memory: Memory) -> EndReport:
        ended.stage.policy.sampler.num_rollouts += 2
        return EndReport({"figure": 0.5}, (f"{name} ended",))

    return Remedy(
        begin=lambda *unused: calls.append(f"{name} begin"),
        attempt=attempt,
        standing=lambda memory: {name: 2.0},
        project=lambda *unused: calls.append(f"{name} project"),
        settle=lambda *unused: calls.append(f"{name} settle"),
        end=end,
    )


def test_remedies_act_in_their_order_and_the_first_is_the_outermost_around_an_update() -> None:
    calls: list[str] = []
    policy: Any = Trained()
    remedies = Remedies([("one", noted("one", calls)), ("two", noted("two", calls))])
    update, optimizer = update_of(stage_of(policy)), torch.optim.SGD(policy.weights.values())
    remedies.begin(update.stage)
    assert remedies.attempt(update, optimizer, lambda: {"loss": 3.0}) == {
        "loss": 3.0,
        "one": 1.0,
        "two": 1.0,
    }
    remedies.project(policy.weights)
    remedies.settle(policy.weights, update, optimizer)
    assert calls == [
        *("one begin", "two begin"),
        *("one before", "two before", "two after", "one after"),
        *("one project", "two project", "one settle", "two settle"),
    ]
    assert remedies.standing() == {"one": 2.0, "two": 2.0}
    reports = remedies.end(ended(update.stage))
    assert [(r.name, r.figures, r.notes, r.rollouts) for r in reports] == [
        (name, {"figure": 0.5}, (f"{name} ended",), 2) for name in ("one", "two")
    ]


def test_one_remedy_that_is_over_ends_the_stage_for_all() -> None:
    over = Remedy(is_over=lambda memory: bool(memory.facts.get("over")))
    remedies = Remedies([("one", Remedy()), ("two", over)])
    assert not remedies.is_over()
    remedies._memories["two"].facts["over"] = True
    assert remedies.is_over()


def test_every_remedy_draws_from_streams_of_its_own_in_every_stage() -> None:
    seeds: list[int] = []

    def settle(weights: Weights, memory: Memory, update: Update, optimizer: Any) -> None:
        seeds.extend([update.seed, update.stage.seed])

    policy: Any = Trained()
    mine = Remedy(begin=lambda stage, memory: seeds.append(stage.seed), settle=settle)
    remedies = Remedies([("mine", mine), ("mine", mine)])
    optimizer = torch.optim.SGD(policy.weights.values())
    for index in (0, 1):
        stage = stage_of(policy, index)
        remedies.begin(stage)
        remedies.settle(policy.weights, replace(update_of(stage), seed=index), optimizer)
    first, second = seeds[:6], seeds[6:]
    assert first[0] == first[3] != first[1] == first[5]  # of the stage: in `begin` and in `settle`
    assert first[2] != first[4]  # of the update
    assert not set(first) & set(second)


def test_a_second_remedy_of_a_name_is_reported_under_one_of_its_own() -> None:
    end = Remedy(end=lambda ended, memory: {"figure": None})
    policy: Any = Trained()
    reports = Remedies([("ewc", end)] * 3).end(ended(stage_of(policy)))
    assert [report.name for report in reports] == ["ewc", "ewc-2", "ewc-3"]
    assert [report.figures for report in reports] == [{"figure": None}] * 3


def test_memories_are_read_back_as_they_were_saved(tmp_path: Path) -> None:
    remedies = Remedies([("one", Remedy()), ("two", Remedy())])
    transposed = torch.arange(6.0).reshape(2, 3).T
    remedies._memories["one"] = Memory({"fisher/a.b": transposed}, {"rows": {"e": [1, 2]}})
    remedies.save(tmp_path / "remedies")
    again = Remedies([("new", Remedy()), ("two", Remedy()), ("one", Remedy())])
    again._memories["new"].facts["of before"] = 1
    again.load(tmp_path / "remedies")
    assert torch.equal(again._memories["one"].tensors["fisher/a.b"], transposed)
    assert again._memories["one"].facts == {"rows": {"e": [1, 2]}}
    assert again._memories["two"] == again._memories["new"] == Memory()


def test_a_memory_that_is_not_plain_data_is_not_saved(tmp_path: Path) -> None:
    remedies = Remedies([("one", Remedy())])
    remedies._memories["one"].facts["kl"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        remedies.save(tmp_path / "remedies")


def test_a_gradient_that_dwarfs_the_tasks_is_said() -> None:
    remedies = Remedies([("ewc", Remedy()), ("replay", Remedy())])
    figures = {"remedy/ewc/gradient_share": 12.4, "remedy/replay/gradient_share": 9.9}
    [note] = remedies.notes(figures)
    assert note.startswith("remedy ewc: its gradient is 12 times the task's")
    assert remedies.notes({}) == []


def test_a_remedy_is_declared_with_a_plain_name_and_one_class_of_parameters() -> None:
    with pytest.raises(TypeError, match="expected a name of a-z"):
        remedy(name="../mine", source="mine")

    def wrong(config: Memory) -> Remedy:
        return Remedy()

    with pytest.raises(TypeError, match="@remedy mine: wrong must take one argument annotated"):
        remedy(name="mine", source="mine")(wrong)

    class Mine(RemedyConfig):
        rate: float = 0.5

    @remedy(name="mine", source="me")
    def mine(config: Mine) -> Remedy:
        return Remedy(strength=config.rate)

    assert mine.build().strength == 0.5
    assert mine.build({"rate": 2}).strength == 2.0
    with pytest.raises(ValidationError, match="rat"):
        mine.build({"rat": 2})


def test_the_remedies_of_a_configuration_come_in_its_order_between_those_of_keys() -> None:
    slow = GrpoConfig(
        adapter_policy="merge-then-new",
        remedies=(
            EwcConfig(),
            CustomUse(kind="custom", use="tests.support.remedies:idle"),
            EwcConfig(strength=1.0),
        ),
        kl_budget=0.1,
        shrink=0.9,
    )
    assert list(build_remedies(slow, 0)._remedies) == [
        *("adapter_policy", "ewc", "idle", "ewc-2", "kl_budget", "shrink")
    ]
    assert list(build_remedies(GrpoConfig(), 0)._remedies) == []
