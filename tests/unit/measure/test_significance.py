import math
import random

import pytest
from scipy import stats

from fastslow.measure.model.divergences import forgetting_on_kl
from fastslow.measure.stats import intervals as un
from fastslow.measure.stats.significance import (
    SignFlip,
    holm,
    noise_floor,
    sign_flip,
)


def test_wilson_and_mcnemar_are_those_of_scipy() -> None:
    for right, n in ((0, 7), (3, 7), (7, 7), (130, 200)):
        theirs = stats.binomtest(right, n).proportion_ci(method="wilson")
        ours = un.wilson(right, n)
        assert [ours.low, ours.high] == pytest.approx([theirs.low, theirs.high], abs=2e-5)
    for lost, won in ((15, 5), (1, 0), (4, 4)):
        assert un.mcnemar(lost, won) == pytest.approx(stats.binomtest(lost, lost + won).pvalue)


def flip(differences: list[float]) -> SignFlip:
    test = sign_flip(differences)
    assert test is not None
    return test


def test_sign_flip_is_that_of_scipy() -> None:
    differences = [0.1, -0.02, 0.07, 0.05, 0.12, 0.03]
    theirs = stats.permutation_test(
        (differences,), lambda x: sum(x) / len(x), permutation_type="samples", vectorized=False
    )
    assert flip(differences).p_value == pytest.approx(theirs.pvalue)


def test_few_seeds_can_never_be_significant_and_say_so() -> None:
    lowest = [flip([0.5] * n).lowest_possible for n in (1, 3, 4, 5, 6)]
    assert lowest == [1, 0.25, 0.125, 0.0625, 0.03125]
    three = flip([0.5, 0.6, 0.7])
    assert three.p_value == three.lowest_possible == 0.25
    assert three.why_not_significant == ("3 seeds cannot give p below 0.25; significance needs 6")
    assert flip([0.5] * 6).why_not_significant is None
    assert flip([0.0, 0.0]).p_value == 1


def test_no_seed_and_too_many_to_count_give_no_test() -> None:
    assert sign_flip([]) is None
    assert sign_flip([0.1] * 17) is None


def test_holm_gives_the_hand_values() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({}) == {}


def test_the_noise_floor_is_a_range_and_needs_two_evaluations() -> None:
    assert noise_floor([0.5, 0.53, 0.49]).value == pytest.approx(0.04)
    assert noise_floor([0.5]).reason == "needs two base evaluations at least, got 1"


def test_examples_of_one_source_widen_the_standard_error() -> None:
    changes = [0.0] * 6 + [-1.0] * 6
    clustered = un.clustered_se(changes, [i // 3 for i in range(12)])
    assert clustered is not None
    assert clustered > 1.5 * stats.sem(changes)


def test_the_clustered_error_is_that_of_the_cluster_means_when_clusters_are_equal() -> None:
    generator = random.Random(0)
    values = [generator.random() for _ in range(20)]
    means = [sum(values[i : i + 4]) / 4 for i in range(0, 20, 4)]
    clustered = un.clustered_se(values, [i // 4 for i in range(20)])
    assert clustered == pytest.approx(stats.sem(means))


def test_one_cluster_has_no_standard_error() -> None:
    assert un.clustered_se([-1.0, 0.0], ["s", "s"]) is None
    with pytest.raises(ValueError, match="shorter"):
        un.clustered_se([0.1, 0.2], ["s"])


def test_a_planted_parabola_is_recovered() -> None:
    kls = [0.01, 0.03, 0.05, 0.09, 0.2]
    fit = forgetting_on_kl(kls, [0.02 + 0.5 * x + 3 * x * x for x in kls])
    values = [fit[f"kl_fit_{name}"].value for name in ("c0", "c1", "c2", "r2", "n")]
    assert values == pytest.approx([0.02, 0.5, 3, 1, 5])


def test_a_fit_that_says_nothing_has_a_reason() -> None:
    for kls, lost, reason in (
        ([0.1, 0.2, 0.3], [0.0, 0.1, 0.2], "a parabola goes through any three points"),
        ([0.1, 0.1, 0.3, 0.3], [0.0, 0.1, 0.2, 0.3], "needs three different KL values, got 2"),
        ([0.1, 0.2, 0.3, 0.4], [0.1] * 4, "every point has the same forgetting"),
    ):
        fit = forgetting_on_kl(kls, lost)
        assert reason in str(fit["kl_fit_r2"].reason)
        assert fit["kl_fit_c2"].value is None
        assert fit["kl_fit_n"].value == len(kls)
    noise = forgetting_on_kl([0.1, 0.2, 0.3, 0.4, 0.5], [0.3, 0.0, 0.2, 0.0, 0.3])["kl_fit_r2"]
    assert noise.value is not None
    assert 0 <= noise.value < 1
    assert not math.isnan(noise.value)
