"""Figures of an ablation's arms: their differences, and score against forgetting and rollouts."""

from collections import Counter

import pytest

from fastslow.results.ablation.arm_figures import ARM_FIGURES, arm_figures, figures_of
from fastslow.results.ablation.figures import claim_figures
from fastslow.results.ablation.records import RunRecord
from fastslow.results.ablation.result import Result, make_result
from fastslow.results.render.drawing import Drawing, painted
from tests.support.made_ablation import both_and_slow, config, record


def drawn(result: Result) -> dict[str, Drawing]:
    return {drawing.name: drawing for drawing in arm_figures(result)}


def numbers(drawing: Drawing) -> list[tuple[object, ...]]:
    """Panel, series and kind of what is drawn, with its numbers rounded."""
    _, rows = drawing.for_paper()
    return [tuple(round(c, 3) if isinstance(c, float) else c for c in row) for row in rows]


def of(arms: dict[str, dict[str, object]], runs: list[RunRecord]) -> Result:
    plan = config(arms=arms, claims=None)
    return make_result(plan, runs, Counter(dict.fromkeys(arms, 3)))


def test_both_figures_show_the_estimates_of_the_tables() -> None:
    result = make_result(config(), both_and_slow(), Counter({"fst": 3, "slow-only": 3}))
    forest, tradeoff = arm_figures(result)
    assert (forest.name, tradeoff.name) == ARM_FIGURES
    [accuracy] = [d.estimate for d in result.differences if d.metric == "average_accuracy"]
    assert not isinstance(accuracy, str)
    assert any(round(accuracy.mean, 3) in row for row in numbers(forest))
    assert any(round(accuracy.low or 0, 3) in row for row in numbers(forest))
    points = [row for row in numbers(tradeoff) if "point" in row]
    assert {row[0] for row in points} == {1, 2}
    for arm in result.arms:
        score = arm.metrics["average_accuracy"]
        assert not isinstance(score, str)
        assert sum(round(score.mean, 3) in row for row in points if arm.arm in row) == 2


def test_figures_come_before_those_of_the_claims() -> None:
    result = make_result(config(), both_and_slow(), Counter({"fst": 3, "slow-only": 3}))
    assert figures_of(result) == (*arm_figures(result), *claim_figures(result))


def test_one_arm_has_nothing_to_be_compared_with() -> None:
    one = of({"fst": {}}, [run for run in both_and_slow() if run.arm == "fst"])
    assert drawn(one) == {}
    assert drawn(of({"fst": {}}, [])) == {}


def test_twelve_arms_look_different() -> None:
    names = [f"arm-{number}" for number in range(12)]
    runs = [record(name, seed, [(0.1, 0.1)] * 3) for name in names for seed in range(3)]
    shown = drawn(of({name: {} for name in names}, runs))
    styles: set[tuple[object, object]] = set()
    with painted(shown["tradeoff"].paint, (6, 4)) as figure:
        for line in figure.axes[1].lines:
            if line.get_linestyle() == "None":
                styles.add((line.get_color(), line.get_marker()))
    assert len(styles) == 12


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a" * 400])
def test_a_name_of_somebody_else_is_shortened_and_shown_as_text(name: str) -> None:
    runs = [record(arm, seed, [(0.1, 0.2)] * 3) for arm in (name, "b") for seed in range(3)]
    result = make_result(config(arms={"b": {}}, claims=None), runs, Counter({name: 3, "b": 3}))
    for drawing in arm_figures(result):
        assert "<script" not in drawing.svg
        assert "a" * 100 not in drawing.svg
