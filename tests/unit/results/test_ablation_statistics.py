"""Arms over seeds: pairs, references, and what is said where something is missing."""

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from fastslow.config.ablation import AblationConfig, ReferencesConfig
from fastslow.results.ablation.records import RunRecord
from fastslow.results.ablation.records_file import read_records_file, records_jsonl
from fastslow.results.ablation.result import Result, make_result
from fastslow.results.ablation.statistics import OTHER_METHOD, OWN_REFERENCE
from fastslow.results.ablation.tables import tables
from fastslow.results.ablation.write import arms_csv, differences_csv, verdict
from tests.support.made_ablation import both_and_slow, config, record


def result(records: list[RunRecord], settings: AblationConfig | None = None) -> Result:
    settings = settings or config(claims=None)
    return make_result(settings, records, Counter(dict.fromkeys(settings.arms, 3)))


def test_arms_are_paired_by_seed_so_that_what_seeds_share_cancels() -> None:
    records = []
    for seed, level in enumerate((0.1, 0.5, 0.9)):
        records.append(record("fst", seed, [(0.0, 0.0), (level, 0.0), (level, level)]))
        records.append(
            record("slow-only", seed, [(0.0, 0.0), (level - 0.1, 0.0), (level - 0.1, level)])
        )
    difference = next(d for d in result(records).differences if d.metric == "average_accuracy")
    assert not isinstance(difference.estimate, str)
    assert difference.estimate.mean == pytest.approx(0.05)
    assert difference.estimate.sd == pytest.approx(0)
    arm = result(records).arms[0].metrics["average_accuracy"]
    assert not isinstance(arm, str)
    assert arm.sd == pytest.approx(0.4)


def test_a_seed_that_one_arm_lacks_is_in_no_pair() -> None:
    records = [r for r in both_and_slow() if (r.arm, r.seed) != ("slow-only", 2)]
    for difference in result(records).differences:
        assert not isinstance(difference.estimate, str)
        assert list(difference.estimate.per_seed) == [0, 1]
    assert [arm.runs for arm in result(records).arms] == [3, 2]


def test_gains_over_the_base_are_task_by_task_and_stay_within_what_can_be() -> None:
    # first: +.5, +.7, +.6; second, over a base of .2: none
    ends = [(0.5, 0.2), (0.7, 0.2), (0.6, 0.2)]
    records = [
        record("fst", seed, [(0.0, 0.2), (end[0], 0.2), end]) for seed, end in enumerate(ends)
    ]
    ablation = result(records)
    first, second = (ablation.arms[0].gains[task] for task in ("first", "second"))
    assert not isinstance(first, str)
    assert not isinstance(second, str)
    assert first.mean == pytest.approx(0.6)
    assert first.sd == pytest.approx(0.1)
    scores = np.array([list(record.cells[2, "first"].values()) for record in records])
    squares = (0.1**2 / 3, scores.mean(axis=0).var(ddof=1) / 20)
    df = sum(squares) ** 2 / (squares[0] ** 2 / 2 + squares[1] ** 2 / 19)
    assert first.low == pytest.approx(0.6 - t.ppf(0.975, df) * sum(squares) ** 0.5)
    assert (second.mean, second.covers) == (0, "every seed gave the same")
    table = next(table for table in tables(ablation) if table.title.startswith("Gain"))
    assert table.header == ("arm", "first", "second")
    assert [row[0].text for row in table.rows] == ["fst"]
    wide = result(
        [record("fst", s, [(0.0, 0.0)] * 2 + [(end, end)]) for s, end in ((0, 1), (1, 0))]
    )
    limits = {
        name: (mean.low, mean.high)
        for name, mean in wide.arms[0].metrics.items()
        if not isinstance(mean, str)
    }
    assert limits["average_accuracy"] == (0.0, 1.0)
    assert limits["forgetting_chaudhry"] == (-1.0, 1.0)  # 0 - 1 and 0 - 0, over seeds alone


