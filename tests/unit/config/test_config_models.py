"""The models: rules between keys, derived names, and the written reference."""

from typing import Any

import pytest
from pydantic import ValidationError

from fastslow.channels.fast.settings import SequenceConfig
from fastslow.channels.slow.settings import GrpoConfig, SftConfig
from fastslow.config.loading.reference import model_keys, reference
from fastslow.config.models import RunConfig
from tests.support.paths import ROOT

REPOSITORY = ROOT


def run_config(**keys: Any) -> RunConfig:
    return RunConfig.model_validate({"name": "run", "stages": [{"task": "a"}], **keys})


def broken(**keys: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        run_config(**keys)
    (error,) = caught.value.errors()
    assert error["type"] == "broken_rules"
    return dict(error["ctx"]["rules"])


def test_the_population_must_divide_the_group() -> None:
    assert list(broken(fast={"population": 3}, slow={"group": 8})) == ["fast.population"]
    for population in (1, 2, 4, 8):
        run_config(fast={"population": population, "metric_calls": 400}, slow={"group": 8})


def test_a_slow_channel_without_groups_takes_any_population() -> None:
    run_config(fast={"population": 3}, slow={"kind": "sft"})


def test_a_slow_section_without_kind_is_grpo() -> None:
    assert run_config(slow={"group": 4}).slow == GrpoConfig(group=4)
    assert run_config(slow={"kind": "sft"}).slow == SftConfig()


def test_keys_of_two_kinds_say_whose_they_are() -> None:
    keys = [key for key in model_keys(RunConfig) if key.pattern[0] == "slow"]
    kinds = {(key.name, key.kinds) for key in keys}
    assert {("slow.lr", ("grpo",)), ("slow.lr", ("sft",)), ("slow.lora.rank", ())} <= kinds
    assert [key.type for key in keys if key.name == "slow.kind"] == ["'grpo', 'sft' or 'distill'"]


def test_a_channel_that_is_off_has_no_rules() -> None:
    run_config(fast=None, slow={"group": 7})
    run_config(slow=None, fast={"population": 3})


def test_the_fast_budget_must_allow_two_new_texts() -> None:
    enough = {"population": 4, "metric_calls": 240}
    run_config(fast=enough, cycle={"optimizer_steps": 5, "problems": 8})
    assert broken(fast=enough | {"metric_calls": 239}) == {
        "fast.metric_calls": "fast.metric_calls (239) is too small: re-scoring 4 old prompts "
        "(fast.population) on 40 anchor problems (cycle.optimizer_steps x cycle.problems) leaves "
        "room for fewer than 2 new prompts. Use at least 240."
    }


@pytest.mark.parametrize(
    ("kind", "fewest"), [("demos", 240), ("gepa", 270), ("simba", 320), ("mipro", 312)]
)
def test_every_kind_of_fast_channel_names_the_budget_it_needs(kind: str, fewest: int) -> None:
    fast = {"kind": kind, "population": 4, "metric_calls": fewest}
    run_config(fast=fast, cycle={"optimizer_steps": 5, "problems": 8})
    rules = broken(fast=fast | {"metric_calls": fewest - 1})
    assert f"Use at least {fewest}." in rules["fast.metric_calls"]


def test_each_step_of_a_sequence_must_be_worth_taking() -> None:
    steps = [{"kind": "demos"}, {"kind": "gepa"}]
    fast = {"kind": "sequence", "steps": steps, "metric_calls": 380}
    run_config(fast=fast, cycle={"optimizer_steps": 5, "problems": 8})
    rules = broken(fast=fast | {"metric_calls": 379})
    assert (
        "fewer than 2 new prompts in each of fast.steps. Use at least 380."
        in (rules["fast.metric_calls"])
    )


def test_shares_are_parts_of_the_whole() -> None:
    steps = [{"kind": "demos"}, {"kind": "gepa", "share": 3}]
    fast = {"kind": "sequence", "steps": steps, "metric_calls": 1000}
    config = run_config(fast=fast).fast
    assert isinstance(config, SequenceConfig)
    assert config.shares == (0.25, 0.75)


def test_simba_draws_its_batches_from_the_pool() -> None:
    fast = {"kind": "simba", "batch": 9, "metric_calls": 1000}
    assert list(broken(fast=fast, cycle={"pool": 8})) == ["fast.batch"]


def test_only_a_run_without_a_fast_channel_needs_no_pool() -> None:
    assert list(broken(cycle={"pool": 0})) == ["cycle.pool"]
    assert run_config(fast=None, cycle={"pool": 0}).cycle.pool == 0


def test_a_stage_must_have_a_channel() -> None:
    idle = {"task": "b", "fast": False, "slow": False}
    assert list(broken(stages=[{"task": "a"}, idle])) == ["stages.1.slow"]


def test_a_learning_rate_of_a_stage_that_trains_no_weights_is_refused() -> None:
    texts_alone = {"task": "b", "slow": False, "lr": 0.01}
    assert list(broken(stages=[{"task": "a"}, texts_alone])) == ["stages.1.lr"]
    assert list(broken(stages=[{"task": "a", "lr": 0.01}], slow=None)) == ["stages.0.lr"]
    assert run_config(stages=[{"task": "a", "lr": 0.01}]).stages[0].lr == 0.01


def test_all_broken_rules_come_together() -> None:
    rules = broken(fast={"population": 3, "metric_calls": 1}, slow={"group": 8})
    assert list(rules) == ["fast.population", "fast.metric_calls"]


def test_tasks_are_named_by_stages_first_then_by_the_table() -> None:
    config = run_config(
        stages=[{"task": "b"}, {"task": "a"}, {"task": "b"}], tasks={"c": {}, "a": {}}
    )
    assert config.task_names == ("b", "a", "c")
    assert config.task_use("b").params == {}


def test_the_models_are_frozen() -> None:
    with pytest.raises(ValidationError):
        run_config().seed = 1  # type: ignore[misc]  # what the test is about


def test_every_key_states_unit_source_and_meaning() -> None:
    keys = model_keys(RunConfig)
    sections = {key.pattern[:depth] for key in keys for depth in range(len(key.pattern))}
    for key in keys:
        assert key.meaning, key.name
        assert key.pattern in sections or (key.unit and key.source), key.name


def test_the_written_reference_is_what_the_models_say() -> None:
    written = (REPOSITORY / "docs/config.md").read_text(encoding="utf-8")
    assert written == reference(), "run: fastslow check --keys > docs/config.md"


def test_reusing_rollouts_needs_a_slow_channel_that_draws_them() -> None:
    run_config(fast={"reuse_slow_rollouts": True})
    for slow in (None, {"kind": "sft"}):
        assert list(broken(fast={"reuse_slow_rollouts": True}, slow=slow)) == [
            "fast.reuse_slow_rollouts"
        ]


def test_routers_need_adapters_of_several_single_tasks() -> None:
    evaluation = {"routers": ["nearest_mean"]}
    two = [{"task": "a"}, {"task": "b"}]
    own = {"adapter_policy": "new-per-stage"}
    assert run_config(stages=two, slow=own, evaluation=evaluation).evaluation.routers
    for keys, got in (
        ({"stages": two}, "new-per-stage, got continue; and at least two tasks"),
        ({"stages": two, "slow": None}, "new-per-stage, got no slow channel"),
        ({"stages": [*two[:1], {"task": "a"}], "slow": own}, "train weights, got 1."),
        ({"stages": [two[0], {"task": "b", "slow": False}], "slow": own}, "got 1."),
    ):
        rules = broken(evaluation=evaluation, **keys)
        assert list(rules) == ["evaluation.routers"]
        assert got in rules["evaluation.routers"]
        assert "slow.adapter_policy" in rules["evaluation.routers"]


def test_a_probe_needs_a_task_held_out_and_weights_that_learn() -> None:
    tasks: dict[str, Any] = {"a": {}, "b": {}, "c": {}}
    assert set(broken(probe={"task": "a"}, tasks=tasks)) == {"probe.task"}
    assert "Known: b, c." in broken(probe={"task": "x"}, tasks=tasks)["probe.task"]
    assert set(broken(probe={"task": "b"}, tasks=tasks, slow=None)) == {"probe"}


def test_the_task_of_a_probe_is_no_column_of_the_matrix() -> None:
    tasks: dict[str, Any] = {"b": {}, "c": {}}
    assert run_config(tasks=tasks).task_names == ("a", "b", "c")
    assert run_config(tasks=tasks, probe={"task": "b"}).task_names == ("a", "c")
