"""The hand-checked vectors of the metric specification, and identities that hold on any matrix."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastslow.measure import transfer as tr
from fastslow.measure import uncertainty as un
from fastslow.types import Metric

NAMES = ("a", "b", "c", "d")
BASE = (0.25, 0.20, 0.10, 0.10)
R = tr.ScoreMatrix(
    NAMES,
    NAMES,
    (
        BASE,
        (0.80, 0.30, 0.20, 0.10),
        (0.85, 0.70, 0.40, 0.15),
        (0.60, 0.75, 0.90, 0.20),
        (0.65, 0.50, 0.95, 0.60),
    ),
)
TRAP = tr.ScoreMatrix(
    ("a", "b", "c"),
    ("a", "b", "c"),
    ((0.0, 0.0, 0.0), (0.7, 0.9, 0.1), (0.6, 0.6, 0.2), (0.5, 0.55, 0.8)),
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("average_accuracy", 0.675),
        ("learning_accuracy", 0.75),
        ("average_incremental_accuracy", 0.75),
        ("lower_triangle_accuracy", 0.73),
        ("bwt_gem", -0.10),
        ("bwt_trace", -0.075),
        ("bwt_diaz", -0.2 / 3),
        ("rem", 1 - 0.2 / 3),
        ("bwt_plus", 0.0),
        ("fwt_gem", 0.5 / 3),
        ("fwt_diaz", 0.225),
        ("forgetting_chaudhry", 0.4 / 3),
        ("forgetting_incl_final", 0.15),
        ("forgetting_first_last", 0.10),
        ("forgetting_relative", (0.20 / 0.85 + 0.25 / 0.75 - 0.05 / 0.90) / 3),
        ("retention_gain", (0.40 / 0.55 + 0.60 + 1.0625) / 3),
        ("min_acc", 2.05 / 3),
        ("wc_acc", 0.6625),
    ],
)
def test_every_transfer_metric_gives_its_hand_checked_value(name: str, value: float) -> None:
    assert tr.final_metrics(R)[name].value == pytest.approx(value, abs=1e-6)


def test_the_decimals_printed_in_the_specification_are_met() -> None:
    metrics = tr.final_metrics(R)
    printed = {
        "bwt_diaz": -0.066667,
        "rem": 0.933333,
        "fwt_gem": 0.166667,
        "forgetting_chaudhry": 0.133333,
        "forgetting_relative": 0.171024,
        "min_acc": 0.683333,
    }
    assert {name: round(metrics[name].value or 0.0, 6) for name in printed} == printed


def test_per_task_vectors_are_met() -> None:
    reference = dict(zip(NAMES, (0.82, 0.78, 0.88, 0.70), strict=True))
    assert [tr.forgetting_of(R, j) for j in (1, 2, 3)] == pytest.approx([0.20, 0.25, -0.05])
    assert [tr.retention_of(R, j) for j in (1, 2, 3, 4)] == pytest.approx(
        [0.727273, 0.60, 1.0625, 1.0], abs=1e-6
    )
    assert [tr.intransigence_of(R, j, reference) for j in (1, 2, 3, 4)] == pytest.approx(
        [0.02, 0.08, -0.02, 0.10]
    )
    assert tr.intransigence(R, reference).value == pytest.approx(0.045)


def test_forgetting_after_each_stage_is_met() -> None:
    values = [tr.forgetting_chaudhry(R.upto(k)).value for k in (2, 3, 4)]
    assert values == pytest.approx([-0.05, 0.10, 0.133333], abs=1e-6)


def test_a_score_from_before_the_tasks_own_stage_counts_only_in_the_any_variant() -> None:
    assert [tr.forgetting_of(TRAP, j) for j in (1, 2)] == pytest.approx([0.20, 0.05])
    assert tr.forgetting_chaudhry(TRAP).value == pytest.approx(0.125)
    assert tr.forgetting_chaudhry_any(TRAP).value == pytest.approx((0.20 + 0.35) / 2)


def test_one_stage_has_no_transfer_and_no_forgetting_and_says_why() -> None:
    metrics = tr.final_metrics(R.upto(1))
    defined = {name for name, metric in metrics.items() if metric.value is not None}
    assert defined == {
        "average_accuracy",
        "learning_accuracy",
        "average_incremental_accuracy",
        "lower_triangle_accuracy",
    }
    assert metrics["bwt_gem"].reason == "needs at least two stages, this run has one"
    assert metrics["fwt_gem"].reason == metrics["forgetting_chaudhry"].reason


# Uncertainty


def paired_vector() -> un.PairedDifference:
    before = [1.0] * 15 + [0.0] * 5 + [1.0] * 180
    after = [0.0] * 15 + [1.0] * 5 + [1.0] * 180
    return un.paired_difference(before, after)


def test_paired_difference_vector() -> None:
    d = paired_vector()
    assert d.n == 200
    assert d.mean == pytest.approx(-0.05)
    assert d.se == pytest.approx(0.022135, abs=1e-6)
    assert [d.low, d.high] == pytest.approx([-0.0933, -0.0067], abs=1e-4)
    assert d.smallest_detectable == pytest.approx(0.062, abs=5e-4)


def test_mcnemar_vector() -> None:
    assert un.mcnemar(15, 5) == pytest.approx(0.041389, abs=1e-6)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0), (130, 200, 0.5816, 0.7127)],
)
def test_wilson_vectors(successes: int, n: int, low: float, high: float) -> None:
    interval = un.wilson(successes, n)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


# Identities


@st.composite
def matrices(draw: st.DrawFn, top: float = 1.0, min_stages: int = 2) -> tr.ScoreMatrix:
    """Fully measured matrices with 2 to 5 tasks."""
    size = draw(st.integers(min_stages, 5))
    names = tuple(f"t{i}" for i in range(size))
    cell = st.integers(0, 64).map(lambda hits: top * hits / 64)
    row = st.tuples(*[cell] * size)
    return tr.ScoreMatrix(names, names, tuple(draw(row) for _ in range(size + 1)))


def value(metric: Metric) -> float:
    assert metric.value is not None, metric.reason
    return metric.value


@given(matrices())
def test_metrics_that_are_two_forms_of_one_agree(matrix: tr.ScoreMatrix) -> None:
    m, size = tr.final_metrics(matrix), matrix.num_stages
    assert value(m["forgetting_first_last"]) == pytest.approx(-value(m["bwt_gem"]))
    assert value(m["bwt_trace"]) == pytest.approx(value(m["bwt_gem"]) * (size - 1) / size)
    assert value(m["bwt_plus"]) * (1 - value(m["rem"])) == pytest.approx(0)
    assert value(m["bwt_plus"]) + value(m["rem"]) - 1 == pytest.approx(value(m["bwt_diaz"]))
    learned_and_kept = value(m["learning_accuracy"]) + value(m["bwt_trace"])
    assert value(m["average_accuracy"]) == pytest.approx(learned_and_kept)


@given(matrices())
def test_the_forgetting_variants_are_ordered(matrix: tr.ScoreMatrix) -> None:
    m = {name: metric.value for name, metric in tr.final_metrics(matrix).items()}
    first_last, default = m["forgetting_first_last"], m["forgetting_chaudhry"]
    assert first_last is not None
    assert default is not None
    assert first_last - 1e-9 <= default <= (m["forgetting_incl_final"] or 0.0) + 1e-9
    assert default <= (m["forgetting_chaudhry_any"] or 0.0) + 1e-9
    assert (m["forgetting_incl_final"] or 0.0) >= 0


@given(matrices())
def test_metrics_stay_within_their_bounds(matrix: tr.ScoreMatrix) -> None:
    signed = {"bwt_gem", "bwt_trace", "bwt_diaz", "fwt_gem", "forgetting_chaudhry"}
    signed |= {"forgetting_chaudhry_any", "forgetting_first_last"}
    unbounded = {"retention_gain", "forgetting_relative", "intransigence"}
    for name, metric in tr.final_metrics(matrix).items():
        if metric.value is not None and name not in unbounded:
            low = -1.0 if name in signed else 0.0
            assert low - 1e-9 <= metric.value <= 1 + 1e-9, name


@given(matrices(top=0.5), st.integers(0, 32))
def test_differences_ignore_a_constant_added_to_every_score(
    matrix: tr.ScoreMatrix, shift: int
) -> None:
    rows = tuple(tuple((s or 0.0) + shift / 64 for s in row) for row in matrix.rows)
    before, after = (
        tr.final_metrics(m) for m in (matrix, tr.ScoreMatrix(matrix.tasks, matrix.stages, rows))
    )
    for name in ("bwt_gem", "bwt_diaz", "fwt_gem", "forgetting_chaudhry", "forgetting_first_last"):
        assert value(after[name]) == pytest.approx(value(before[name])), name
    assert value(after["average_accuracy"]) == pytest.approx(
        value(before["average_accuracy"]) + shift / 64
    )


@given(matrices(), st.data())
def test_the_order_of_columns_changes_nothing(matrix: tr.ScoreMatrix, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(matrix.tasks))))
    shuffled = tr.ScoreMatrix(
        tuple(matrix.tasks[i] for i in order),
        matrix.stages,
        tuple(tuple(row[i] for i in order) for row in matrix.rows),
    )
    assert tr.final_metrics(shuffled) == tr.final_metrics(matrix)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_paired_differences_change_sign_when_before_and_after_are_swapped(
    pairs: list[tuple[bool, bool]],
) -> None:
    before, after = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    there, back = un.paired_difference(before, after), un.paired_difference(after, before)
    assert there.mean == pytest.approx(-back.mean)
    assert there.smallest_detectable == pytest.approx(back.smallest_detectable)
    if there.low is not None and back.high is not None:
        assert there.low == pytest.approx(-back.high)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_narrows_with_n(counts: tuple[int, int]) -> None:
    successes, n = counts
    one, four = un.wilson(successes, n), un.wilson(4 * successes, 4 * n)
    assert 0 <= one.low <= successes / n <= one.high <= 1
    assert four.high - four.low < one.high - one.low
