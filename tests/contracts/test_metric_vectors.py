"""The hand-checked vectors of the metric specification, and identities that hold on any matrix."""

import math
from statistics import fmean
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastslow.core.types import Metric
from fastslow.measure.model import ranks
from fastslow.measure.model.divergences import k3
from fastslow.measure.model.proxies import dormancy_scores
from fastslow.measure.scores import channel_split as split
from fastslow.measure.scores.all_metrics import final_metrics, task_metrics
from fastslow.measure.scores.curves import LearningCurve
from fastslow.measure.scores.forgetting import (
    forgetting_chaudhry,
    forgetting_chaudhry_any,
    retention_gain,
)
from fastslow.measure.scores.intransigence import Reference, intransigence
from fastslow.measure.scores.matrix import ScoreMatrix
from fastslow.measure.scores.plasticity import Probe, probe_metrics
from fastslow.measure.stats import intervals as un
from fastslow.measure.stats.significance import holm, sign_flip

NAMES = ("a", "b", "c", "d")
BASE = (0.25, 0.20, 0.10, 0.10)
R = ScoreMatrix(
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
TRAP = ScoreMatrix(
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
    assert final_metrics(R)[name].value == pytest.approx(value, abs=1e-6)


def test_the_decimals_printed_in_the_specification_are_met() -> None:
    metrics = final_metrics(R)
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
    reference = Reference("joint", dict(zip(NAMES, (0.82, 0.78, 0.88, 0.70), strict=True)))
    assert [forgetting_chaudhry.term(R, j) for j in (1, 2, 3)] == pytest.approx([0.20, 0.25, -0.05])
    assert [retention_gain.term(R, j) for j in (1, 2, 3, 4)] == pytest.approx(
        [0.727273, 0.60, 1.0625, 1.0], abs=1e-6
    )
    assert [intransigence.term(R, j, reference) for j in (1, 2, 3, 4)] == pytest.approx(
        [0.02, 0.08, -0.02, 0.10]
    )
    assert intransigence(R, reference).value == pytest.approx(0.045)


def test_forgetting_after_each_stage_is_met() -> None:
    values = [forgetting_chaudhry(R.upto(k)).value for k in (2, 3, 4)]
    assert values == pytest.approx([-0.05, 0.10, 0.133333], abs=1e-6)


def test_a_score_from_before_the_tasks_own_stage_counts_only_in_the_any_variant() -> None:
    assert [forgetting_chaudhry.term(TRAP, j) for j in (1, 2)] == pytest.approx([0.20, 0.05])
    assert [forgetting_chaudhry_any.term(TRAP, j) for j in (1, 2)] == pytest.approx([0.20, 0.35])
    assert forgetting_chaudhry(TRAP).value == pytest.approx(0.125)
    assert forgetting_chaudhry_any(TRAP).value == pytest.approx((0.20 + 0.35) / 2)


def test_one_stage_has_no_transfer_and_no_forgetting_and_says_why() -> None:
    metrics = final_metrics(R.upto(1))
    defined = {name for name, metric in metrics.items() if metric.value is not None}
    assert defined == {
        "average_accuracy",
        "learning_accuracy",
        "learning_gain",
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
    assert d.mean == pytest.approx(-0.05, abs=1e-6)
    assert d.se is not None
    assert d.se == pytest.approx(0.022135, abs=1e-6)
    assert d.smallest_detectable == pytest.approx(0.062, abs=5e-5)
    # The printed SE without Bessel's correction, and the interval made from it.
    population = d.se * math.sqrt(199 / 200)
    assert population == pytest.approx(0.022079, abs=1e-6)
    printed = [round(d.mean + sign * 1.96 * population, 4) for sign in (-1, 1)]
    assert printed == [-0.0933, -0.0067]
    assert [d.low, d.high] == pytest.approx([-0.05 - 1.96 * d.se, -0.05 + 1.96 * d.se])


def test_mcnemar_vector() -> None:
    assert un.mcnemar(15, 5) == pytest.approx(0.041389, abs=1e-6)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0), (130, 200, 0.5816, 0.7127)],
)
def test_wilson_vectors(successes: int, n: int, low: float, high: float) -> None:
    interval = un.wilson(successes, n)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


# Channel split

CELLS: dict[split.CellName, float | None] = {
    "learned_own": 0.80,
    "final_own": 0.65,
    "learned_live": 0.72,
    "final_live": 0.60,
    "final_reopt": 0.74,
}


def test_channel_split_vector() -> None:
    measured = split.channel_split(CELLS, same_text=False, budget=64)
    expected = {
        "tf": 0.20,
        "wf": 0.15,
        "pf": 0.08,
        "ix": -0.03,
        "wf_s": 0.135,
        "pf_s": 0.065,
        "rec": 0.14,
        "residual": 0.06,
    }
    assert {name: value(measured[name]) for name in expected} == pytest.approx(expected, abs=1e-6)


# Divergences, ranks and units


