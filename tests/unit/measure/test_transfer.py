import pytest

from fastslow.core.errors import EvaluationError
from fastslow.measure.scores.accuracy import lca
from fastslow.measure.scores.all_metrics import final_metrics, task_metrics
from fastslow.measure.scores.forgetting import retention_gain
from fastslow.measure.scores.intransigence import (
    Reference,
    fwt_isolated,
    intransigence,
    learning_gain,
    named_intransigence,
    why_bwt_says_nothing,
)
from fastslow.measure.scores.matrix import ScoreMatrix, headline_policy


def matrix(rows: list[list[float | None]], tasks: str = "ab", stages: str = "ab") -> ScoreMatrix:
    return ScoreMatrix(tuple(tasks), tuple(stages), tuple(tuple(row) for row in rows))


def test_a_missing_cell_makes_only_the_metrics_that_need_it_undefined() -> None:
    m = final_metrics(matrix([[0.1, None], [0.8, 0.2], [0.5, 0.9]]))
    assert m["fwt_gem"].value is None
    assert m["fwt_gem"].reason == "not measured: task 'b' in row 0"
    assert m["bwt_gem"].value == pytest.approx(-0.3)
    assert m["average_accuracy"].value == pytest.approx(0.7)


def test_a_missing_cell_is_never_read_as_zero() -> None:
    m = final_metrics(matrix([[0.1, 0.1], [0.8, 0.2], [None, 0.9]]))
    for name in ("average_accuracy", "bwt_gem", "forgetting_chaudhry", "min_acc", "rem"):
        assert m[name].value is None
        assert m[name].reason == "not measured: task 'a' in row 2"


def test_a_task_visited_twice_makes_transfer_undefined_and_names_the_stages() -> None:
    m = final_metrics(matrix([[0.1, 0.1], [0.8, 0.2], [0.7, 0.9], [0.9, 0.8]], "ab", "aba"))
    assert all(metric.value is None for metric in m.values())
    assert m["bwt_gem"].reason == (
        "task 'a' is visited by stages 1 and 3; the formula needs one visit per task"
    )


def test_held_out_tasks_enter_no_metric() -> None:
    plain = matrix([[0.1, 0.1], [0.8, 0.2], [0.5, 0.9]])
    rows: list[list[float | None]] = [[0.1, 0.9, 0.1], [0.8, None, 0.2], [0.5, 0.0, 0.9]]
    assert final_metrics(matrix(rows, "axb")) == final_metrics(plain)


def test_a_task_that_never_scored_makes_relative_forgetting_undefined() -> None:
    m = final_metrics(matrix([[0.0, 0.0], [0.0, 0.0], [0.0, 0.5]]))
    assert m["forgetting_relative"].value is None
    assert m["forgetting_relative"].reason == ("task 'a' never scored above 0, so no share of it")
    assert m["forgetting_chaudhry"].value == 0


@pytest.mark.parametrize(
    ("learned", "floor", "is_defined"),
    [(0.3, None, True), (0.3, 0.3, False), (0.1, None, False), (0.05, None, False)],
)
def test_retention_needs_a_gain_above_the_noise_floor(
    learned: float, floor: float | None, is_defined: bool
) -> None:
    rows: list[list[float | None]] = [[0.1, 0.1], [learned, 0.2], [0.2, 0.9]]
    retention = retention_gain(matrix(rows), floor)
    assert (retention.value is not None) is is_defined
    assert (retention.reason is None) is is_defined


def test_intransigence_without_a_reference_is_not_measured_rather_than_zero() -> None:
    table = matrix([[0.1, 0.1], [0.8, 0.2], [0.5, 0.9]])
    assert intransigence(table).value is None
    assert "needs a reference run" in str(intransigence(table).reason)
    assert intransigence(table, Reference("joint", {"a": 0.9})).reason == (
        "not measured: no reference score for task 'b'"
    )


def test_no_stage_gives_reasons_and_not_a_crash() -> None:
    m = final_metrics(matrix([[0.1, 0.1]], "ab", ""))
    assert {metric.reason for metric in m.values()} == {"no stage has been measured"}


def test_every_metric_carries_its_formula_and_source() -> None:
    m = final_metrics(matrix([[0.1, 0.1], [0.8, 0.2], [0.5, 0.9]]))
    assert len(m) == 22
    for name, metric in m.items():
        assert metric.name == name
        assert "(" in metric.formula


