import pytest

from fastslow.errors import EvaluationError
from fastslow.measure import transfer as tr


def matrix(rows: list[list[float | None]], tasks: str = "ab", stages: str = "ab") -> tr.ScoreMatrix:
    return tr.ScoreMatrix(tuple(tasks), tuple(stages), tuple(tuple(row) for row in rows))


def test_a_missing_cell_makes_only_the_metrics_that_need_it_undefined() -> None:
    m = tr.final_metrics(matrix([[0.1, None], [0.8, 0.2], [0.5, 0.9]]))
    assert m["fwt_gem"].value is None
    assert m["fwt_gem"].reason == "not measured: task 'b' in row 0"
    assert m["bwt_gem"].value == pytest.approx(-0.3)
    assert m["average_accuracy"].value == pytest.approx(0.7)


def test_a_missing_cell_is_never_read_as_zero() -> None:
    m = tr.final_metrics(matrix([[0.1, 0.1], [0.8, 0.2], [None, 0.9]]))
    for name in ("average_accuracy", "bwt_gem", "forgetting_chaudhry", "min_acc", "rem"):
        assert m[name].value is None
        assert m[name].reason == "not measured: task 'a' in row 2"


def test_a_task_visited_twice_makes_transfer_undefined_and_names_the_stages() -> None:
    m = tr.final_metrics(matrix([[0.1, 0.1], [0.8, 0.2], [0.7, 0.9], [0.9, 0.8]], "ab", "aba"))
    assert all(metric.value is None for metric in m.values())
    assert m["bwt_gem"].reason == (
        "task 'a' is visited by stages 1 and 3; the formula needs one visit per task"
    )


def test_held_out_tasks_enter_no_metric() -> None:
    plain = matrix([[0.1, 0.1], [0.8, 0.2], [0.5, 0.9]])
    rows: list[list[float | None]] = [[0.1, 0.9, 0.1], [0.8, None, 0.2], [0.5, 0.0, 0.9]]
    assert tr.final_metrics(matrix(rows, "axb")) == tr.final_metrics(plain)


def test_a_task_that_never_scored_makes_relative_forgetting_undefined() -> None:
    m = tr.final_metrics(matrix([[0.0, 0.0], [0.0, 0.0], [0.0, 0.5]]))
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
    kept = tr.retention_gain(matrix(rows), floor)
    assert (kept.value is not None) is is_defined
    assert (kept.reason is None) is is_defined


def test_intransigence_without_a_reference_is_not_measured_rather_than_zero() -> None:
    whole = matrix([[0.1, 0.1], [0.8, 0.2], [0.5, 0.9]])
    assert tr.intransigence(whole).value is None
    assert "needs a reference run" in str(tr.intransigence(whole).reason)
    assert tr.intransigence(whole, {"a": 0.9}).reason == (
        "not measured: no reference score for task 'b'"
    )


def test_no_stage_gives_reasons_and_not_a_crash() -> None:
    m = tr.final_metrics(matrix([[0.1, 0.1]], "ab", ""))
    assert {metric.reason for metric in m.values()} == {"no stage has been measured"}


def test_every_metric_carries_its_formula_and_source() -> None:
    m = tr.final_metrics(matrix([[0.1, 0.1], [0.8, 0.2], [0.5, 0.9]]))
    assert set(m) == set(tr.FORMULAS)
    for name, metric in m.items():
        assert metric.name == name
        assert metric.formula == tr.FORMULAS[name]
        assert "(" in metric.formula


def test_texts_of_the_headline_matrix_are_seed_until_a_stage_visits_the_task() -> None:
    policies = [[tr.headline_policy(("a", "b"), row, t) for t in "abx"] for row in range(3)]
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