def test_k3_vector() -> None:
    p, q = (0.5, 0.4, 0.9), (0.25, 0.5, 0.9)
    terms = [k3(math.log(a), math.log(b)) for a, b in zip(p, q, strict=True)]
    assert fmean(terms) == pytest.approx(0.073335, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "effective", "stable", "directions", "energy"),
    [
        ((4, 2, 1, 1), 3.3636, 1.375, 4, 4),
        ((3, 1, 0, 0), 1.7548, 1.1111, 2, 2),
        ((100, 1, 1, 1), 1.1778, 1.0003, 3, 1),
    ],
)
def test_rank_vectors(
    values: tuple[float, ...], effective: float, stable: float, directions: int, energy: int
) -> None:
    assert round(ranks.effective_rank(values), 4) == effective
    assert round(ranks.stable_rank(values), 4) == stable
    assert (ranks.srank(values), ranks.energy_rank(values)) == (directions, energy)


def test_dormancy_vector() -> None:
    assert dormancy_scores((0, 0.5, 1.5, 2)) == pytest.approx([0, 0.5, 1.5, 2], abs=1e-6)


# Plasticity probe


def test_probe_vector() -> None:
    def curve(*means: float) -> LearningCurve:
        return LearningCurve("steps", (0, 1, 2, 3), tuple((mean,) for mean in means))

    prior, base = curve(0.10, 0.12, 0.15, 0.20), curve(0.10, 0.20, 0.35, 0.40)
    measured = probe_metrics(Probe((prior,), (base,), "merge"))
    expected = {
        "probe_end_difference": -0.20,
        "probe_end_ratio": 0.5,
        "probe_gain_ratio": 1 / 3,
        "probe_auc": 0.42,
        "probe_auc_base": 0.80,
        "probe_auc_ratio": 0.24,
    }
    assert {name: value(measured[name]) for name in expected} == pytest.approx(expected, abs=1e-6)


# Identities


@st.composite
def matrices(draw: st.DrawFn, top: float = 1.0, min_stages: int = 2) -> ScoreMatrix:
    """Fully measured matrices with 2 to 5 tasks."""
    size = draw(st.integers(min_stages, 5))
    names = tuple(f"t{i}" for i in range(size))
    cell = st.integers(0, 64).map(lambda hits: top * hits / 64)
    row = st.tuples(*[cell] * size)
    return ScoreMatrix(names, names, tuple(draw(row) for _ in range(size + 1)))


def value(metric: Metric) -> float:
    assert metric.value is not None, metric.reason
    return metric.value


@given(matrices())
def test_metrics_that_are_two_forms_of_one_agree(matrix: ScoreMatrix) -> None:
    m, size = final_metrics(matrix), matrix.num_stages
    assert value(m["forgetting_first_last"]) == pytest.approx(-value(m["bwt_gem"]))
    assert value(m["bwt_trace"]) == pytest.approx(value(m["bwt_gem"]) * (size - 1) / size)
    assert value(m["bwt_plus"]) * (1 - value(m["rem"])) == pytest.approx(0)
    assert value(m["bwt_plus"]) + value(m["rem"]) - 1 == pytest.approx(value(m["bwt_diaz"]))
    learned_and_kept = value(m["learning_accuracy"]) + value(m["bwt_trace"])
    assert value(m["average_accuracy"]) == pytest.approx(learned_and_kept)


@given(matrices())
def test_the_forgetting_variants_are_ordered(matrix: ScoreMatrix) -> None:
    m = {name: metric.value for name, metric in final_metrics(matrix).items()}
    first_last, default = m["forgetting_first_last"], m["forgetting_chaudhry"]
    assert first_last is not None
    assert default is not None
    assert first_last - 1e-9 <= default <= (m["forgetting_incl_final"] or 0.0) + 1e-9
    assert default <= (m["forgetting_chaudhry_any"] or 0.0) + 1e-9
    assert (m["forgetting_incl_final"] or 0.0) >= 0


@given(matrices())
def test_metrics_stay_within_their_bounds(matrix: ScoreMatrix) -> None:
    signed = {"bwt_gem", "bwt_trace", "bwt_diaz", "fwt_gem", "forgetting_chaudhry"}
    signed |= {"forgetting_chaudhry_any", "forgetting_first_last", "learning_gain"}
    unbounded = {"retention_gain", "forgetting_relative", "intransigence"}
    for name, metric in final_metrics(matrix).items():
        if metric.value is not None and name not in unbounded:
            low = -1.0 if name in signed else 0.0
            assert low - 1e-9 <= metric.value <= 1 + 1e-9, name


@given(matrices(top=0.5), st.integers(0, 32))
def test_differences_ignore_a_constant_added_to_every_score(
    matrix: ScoreMatrix, shift: int
) -> None:
    rows = tuple(tuple((s or 0.0) + shift / 64 for s in row) for row in matrix.rows)
    before, after = (
        final_metrics(m) for m in (matrix, ScoreMatrix(matrix.tasks, matrix.stages, rows))
    )
    for name in ("bwt_gem", "bwt_diaz", "fwt_gem", "forgetting_chaudhry", "forgetting_first_last"):
        assert value(after[name]) == pytest.approx(value(before[name])), name
    assert value(after["average_accuracy"]) == pytest.approx(
        value(before["average_accuracy"]) + shift / 64
    )


