import math
import random

import pytest
from scipy import stats

from fastslow.measure.model.divergences import forgetting_on_kl
from fastslow.measure.stats import intervals as un
from fastslow.measure.stats.significance import (
    gate,
    holm,
    lowest_sign_flip_p,
    noise_floor,
    over_seeds,
    sign_flip,
)


def test_wilson_and_mcnemar_are_those_of_scipy() -> None:
    for right, n in ((0, 7), (3, 7), (7, 7), (130, 200)):
        theirs = stats.binomtest(right, n).proportion_ci(method="wilson")
        ours = un.wilson(right, n)
        assert [ours.low, ours.high] == pytest.approx([theirs.low, theirs.high], abs=2e-5)
    for lost, won in ((15, 5), (1, 0), (4, 4)):
        assert un.mcnemar(lost, won) == pytest.approx(stats.binomtest(lost, lost + won).pvalue)


def test_sign_flip_is_that_of_scipy() -> None:
    differences = [0.1, -0.02, 0.07, 0.05, 0.12, 0.03]
    theirs = stats.permutation_test(
        (differences,), lambda x: sum(x) / len(x), permutation_type="samples", vectorized=False
    )
    assert sign_flip(differences).p_value == pytest.approx(theirs.pvalue)


def test_few_seeds_can_never_be_significant_and_say_so() -> None:
    assert [lowest_sign_flip_p(n) for n in (1, 3, 4, 5, 6)] == [1, 0.25, 0.125, 0.0625, 0.03125]
    three = sign_flip([0.5, 0.6, 0.7])
    assert three.p_value == three.lowest_possible == 0.25
    assert three.why_not_significant == ("3 seeds cannot give p below 0.25; significance needs 6")
    assert sign_flip([0.5] * 6).why_not_significant is None
    assert sign_flip([0.0, 0.0]).p_value == 1
    for wrong in ([], [0.1] * 17):
        with pytest.raises(ValueError, match="need 1 to 16 differences"):
            sign_flip(wrong)


def test_holm_gives_the_hand_values() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({}) == {}


def test_the_noise_floor_is_a_range_and_gates_only_when_it_was_measured() -> None:
    floor = noise_floor([0.5, 0.53, 0.49])
    assert floor.value == pytest.approx(0.04)
    assert gate(0.02, floor) == pytest.approx(0.04)
    once = noise_floor([0.5])
    assert once.reason == "needs two base evaluations at least, got 1"
    assert gate(0.02, once) == 0.02


def test_one_seed_has_no_spread() -> None:
    assert over_seeds([0.5]).sd is None
    three = over_seeds([0.4, 0.5, 0.6])
    assert three.n == 3
    assert [three.mean, three.sd] == pytest.approx([0.5, 0.1])


def test_examples_of_one_source_widen_the_interval() -> None:
    before, after = [1.0] * 12, [1.0] * 6 + [0.0] * 6
    plain = un.paired_difference(before, after)
    grouped = un.paired_difference(before, after, clusters=[i // 3 for i in range(12)])
    assert plain.se is not None
    assert grouped.se is not None
    assert grouped.se > 1.5 * plain.se
    assert grouped.smallest_detectable == pytest.approx(2.8 * grouped.se)
    assert grouped.p_value is None
    assert plain.p_value is not None


def test_the_clustered_error_is_that_of_the_cluster_means_when_clusters_are_equal() -> None:
    generator = random.Random(0)
    values = [generator.random() for _ in range(20)]
    means = [sum(values[i : i + 4]) / 4 for i in range(0, 20, 4)]
    clustered = un.clustered_se(values, [i // 4 for i in range(20)])
    assert clustered == pytest.approx(stats.sem(means))


def test_one_cluster_has_no_interval() -> None:
    one = un.paired_difference([1.0, 0.0], [0.0, 0.0], clusters=["s", "s"])
    assert (one.se, one.reason) == (None, "one cluster has no spread")
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