def test_texts_of_the_headline_matrix_are_seed_until_a_stage_visits_the_task() -> None:
    policies = [[headline_policy(("a", "b"), row, t) for t in "abx"] for row in range(3)]
    assert policies == [
        ["seed", "seed", "seed"],
        ["live", "seed", "seed"],
        ["live", "live", "seed"],
    ]


@pytest.mark.parametrize(
    ("rows", "tasks", "stages", "message"),
    [
        ([[0.1]], "a", "a", "1 stages need 2 rows"),
        ([[0.1], [0.1]], "a", "b", "must be distinct and hold every stage's task"),
        ([[0.1, 0.2], [0.1]], "ab", "a", "row 1 has 1 scores, expected 2"),
        ([[0.1], [50.0]], "a", "a", "row 1, task 'a': got 50.0"),
        ([[0.1], [float("nan")]], "a", "a", "row 1, task 'a': got nan"),
    ],
)
def test_a_matrix_of_the_wrong_shape_or_range_is_refused(
    rows: list[list[float | None]], tasks: str, stages: str, message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        matrix(rows, tasks, stages)


def test_upto_refuses_a_stage_that_is_not_there() -> None:
    with pytest.raises(IndexError, match="stage 3 of a matrix with 2 stages"):
        matrix([[0.1, 0.1], [0.8, 0.2], [0.5, 0.9]]).upto(3)


def test_the_terms_of_one_task_have_the_names_of_the_means_and_reasons_of_their_own() -> None:
    table = matrix([[0.1, 0.1], [0.8, 0.2], [0.5, 0.9]])
    first, last = task_metrics(table, 1), task_metrics(table, 2)
    assert first["forgetting_chaudhry"].value == pytest.approx(0.3)
    assert first["retention_gain"].value == pytest.approx(0.4 / 0.7)
    assert last["forgetting_chaudhry"].reason == "learned in the last stage: nothing came after"
    assert last["retention_gain"].value == 1
    assert "needs a reference run" in str(last["intransigence"].reason)
    assert set(first) == set(last) < set(final_metrics(table))


def test_the_terms_of_a_task_visited_twice_are_undefined() -> None:
    twice = matrix([[0.1, 0.1], [0.8, 0.2], [0.7, 0.9], [0.9, 0.8]], "ab", "aba")
    assert {m.value for m in task_metrics(twice, 1).values()} == {None}
    assert "visited by stages 1 and 3" in str(task_metrics(twice, 1)["min_acc"].reason)


def test_intransigence_says_which_reference_it_is_against() -> None:
    table = matrix([[0.1, 0.1], [0.8, 0.2], [0.5, 0.9]])
    scores = {"a": 0.9, "b": 0.9}
    isolated = named_intransigence(table, Reference("isolated", scores))
    assert isolated.value == pytest.approx(0.05)
    assert isolated.formula.endswith("ref=isolated")
    alone = fwt_isolated(table, Reference("isolated", scores))
    assert alone.value == pytest.approx(-0.05)
    assert fwt_isolated(table, Reference("joint", scores)).value is None
    assert fwt_isolated(table).reason == "not measured: needs each task trained alone from the base"


def test_backward_transfer_says_nothing_where_nothing_was_learned() -> None:
    learned = matrix([[0.1, 0.1], [0.8, 0.2], [0.5, 0.9]])
    idle = matrix([[0.1, 0.1], [0.12, 0.2], [0.1, 0.1]])
    assert learning_gain(learned).value == pytest.approx(0.75)
    assert why_bwt_says_nothing(learned, 0.05) is None
    assert "gained 0.01 on average" in str(why_bwt_says_nothing(idle, 0.05))
    missing = matrix([[None, 0.1], [0.8, 0.2], [0.5, 0.9]])
    assert why_bwt_says_nothing(missing) == "not measured: task 'a' in row 0"


def test_learning_curve_area_needs_a_curve_of_every_task() -> None:
    curves = {"a": [0.0, 0.5, 1.0], "b": [0.2, 0.2]}
    assert lca(curves, 0).value == pytest.approx(0.1)
    assert lca(curves, 1).value == pytest.approx((0.25 + 0.2) / 2)
    assert lca(curves, 2).reason == "not measured: task 'b' was scored 2 times, LCA_2 needs 3"
    assert lca({}, 1).reason == "not measured: no learning curve"