def test_orders_are_means_within_a_seed() -> None:
    records = [
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
    difference = next(d for d in result(records).differences if d.metric == "average_accuracy")
    assert not isinstance(difference.estimate, str)
    assert difference.estimate.per_seed == {0: pytest.approx(0.3)}


def in_orders(arm: str, seed: int, shares: Mapping[str, float]) -> list[RunRecord]:
    """A run per order; of the task learned first that share is kept."""
    records = []
    for order, share in shares.items():
        first = order.split("-")[0]
        after = (1.0, 0.0) if first == "first" else (0.0, 1.0)
        last = (share, 1.0) if first == "first" else (1.0, share)
        rows = [(0.0, 0.0), after, last]
        records.append(record(arm, seed, rows, stages=order.split("-"), order=order))
    return records


def test_backward_transfer_over_orders_is_the_mean_over_orders_whose_last_tasks_differ() -> None:
    records = [
        *in_orders("fst", 0, {"first-second": 0.9, "second-first": 0.5}),
        *in_orders("slow-only", 0, {"first-second": 0.2, "second-first": 0.4}),
    ]
    ablation = result(records)
    arm = ablation.arms[0].metrics["bwt_gem"]
    estimate = next(d.estimate for d in ablation.differences if d.metric == "bwt_gem")
    assert not isinstance(arm, str)
    assert not isinstance(estimate, str)
    assert arm.mean == pytest.approx((-0.1 - 0.5) / 2)
    assert estimate.mean == pytest.approx((0.7 + 0.1) / 2)


def test_a_seed_that_lacks_an_order_does_not_count() -> None:
    records = [
        *in_orders("fst", 0, {"first-second": 0.9, "second-first": 0.5}),
        *in_orders("fst", 1, {"first-second": 0.9}),
    ]
    metrics = result(records).arms[0].metrics
    for name in ("average_accuracy", "bwt_gem", "forgetting_chaudhry"):
        estimate = metrics[name]
        assert not isinstance(estimate, str)
        assert list(estimate.per_seed) == [0], name


def test_an_arm_with_stages_of_its_own_stands_beside_every_order() -> None:
    settings = config(arms={"fst": {}, "joint": {}}, claims=None)
    records = [
        *in_orders("fst", 0, {"first-second": 0.9, "second-first": 0.5}),
        record("joint", 0, [(0.0, 0.0), *[(0.5, 0.5)] * 4], stages=("first", "second") * 2),
    ]
    estimates = {d.metric: d.estimate for d in result(records, settings).differences}
    accuracy = estimates["average_accuracy"]
    assert not isinstance(accuracy, str)
    assert accuracy.per_seed == {0: pytest.approx((0.95 + 0.75) / 2 - 0.5)}
    assert "formula needs other stages" in str(estimates["bwt_gem"])


def test_backward_transfer_of_other_tasks_is_not_subtracted() -> None:
    settings = config(arms={"fst": {}, "back": {}}, claims=None)
    records = [
        record("fst", 0, [(0.0, 0.0), (0.8, 0.0), (0.7, 0.7)]),
        record("back", 0, [(0.0, 0.0), (0.0, 0.8), (0.7, 0.7)], stages=("second", "first")),
    ]
    estimates = {d.metric: d.estimate for d in result(records, settings).differences}
    assert estimates["bwt_gem"] == "means over other tasks or other examples"
    assert not isinstance(estimates["average_accuracy"], str)


def with_references() -> AblationConfig:
    """The arms of the claims, joint training, and each task alone."""
    return config(
        arms={"fst": {}, "slow-only": {}, "joint": {}, "alone-first": {}, "alone-second": {}},
        references=ReferencesConfig(
            joint="joint", isolated={"first": "alone-first", "second": "alone-second"}
        ),
    )


def test_an_arm_is_held_against_references_of_its_own_method_alone() -> None:
    settings = config(
        arms={
            "fst": {"probe": {"task": "stars"}},
            "slow-only": {"fast": None},
            "one-text": {"fast": {"population": 1}},
            "joint": {"fast": {"metric_calls": 9}, "stages": []},
            "alone-first": {"stages": ["first"]},
            "alone-second": {"stages": ["second"]},
            "slow-first": {"fast": None, "stages": ["first"]},
            "slow-second": {"fast": None, "stages": ["second"]},
        },
        references=ReferencesConfig(
            joint="joint",
            isolated={
                "first": ("alone-first", "slow-first"),
                "second": ("alone-second", "slow-second"),
            },
        ),
        claims=None,
    )
    records = both_and_slow()
    for seed in range(3):
        rows = [(0.0, 0.0), (0.8, 0.0), (0.75, 0.7)]
        records.append(record("one-text", seed, rows))
        records.append(record("joint", seed, [(0.0, 0.0), (0.5, 0.5), (0.9, 0.9)]))
        for prefix, score in (("alone", 0.6), ("slow", 0.1)):
            records.append(
                record(f"{prefix}-first", seed, [(0.0, 0.0), (score, 0.0)], stages=["first"])
            )
            records.append(
                record(f"{prefix}-second", seed, [(0.0, 0.0), (0.0, score)], stages=["second"])
            )
    arms = {arm.arm: arm.metrics for arm in result(records, settings).arms}
    transfer = {name: arms[name]["fwt_isolated"] for name in ("fst", "slow-only")}
    assert not isinstance(transfer["fst"], str)
    assert not isinstance(transfer["slow-only"], str)
    assert transfer["fst"].per_seed[0] == pytest.approx((0.8 + 0.7) / 2 - 0.6)
    # learned .2 and .1, where each task alone gives the slow channel .1
    assert transfer["slow-only"].per_seed[0] == pytest.approx((0.2 + 0.1) / 2 - 0.1)
    assert not isinstance(arms["fst"]["intransigence"], str)
    assert arms["slow-only"]["intransigence"] == OTHER_METHOD
    for name in ("intransigence", "fwt_isolated"):
        assert arms["one-text"][name] == OTHER_METHOD
    assert arms["slow-first"]["fwt_isolated"] == OWN_REFERENCE


def test_clusters_widen_the_intervals_of_an_ablation_and_are_kept(tmp_path: Path) -> None:
    records = both_and_slow()
    clusters = {
        task: {f"e{i:02d}": f"c{i // 5}" for i in range(20)} for task in ("first", "second")
    }
    shared = result([replace(run, clusters=clusters) for run in records])
    single = {task: {e: e for e in by_example} for task, by_example in clusters.items()}
    alone, same = result(records), result([replace(run, clusters=single) for run in records])
    assert alone.differences == same.differences
    for with_clusters, without in zip(shared.arms, alone.arms, strict=True):
        wide, narrow = (arm.metrics["average_accuracy"] for arm in (with_clusters, without))
        assert not isinstance(wide, str)
        assert not isinstance(narrow, str)
        assert wide.mean == narrow.mean
        assert wide.sources["examples"][1] == 2 * (4 - 1)
        assert narrow.sources["examples"][1] == 2 * (20 - 1)
    (tmp_path / "records.jsonl").write_text(records_jsonl(shared))
    assert read_records_file(tmp_path / "records.jsonl").arms == shared.arms


def test_seeds_without_a_joint_run_are_not_held_against_another_reference() -> None:
    records = [*both_and_slow((0, 1)), record("joint", 0, [(0.0, 0.0), (0.5, 0.5), (0.9, 0.9)])]
    for seed in (0, 1):
        records.append(record("alone-first", seed, [(0.0, 0.0), (0.6, 0.0)], stages=["first"]))
        records.append(record("alone-second", seed, [(0.0, 0.0), (0.0, 0.6)], stages=["second"]))
    metrics = result(records, with_references()).arms[0].metrics
    assert "needs a reference run" in str(metrics["intransigence"])
    assert not isinstance(metrics["fwt_isolated"], str)


def test_reference_runs_feed_the_metrics_that_need_them() -> None:
    records = [
        *both_and_slow((0,)),
        record("joint", 0, [(0.0, 0.0), (0.5, 0.5), (0.9, 0.9)]),
        record("alone-first", 0, [(0.0, 0.0), (0.6, 0.0)], stages=["first"]),
        record("alone-second", 0, [(0.0, 0.0), (0.0, 0.6)], stages=["second"]),
    ]
    arms = {arm.arm: arm.metrics for arm in result(records, with_references()).arms}
    assert arms["joint"]["intransigence"] == OWN_REFERENCE
    assert arms["alone-first"]["fwt_isolated"] == OWN_REFERENCE
    assert arms["alone-first"]["intransigence"] != OWN_REFERENCE
    metrics = arms["fst"]
    intransigence, transfer = metrics["intransigence"], metrics["fwt_isolated"]
    assert not isinstance(intransigence, str)
    assert not isinstance(transfer, str)
    assert intransigence.mean == pytest.approx(0.9 - (0.8 + 0.7) / 2)
    assert transfer.mean == pytest.approx((0.8 + 0.7) / 2 - 0.6)
    without = result(both_and_slow((0,))).arms[0].metrics["intransigence"]
    assert "needs a reference run" in str(without)


def test_an_interval_that_says_nothing_of_seeds_is_not_shown_as_if_it_did() -> None:
    arms = next(t for t in tables(result(both_and_slow((0,)))) if t.title.startswith("Arms"))
    assert arms.rows[0][2].reason == "over examples of one seed"
    arms = next(t for t in tables(result(both_and_slow())) if t.title.startswith("Arms"))
    assert arms.rows[0][2].text.endswith("]")
    alone = make_result(config(), both_and_slow((0,)), Counter({"fst": 1, "slow-only": 1}))
    assert "] over examples of one seed. Backward transfer" in verdict(alone)


def test_arms_on_other_tasks_are_not_compared() -> None:
    settings = config(arms={"fst": {}, "slow-only": {}, "alone": {}})
    records = [*both_and_slow((0,)), record("alone", 0, [(0.0, 0.0), (0.6, 0.0)], stages=["first"])]
    estimates = {(d.minus, d.metric): d.estimate for d in result(records, settings).differences}
    assert estimates["alone", "average_accuracy"] == "trained on other tasks"


def test_every_line_of_a_table_for_programs_has_every_column() -> None:
    ablation = result(both_and_slow())
    for text in (arms_csv(ablation), differences_csv(ablation)):
        assert len({len(line) for line in csv.reader(io.StringIO(text))}) == 1


def test_nothing_finished_is_a_table_of_reasons() -> None:
    empty = result([], config())
    assert [table.title for table in tables(empty)][:2] == [
        "Arms of made",
        "Claims of Fast-Slow Training",
    ]
    assert {str(m) for m in empty.arms[0].metrics.values()} == {"no seed is finished"}
