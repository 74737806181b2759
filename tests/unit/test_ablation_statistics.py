"""Arms over seeds: pairs, references, and what is said where something is missing."""

from collections import Counter

import pytest

from fastslow.ablation.records import RunRecord
from fastslow.ablation.result import Result, make_result
from fastslow.ablation.tables import tables
from fastslow.config.ablation import AblationConfig, ReferencesConfig
from tests.unit.made_ablation import both_and_slow, config, record


def result(records: list[RunRecord], given: AblationConfig | None = None) -> Result:
    given = given or config(claims=None)
    return make_result(given, records, Counter(dict.fromkeys(given.arms, 3)))


def test_arms_are_paired_by_seed_so_that_what_seeds_share_cancels() -> None:
    made = []
    for seed, level in enumerate((0.1, 0.5, 0.9)):
        made.append(record("fst", seed, [(0.0, 0.0), (level, 0.0), (level, level)]))
        made.append(
            record("slow-only", seed, [(0.0, 0.0), (level - 0.1, 0.0), (level - 0.1, level)])
        )
    found = next(d for d in result(made).differences if d.metric == "average_accuracy")
    assert not isinstance(found.estimate, str)
    assert found.estimate.mean == pytest.approx(0.05)
    assert found.estimate.sd == pytest.approx(0)
    arm = result(made).arms[0].metrics["average_accuracy"]
    assert not isinstance(arm, str)
    assert arm.sd == pytest.approx(0.4)


def test_a_seed_that_one_arm_lacks_is_in_no_pair() -> None:
    made = [r for r in both_and_slow() if (r.arm, r.seed) != ("slow-only", 2)]
    for one in result(made).differences:
        assert not isinstance(one.estimate, str)
        assert list(one.estimate.per_seed) == [0, 1]
    assert [arm.runs for arm in result(made).arms] == [3, 2]


def test_orders_are_means_within_a_seed() -> None:
    made = [
        record(
            arm,
            0,
            [(0.0, 0.0), (0.0, score), (score, score)],
            stages=order.split("-"),
            order=order,
        )
        for arm, scores in (("fst", (0.8, 0.6)), ("slow-only", (0.4, 0.4)))
        for order, score in zip(("second-first", "first-second"), scores, strict=True)
    ]
    found = next(d for d in result(made).differences if d.metric == "average_accuracy")
    assert not isinstance(found.estimate, str)
    assert found.estimate.per_seed == {0: pytest.approx(0.3)}


def test_reference_runs_feed_the_metrics_that_need_them() -> None:
    given = config(
        arms={"fst": {}, "slow-only": {}, "joint": {}, "alone-first": {}, "alone-second": {}},
        references=ReferencesConfig(
            joint="joint", isolated={"first": "alone-first", "second": "alone-second"}
        ),
    )
    made = [
        *both_and_slow((0,)),
        record("joint", 0, [(0.0, 0.0), (0.5, 0.5), (0.9, 0.9)]),
        record("alone-first", 0, [(0.0, 0.0), (0.6, 0.0)], stages=["first"]),
        record("alone-second", 0, [(0.0, 0.0), (0.0, 0.6)], stages=["second"]),
    ]
    metrics = result(made, given).arms[0].metrics
    intransigence, transfer = metrics["intransigence"], metrics["fwt_isolated"]
    assert not isinstance(intransigence, str)
    assert not isinstance(transfer, str)
    assert intransigence.mean == pytest.approx(0.9 - (0.8 + 0.7) / 2)
    assert transfer.mean == pytest.approx((0.8 + 0.7) / 2 - 0.6)
    without = result(both_and_slow((0,))).arms[0].metrics["intransigence"]
    assert "needs a reference run" in str(without)


def test_arms_on_other_tasks_are_not_compared() -> None:
    given = config(arms={"fst": {}, "slow-only": {}, "alone": {}})
    made = [*both_and_slow((0,)), record("alone", 0, [(0.0, 0.0), (0.6, 0.0)], stages=["first"])]
    found = {(d.minus, d.metric): d.estimate for d in result(made, given).differences}
    assert found["alone", "average_accuracy"] == "trained on other tasks"


def test_nothing_finished_is_a_table_of_reasons() -> None:
    empty = result([], config())
    assert [table.title for table in tables(empty)][:2] == [
        "Claims of Fast-Slow Training",
        "Arms of made",
    ]
    assert {str(m) for m in empty.arms[0].metrics.values()} == {"no run is finished"}