@given(matrices(), st.data())
def test_the_order_of_columns_changes_nothing(matrix: ScoreMatrix, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(matrix.tasks))))
    shuffled = ScoreMatrix(
        tuple(matrix.tasks[i] for i in order),
        matrix.stages,
        tuple(tuple(row[i] for i in order) for row in matrix.rows),
    )
    assert final_metrics(shuffled) == final_metrics(matrix)


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
    single, four = un.wilson(successes, n), un.wilson(4 * successes, 4 * n)
    assert 0 <= single.low <= successes / n <= single.high <= 1
    assert four.high - four.low < single.high - single.low


@given(matrices(), st.data())
def test_terms_of_the_tasks_average_to_the_metric(matrix: ScoreMatrix, data: st.DataObject) -> None:
    metrics = final_metrics(matrix)
    names = ("forgetting_chaudhry", "forgetting_chaudhry_any", "forgetting_incl_final", "min_acc")
    terms = [task_metrics(matrix, j) for j in range(1, matrix.num_stages)]
    for name in names:
        mean = sum(value(term[name]) for term in terms) / len(terms)
        assert value(metrics[name]) == pytest.approx(mean), name


@given(matrices())
def test_positive_backward_transfer_of_every_task_leaves_nothing_forgotten(
    matrix: ScoreMatrix,
) -> None:
    rising = ScoreMatrix(
        matrix.tasks,
        matrix.stages,
        tuple(zip(*(sorted(column) for column in zip(*matrix.rows, strict=True)), strict=True)),
    )
    m = final_metrics(rising)
    assert value(m["forgetting_incl_final"]) == 0
    assert value(m["bwt_gem"]) >= 0
    assert value(m["rem"]) == 1


CELL = st.integers(0, 32).map(lambda hits: hits / 32)


@given(st.fixed_dictionaries(dict.fromkeys(get_args(split.CellName), CELL)))
def test_the_split_adds_up(cells: dict[split.CellName, float | None]) -> None:
    m = {n: value(x) for n, x in split.channel_split(cells, same_text=False, budget=1).items()}
    assert m["wf_s"] + m["pf_s"] == pytest.approx(m["tf"])
    assert m["wf"] + m["pf"] + m["ix"] == pytest.approx(m["tf"])
    assert m["rec"] + m["residual"] == pytest.approx(m["tf"])
    assert m["gain_slow"] + m["gain_fast"] + m["synergy"] == pytest.approx(m["gain_joint"])
    for name, part in split.SPLITS.items():
        assert sum(part.weights.values()) == 0, name


PROBABILITIES = st.lists(st.integers(1, 40), min_size=2, max_size=8).map(
    lambda counts: [count / sum(counts) for count in counts]
)


@given(PROBABILITIES, st.data())
def test_k3_is_zero_only_where_both_agree_and_is_the_divergence_in_expectation(
    p: list[float], data: st.DataObject
) -> None:
    q = data.draw(st.permutations(p))
    terms = [k3(math.log(a), math.log(b)) for a, b in zip(p, q, strict=True)]
    assert all((term == 0) == (a == b) for term, a, b in zip(terms, p, q, strict=True))
    assert min(terms) >= 0
    exact = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert sum(a * term for a, term in zip(p, terms, strict=True)) == pytest.approx(exact, abs=1e-9)


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=12), st.floats(0.01, 50))
def test_ranks_lie_between_one_and_the_number_of_values_and_ignore_scale(
    values: list[float], scale: float
) -> None:
    for rank in (ranks.effective_rank, ranks.stable_rank, ranks.srank):
        assert 1 - 1e-9 <= rank(values) <= len(values) + 1e-9
    assert ranks.energy_rank(values) <= ranks.srank(values)
    scaled = [scale * x for x in values]
    assert ranks.effective_rank(scaled) == pytest.approx(ranks.effective_rank(values))
    assert ranks.stable_rank(scaled) == pytest.approx(ranks.stable_rank(values))


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_the_order(p: dict[str, float]) -> None:
    adjusted = holm(p)
    assert list(adjusted) == list(p)
    for name in p:
        assert p[name] <= adjusted[name] <= 1
        for second in p:
            if p[name] <= p[second]:
                assert adjusted[name] <= adjusted[second] + 1e-12


@given(st.lists(st.integers(-8, 8), min_size=1, max_size=7))
def test_sign_flip_is_symmetric_and_never_below_its_limit(steps: list[int]) -> None:
    differences = [step / 8 for step in steps]
    test, mirrored = sign_flip(differences), sign_flip([-d for d in differences])
    assert test is not None
    assert test.lowest_possible <= test.p_value <= 1
    assert mirrored == test


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(-4, 4)), min_size=2, max_size=40),
)
def test_clusters_of_one_give_the_plain_standard_error(pairs: list[tuple[int, int]]) -> None:
    values = [step / 4 for _, step in pairs]
    alone = un.clustered_se(values, range(len(values)))
    assert (alone or 0) == pytest.approx(un.difference_of(values).se or 0)
    doubled = un.clustered_se(values * 2, [*range(len(values))] * 2)
    assert (doubled or 0) == pytest.approx(alone or 0)
