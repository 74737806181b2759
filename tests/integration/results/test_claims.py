"""The paper's claims on made records: yes, no, and not decidable, each for its reason."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from fastslow.config.ablation import ClaimsConfig
from fastslow.measure.scores.guessing import Guess
from fastslow.results.ablation.claims import Claim, put_to_the_test
from fastslow.results.ablation.figures import FIGURES, FROZEN_TEXT_FIGURES, claim_figures
from fastslow.results.ablation.records import RunRecord
from fastslow.results.ablation.records_file import read_records_file, records_jsonl
from fastslow.results.ablation.result import make_result
from fastslow.results.ablation.rollouts_to_best import CROSSED, MISSED
from fastslow.results.ablation.tables import tables
from tests.support.made_ablation import both_and_slow, config, examples, record


def claims(records: list[RunRecord]) -> dict[str, Claim]:
    return {claim.name: claim for claim in put_to_the_test(records, "fst", "slow-only")}


def swapped(records: list[RunRecord]) -> list[RunRecord]:
    names = {"fst": "slow-only", "slow-only": "fst"}
    return [replace(run, arm=names[run.arm]) for run in records]


def test_an_arm_that_does_what_the_paper_says_gets_five_times_yes() -> None:
    by_name = claims(both_and_slow())
    assert {name: claim.answer for name, claim in by_name.items()} == {
        "sample_efficiency": "yes",
        "higher_score": "yes",
        "lower_kl": "yes",
        "plasticity": "yes",
        "continued_acquisition": "yes",
    }
    assert by_name["sample_efficiency"].effect == pytest.approx(20 / 80)
    assert by_name["sample_efficiency"].numbers["fast + slow rollouts, fst"] == 20 + 20
    assert by_name["sample_efficiency"].high == 10 / 40
    assert by_name["higher_score"].effect == pytest.approx(
        (0.55 + 0.575 + 0.55) / 3 + 0.025, abs=0.02
    )
    assert by_name["plasticity"].numbers == {"fst": 1.0, "slow-only": pytest.approx(0.2)}


def test_the_same_runs_the_other_way_round_get_no() -> None:
    by_name = claims(swapped(both_and_slow()))
    for name in ("higher_score", "lower_kl", "plasticity", "continued_acquisition"):
        assert by_name[name].answer == "no", name


def test_an_arm_that_misses_the_target_is_not_said_to_need_more_than_it_had() -> None:
    claim = claims(swapped(both_and_slow()))["sample_efficiency"]
    assert claim.effect is None
    assert claim.reason == MISSED
    assert claim.answer == "no"  # it spent 40 where 20 were enough
    assert claim.numbers["slow rollouts, fst"] is None


def test_no_seeds_count_is_passed_off_as_significant() -> None:
    for claim in claims(both_and_slow()).values():
        assert claim.test is not None
        assert claim.test.lowest_possible == 0.25
        assert claim.holm is not None
        assert claim.holm >= 0.25


def test_where_slow_only_never_rises_there_is_no_score_to_compare_at() -> None:
    flat = [
        run
        if run.arm == "fst"
        else record(
            "slow-only",
            run.seed,
            [(0.0, 0.0)] * 3,
            curves=[[(0, 0, 0.0), (40, 40, 0.0)]] * 2,
            kl={(1, "first"): 0.1, (2, "second"): 0.1, (2, "first"): 0.1},
        )
        for run in both_and_slow()
    ]
    by_name = claims(flat)
    assert by_name["sample_efficiency"].answer == "not decidable"
    assert "never rose" in str(by_name["sample_efficiency"].reason)
    assert by_name["lower_kl"].effect is None
    assert "slow-only never rose above the base on first" in str(by_name["lower_kl"].reason)
    assert by_name["higher_score"].answer == "yes"


def test_arms_that_are_alike_leave_it_undecided_and_say_what_would_have_been_seen() -> None:
    first = [record("fst", s, [(0.0, 0.0), (0.8, 0.0), (0.8, 0.7)]) for s in range(3)]
    ends = (0.6, 0.85, 0.7)
    others = [
        record("slow-only", s, [(0.0, 0.0), (0.8, 0.0), (0.8, end)]) for s, end in enumerate(ends)
    ]
    claim = claims(first + others)["higher_score"]
    assert claim.answer == "not decidable"
    assert claim.detectable is not None
    assert claim.detectable > 0.05


def test_one_seed_decides_nothing() -> None:
    by_name = claims(both_and_slow((0,)))
    assert {claim.answer for claim in by_name.values()} == {"not decidable"}
    assert by_name["higher_score"].low is not None
    assert "one seed" in str(by_name["higher_score"].reason)


def test_without_a_probe_or_a_run_the_reason_is_given() -> None:
    bare = [replace(run, probe=None) for run in both_and_slow()]
    assert "needs a probe" in str(claims(bare)["plasticity"].reason)
    assert all(claim.answer == "not decidable" and claim.reason for claim in claims([]).values())


def test_orders_of_a_seed_are_no_further_seeds() -> None:
    records = both_and_slow()
    twice = [replace(run, order=order) for run in records for order in ("there", "back")]
    for name, claim in claims(twice).items():
        assert claim.test is not None
        assert claim.test.n == 3, name
    once = claims(records)["plasticity"]
    assert claims(twice)["plasticity"] == once
    of_one_seed = [run for run in twice if run.seed == 0]
    assert "needs a probe of two seeds" in str(claims(of_one_seed)["plasticity"].reason)


def test_a_seed_that_missed_the_target_counts_like_the_others() -> None:
    missed = [
        record(
            "fst",
            run.seed,
            [(0.0, 0.0), (0.1, 0.0), (0.1, 0.0)],
            curves=[[(0, 0, 0.0), (20, 40, 0.1)], [(0, 0, 0.0), (20, 40, 0.0)]],
        )
        if (run.arm, run.seed) == ("fst", 2)
        else run
        for run in both_and_slow()
    ]
    claim = claims(missed)["sample_efficiency"]
    assert claim.test is not None
    assert (claim.test.n, claim.answer) == (3, "not decidable")
    without = claims([run for run in missed if run.seed != 2])["sample_efficiency"]
    assert (without.answer, without.high) == ("yes", 10 / 40)


def racing(both: list[tuple[int, float]], slow: list[tuple[int, float]]) -> Claim:
    """The claim for curves of slow rollouts and score, the same under three seeds but for noise."""
    runs = []
    for seed in range(3):
        for arm, curve in (("fst", both), ("slow-only", slow)):
            points = [(count, count, score + 0.05 * (seed % 2)) for count, score in curve]
            run = record(arm, seed, [(0.0, 0.0)] * 3, curves=[points, points])
            runs.append(run)
    return claims(runs)["sample_efficiency"]


def test_curves_that_cross_decide_nothing() -> None:
    # above at first and below at the end: ratios above 1/3 and below 2/3 would both be ruled out
    slow = [(0, 0.0), (100, 0.4), (200, 0.0), (300, 0.6), (400, 1.0)]
    crossed = racing([(0, 0.0), (100, 1.0), (200, 0.6), (300, 0.4), (400, 0.6)], slow)
    # higher on the whole, and later at the score: 400 rollouts against 300
    late = racing(
        [(0, 0.0), (100, 0.6), (200, 0.6), (300, 0.6), (400, 0.8)],
        [(0, 0.0), (100, 0.1), (200, 0.2), (300, 0.8), (400, 0.8)],
    )
    assert late.effect == pytest.approx(400 / 300)
    for claim in (crossed, late):
        assert (claim.answer, claim.low, claim.high) == ("not decidable", None, None)
        assert claim.reason == CROSSED


def test_a_design_that_cannot_see_the_goal_has_no_power_from_the_other_side() -> None:
    # an arm four times as fast would be at 0.8 where the slow one is at 0.9: below it
    falling = racing([(0, 0.0), (100, 0.5), (200, 0.5)], [(0, 0.0), (100, 0.9), (400, 0.1)])
    assert falling.power is not None
    assert falling.power < 0.05


def test_a_task_without_kl_under_one_seed_is_in_no_seeds_mean() -> None:
    lacking = [
        replace(run, kl={key: kl for key, kl in run.kl.items() if key[1] == "first"})
        if run.seed == 2
        else run
        for run in both_and_slow()
    ]
    claim = claims(lacking)["lower_kl"]
    assert claim.effect == pytest.approx(0.02 / 0.1)  # of the task `first` alone, under every seed
    assert claim.numbers["pairs of runs and tasks"] == 3
    ends = [claim.numbers[f"kl_fst at equal score, {arm}"] for arm in ("fst", "slow-only")]
    assert ends == [pytest.approx(0.02), pytest.approx(0.1)]


def test_limits_of_a_ratio_are_never_shown_as_zero() -> None:
    wide = [
        replace(
            run, kl={key: kl * 50 ** (run.seed * (run.arm == "fst")) for key, kl in run.kl.items()}
        )
        for run in both_and_slow((0, 1))
    ]
    result = make_result(config(), wide, Counter({"fst": 2, "slow-only": 2}))
    claim = next(claim for claim in result.claims if claim.name == "lower_kl")
    assert claim.low is not None
    assert 0 < claim.low < 0.0005
    table = next(table for table in tables(result) if table.header[0] == "claim")
    cell = next(row[2].text for row in table.rows if row[0].text == claim.statement)
    assert f"[{claim.low:.3g}, {claim.high:.3g}]" in cell


def test_a_faster_arm_with_the_same_best_score_needs_fewer_rollouts() -> None:
    claim = racing(
        [(0, 0.0), (40, 0.6), (80, 0.8), (120, 0.9)], [(0, 0.0), (80, 0.3), (160, 0.6), (240, 0.8)]
    )
    assert claim.answer == "yes"
    # at 40, 80 and 120 it is above slow-only at 80, 160 and 240
    assert claim.effect == pytest.approx((80 + 80) / (240 + 240))
    assert claim.high == 0.5
    assert claim.power is not None


def test_arms_at_their_best_before_the_first_point_show_nothing() -> None:
    claim = racing([(0, 0.0), (40, 0.8), (80, 0.8)], [(0, 0.0), (160, 0.8), (320, 0.8)])
    assert claim.answer == "not decidable"
    assert claim.high is None


def test_the_same_curve_at_other_points_is_no_faster() -> None:
    claim = racing([(0, 0.0), (40, 0.2), (80, 0.4)], [(0, 0.0), (100, 0.5), (200, 0.8)])
    assert claim.answer == "not decidable"
    assert (claim.effect, claim.reason) == (None, MISSED)


def test_a_slower_arm_gets_no_without_having_reached_the_target() -> None:
    claim = racing([(0, 0.0), (80, 0.1), (160, 0.2)], [(0, 0.0), (40, 0.5), (80, 0.8)])
    assert (claim.effect, claim.answer) == (None, "no")
    assert claim.low == 160 / 40


def test_where_there_is_nothing_to_compare_the_reason_is_given() -> None:
    without_slow = racing([(0, 0.0), (0, 0.5)], [(0, 0.0), (40, 0.5)])
    assert (without_slow.answer, without_slow.effect) == ("not decidable", 0.0)
    assert without_slow.reason == "no point to compare with"
    # a slow arm without the row before its stage, and one whose points end before the other's
    no_start = racing([(0, 0.0), (40, 0.5), (80, 0.8)], [(30, 0.1), (60, 0.5)])
    assert no_start.answer == "not decidable"
    short = racing([(0, 0.0), (100, 0.5), (200, 0.8)], [(0, 0.0), (40, 0.5)])
    assert (short.answer, short.reason) == ("not decidable", "no point to compare with")
    uneven = [
        run if run.seed else replace(run, curves=(run.curves[0], ())) for run in both_and_slow()
    ]
    assert claims(uneven)["sample_efficiency"].answer == "yes"  # of the task that all seeds have


def test_what_is_not_decidable_says_what_could_have_been_found() -> None:
    alike = [
        record(arm, seed, [(0.0, 0.0), (0.8, 0.0), (0.8, end)])
        for arm, ends in (("fst", (0.7, 0.7, 0.7)), ("slow-only", (0.6, 0.85, 0.7)))
        for seed, end in enumerate(ends)
    ]
    claim = claims(alike)["higher_score"]
    assert claim.power is not None
    assert 0 < claim.power < 0.5
    assert claim.answer_text == f"not decidable (power {claim.power:.2f} for +0.05)"
    assert claims(both_and_slow())["higher_score"].answer_text == "yes"


def test_the_numbers_of_a_claim_are_those_of_the_runs_it_compares() -> None:
    lacking = [run for run in both_and_slow() if (run.arm, run.seed) != ("slow-only", 1)]
    for name in ("higher_score", "continued_acquisition"):
        claim = claims(lacking)[name]
        fst, slow = claim.numbers["fst"], claim.numbers["slow-only"]
        assert fst is not None
        assert slow is not None
        assert claim.effect == pytest.approx(fst - slow), name


def test_the_claims_are_put_against_an_arm_under_a_frozen_text_too(tmp_path: Path) -> None:
    arms: dict[str, dict[str, object]] = {"fst": {}, "slow-only": {}, "frozen": {}}
    named = ClaimsConfig(fast_slow="fst", slow_only="slow-only", frozen_text="frozen")
    flat = [(0.0, 0.0)] * 3
    runs = [
        *(replace(run, arm="frozen") if run.arm == "slow-only" else run for run in both_and_slow()),
        *(record("slow-only", seed, flat, kl={(2, "first"): 0.1}) for seed in range(3)),
    ]
    result = make_result(config(arms=arms, claims=named), runs, Counter(dict.fromkeys(arms, 3)))
    efficiency, again = result.claims[0], result.frozen_text_claims[0]
    assert efficiency.answer == "not decidable"
    assert "slow-only never rose above its start or chance" in str(efficiency.reason)
    assert again.answer == "yes"
    assert again.numbers["slow rollouts, frozen"]
    assert [table.title for table in tables(result)][1:3] == [
        "Claims of Fast-Slow Training",
        "The same claims against weights under one frozen text: frozen",
    ]
    drawings = {drawing.name: drawing for drawing in claim_figures(result)}
    assert list(drawings) == [*FIGURES, *FROZEN_TEXT_FIGURES]
    assert "yes" in drawings["frozen-text-sample-efficiency"].title
    (tmp_path / "records.jsonl").write_text(records_jsonl(result))
    saved = read_records_file(tmp_path / "records.jsonl")
    assert saved.frozen_text_claims == result.frozen_text_claims


def test_an_arm_is_not_its_own_frozen_text() -> None:
    named = {"fast_slow": "fst", "slow_only": "slow-only", "frozen_text": "fst"}
    with pytest.raises(ValueError, match=r"cannot be compared with itself"):
        config(claims=ClaimsConfig(**named))
    with pytest.raises(ValueError, match=r"no such arm, got 'nobody'"):
        config(claims=ClaimsConfig(**(named | {"frozen_text": "nobody"})))


def with_guesses(records: list[RunRecord], score: float) -> list[RunRecord]:
    """The same runs, whose constant answers are right that often; the uniform guess half of it."""
    constant = examples(score)
    half = {example: value / 2 for example, value in constant.items()}
    chance = Guess("high", constant, half, None, 2, 2)
    return [replace(run, guesses=dict.fromkeys(run.stages, chance)) for run in records]


def test_what_guessing_reaches_is_no_target_of_a_race_and_no_score_to_compare_kl_at() -> None:
    low, high = (claims(with_guesses(both_and_slow(), score)) for score in (0.0, 0.9))
    assert low["sample_efficiency"] == claims(both_and_slow())["sample_efficiency"]
    assert high["sample_efficiency"].answer == "not decidable"
    assert "never rose above its start or chance" in str(high["sample_efficiency"].reason)
    assert low["lower_kl"].answer == "yes"
    assert "fst never rose above chance on first" in str(high["lower_kl"].reason)


def test_an_ablation_shows_chance_and_keeps_it_without_the_text_of_an_answer(
    tmp_path: Path,
) -> None:
    runs = with_guesses(both_and_slow(), 0.6)
    result = make_result(config(), runs, Counter({"fst": 3, "slow-only": 3}))
    arms = next(table for table in tables(result) if table.title.startswith("Arms"))
    rows = [(cells[0].text, cells[2].text) for cells in arms.rows[-2:]]
    assert rows == [("constant answer", "0.60"), ("uniform guess", "0.30")]
    assert any("Grey lines" in drawing.caption for drawing in claim_figures(result))
    (tmp_path / "records.jsonl").write_text(records_jsonl(result))
    assert "high" not in (tmp_path / "records.jsonl").read_text()
    assert read_records_file(tmp_path / "records.jsonl").claims == result.claims
    unknown = make_result(config(), both_and_slow(), Counter({"fst": 3, "slow-only": 3}))
    assert not any("guess" in cells[0].text for table in tables(unknown) for cells in table.rows)
