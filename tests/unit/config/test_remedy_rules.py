"""Rules between the keys of remedies and distillation, and the price of each remedy."""

from typing import Any

import pytest

from fastslow.channels.slow.remedies.base import RemedyConfig, RemedyPrice, StageSize
from fastslow.channels.slow.remedies.shipped import SHIPPED_REMEDIES
from fastslow.config.ledger import Ledger
from tests.unit.config.test_config_models import broken, run_config

TWO_TASKS = [{"task": "word_valence"}, {"task": "country_continent"}]
CONFIGS: dict[str, type[RemedyConfig]] = {
    kind: definition.config_class  # type: ignore[misc]  # its decorator requires it
    for kind, definition in SHIPPED_REMEDIES.items()
}


def slow(kind: str, policy: str = "continue", **keys: Any) -> dict[str, Any]:
    return {"adapter_policy": policy, "remedies": [{"kind": kind}], **keys}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_remedy_is_refused_under_the_wrong_adapter_policy_with_both_keys_named(
    kind: str,
) -> None:
    for policy in ("continue", "merge-then-new", "new-per-stage"):
        keys = slow(kind, policy)
        if policy in CONFIGS[kind].adapter_policies:
            run_config(stages=TWO_TASKS, slow=keys)
            continue
        rules = broken(stages=TWO_TASKS, slow=keys)
        assert list(rules) == ["slow.remedies.0.kind"]
        assert rules["slow.remedies.0.kind"].startswith(f"{kind} {CONFIGS[kind].why_not}")
        assert f"slow.adapter_policy ({policy})" in rules["slow.remedies.0.kind"]


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_protects_earlier_tasks_needs_one(kind: str) -> None:
    config = CONFIGS[kind]
    keys = slow(kind, config.adapter_policies[0])
    one_task = [{"task": "word_valence"}, {"task": "word_valence"}]
    if config.needs_earlier:
        assert "fewer than two tasks" in broken(stages=one_task, slow=keys)["slow.remedies.0.kind"]
    else:
        run_config(stages=one_task, slow=keys)


def test_a_teacher_has_to_know_more_than_its_student() -> None:
    for student, fast in (("with_text", {"population": 2}), ("seed", None)):
        rules = broken(fast=fast, slow={"kind": "distill", "student": student})
        assert list(rules) == ["slow.student"]
        assert "slow.teacher (text)" in rules["slow.student"]
    run_config(fast=None, slow={"kind": "distill", "student": "bare"})
    run_config(fast=None, slow={"kind": "distill", "teacher": "answer"})
    run_config(slow={"kind": "distill", "teacher": "success", "student": "with_text"})


def test_merging_leaves_nothing_to_scale_or_to_route_to() -> None:
    keys = slow("merge", "new-per-stage", shrink=0.9)
    rules = broken(stages=TWO_TASKS, slow=keys, evaluation={"routers": ["nearest_mean"]})
    assert set(rules) == {"slow.shrink", "evaluation.routers"}
    assert all("merge" in rule for rule in rules.values())


SIZE = StageSize(earlier=2, rows=64, validation=32, text=1)
FIRST = StageSize(earlier=0, rows=64, validation=32, text=0)


@pytest.mark.parametrize(
    ("kind", "keys", "price", "first"),
    [
        ("replay", {"rows": 5, "keep": 7}, RemedyPrice(5, 7), RemedyPrice(0, 7)),
        ("replay", {"target": "gold"}, RemedyPrice(8), RemedyPrice()),
        ("ewc", {"examples": 9}, RemedyPrice(0, 9, 9), RemedyPrice(0, 9, 9)),
        ("l2", {}, RemedyPrice(), RemedyPrice()),
        ("kl_start", {"rows": 100}, RemedyPrice(64), RemedyPrice()),
        ("interpolate", {"steps": 4}, RemedyPrice(0, 5 * 3 * 32), RemedyPrice()),
        ("merge", {"how": "task_arithmetic"}, RemedyPrice(0, 10 * 3 * 32), RemedyPrice()),
        ("merge", {"how": "ties"}, RemedyPrice(), RemedyPrice()),
        (
            "consolidate",
            {"updates": 2, "problems": 3, "group": 4},
            RemedyPrice(0, 24 + 4 * 32, 24),
            RemedyPrice(),
        ),
    ],
)
def test_the_price_of_a_remedy(
    kind: str, keys: dict[str, Any], price: RemedyPrice, first: RemedyPrice
) -> None:
    config = CONFIGS[kind](**keys)
    assert config.price(SIZE) == price
    assert config.price(FIRST) == first


def test_the_ledger_counts_what_remedies_take_stage_by_stage() -> None:
    config = run_config(
        stages=TWO_TASKS,
        slow={"remedies": [{"kind": "replay", "rows": 5, "keep": 7}], "kl_budget_earlier": 0.1},
    )
    ledger = Ledger(config)
    assert ledger.remedy_prices(1) == [
        ("replay", RemedyPrice(0, 7)),
        ("kl_budget_earlier", RemedyPrice(0, 16)),
    ]
    assert ledger.remedy_prices(2)[0] == ("replay", RemedyPrice(5, 7))
    [first, second] = [e for e in ledger.entries if e.part == "remedies"]
    assert first.rollouts == second.rollouts == 23
    plain = Ledger(run_config(stages=TWO_TASKS))
    rows = [[e.trained for e in account.entries if e.part == "slow"] for account in (plain, ledger)]
    steps = config.cycle.optimizer_steps
    added = [more - less for less, more in zip(*rows, strict=True)]
    assert added == [0, 0, 5 * steps, 5 * steps]
