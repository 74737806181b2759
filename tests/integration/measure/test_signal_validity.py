"""Validity of signals: figures by hand, what is unavailable, and what a planted signal earns."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeAlias

import numpy as np
import pytest
from scipy.stats import spearmanr

from fastslow.measure.scores.signal_draws import RIDGE, Design, ProblemRow
from fastslow.measure.scores.validity import Validity, judge_signals
from fastslow.measure.stats.rank_figures import (
    aurocs,
    centred_ranks,
    correlations,
    partial_correlations,
    ridge_out_of_fold,
)

Numbers: TypeAlias = Sequence[float] | np.ndarray
DESIGN = Design(primary="s", baselines=("free", "first_logprob"))


def rows_of(
    signals: Mapping[str, Numbers],
    wrong: Numbers,
    difficulty: Numbers | None = None,
    task: str = "t",
    controls: Mapping[str, Numbers] | None = None,
    clusters: Sequence[str] | None = None,
    states: Sequence[Sequence[float]] | None = None,
) -> list[ProblemRow]:
    return [
        ProblemRow(
            f"e{i}",
            task,
            None if difficulty is None else float(difficulty[i]),
            bool(wrong[i]),
            {name: float(values[i]) for name, values in signals.items()},
            {name: float(values[i]) for name, values in (controls or {}).items()},
            None if states is None else np.array(states[i]),
            None if clusters is None else clusters[i],
        )
        for i in range(len(wrong))
    ]


def value(validity: Validity, signal: str, figure: str) -> float:
    metric = validity.signals[signal].figures[figure].metric
    assert metric.value is not None, metric.reason
    return metric.value


def noise(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


@pytest.mark.parametrize(
    ("scores", "wrong", "share"),
    [
        ((0.1, 0.4, 0.35, 0.8), (0, 0, 1, 1), 0.75),
        ((0.5, 0.5, 0.5, 0.5), (0, 0, 1, 1), 0.5),
        ((2, 1, 1, 0, 3), (0, 1, 0, 0, 1), (0.5 + 1 + 3) / 6),
    ],
)
def test_the_share_of_ordered_pairs(
    scores: Sequence[float], wrong: Sequence[int], share: float
) -> None:
    ranks = centred_ranks(np.array([scores], dtype=float))
    assert aurocs(ranks, np.array(wrong, dtype=bool))[0] == pytest.approx(share)


def test_rank_correlations_are_those_of_scipy_and_of_regressions_on_ranks() -> None:
    x, y, z = (np.round(noise(seed, 60), 1) for seed in (1, 2, 3))
    x, y = x + z, y + z
    ranks = centred_ranks(np.array([x, y, z, 2 * z + 1]))
    assert correlations(ranks[:1], ranks[1])[0] == pytest.approx(spearmanr(x, y).statistic)
    xy, xz, yz = (spearmanr(*pair).statistic for pair in ((x, y), (x, z), (y, z)))
    textbook = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    # a control twice, and once more on another scale, says no more than once
    for controls in (ranks[2:3], ranks[[2, 2, 3]]):
        partial = partial_correlations(ranks[[0, 2]], ranks[1], controls)
        assert partial[0] == pytest.approx(textbook)
        assert np.isnan(partial[1])  # the control determines it


def test_ridge_tells_what_a_state_holds_and_nothing_of_noise() -> None:
    states = np.random.default_rng(0).normal(size=(120, 8))
    targets = np.column_stack([states[:, 0] - states[:, 3], noise(5, 120)])
    predictions = ridge_out_of_fold(states, targets, range(120), Random(0))
    assert np.corrcoef(predictions[:, 0], targets[:, 0])[0, 1] > 0.99
    assert abs(np.corrcoef(predictions[:, 1], targets[:, 1])[0, 1]) < 0.3


def test_a_fold_holds_whole_clusters() -> None:
    """With one cluster an answer, no fold can look its own answer up: far from perfect."""
    clusters = np.repeat(range(12), 10)
    states = np.eye(12)[clusters]  # the cluster, and nothing else
    targets = noise(1, 12)[clusters][:, None]
    predictions = ridge_out_of_fold(states, targets, clusters.tolist(), Random(0))
    assert np.corrcoef(predictions[:, 0], targets[:, 0])[0, 1] < 0.5
    apart = ridge_out_of_fold(states, targets, range(120), Random(0))
    assert np.corrcoef(apart[:, 0], targets[:, 0])[0, 1] > 0.99


def test_a_signal_that_tells_more_than_what_is_free_is_earned_and_the_sentence_says_so() -> None:
    hard = noise(0, 200)
    signals = {"s": hard + noise(1, 200) / 2, "free": hard + 5 * noise(2, 200)}
    overall, single = judge_signals(rows_of(signals, hard > 0, hard), DESIGN)
    verdict = overall.signals["s"]
    assert overall is single["t"]
    assert (verdict.earned, verdict.role, verdict.p_value) == (True, "primary", None)
    auroc, best = value(overall, "s", "auroc"), value(overall, "s", "opponent")
    assert verdict.reason.startswith(
        f"earned: AUROC {auroc:.2f}, best free baseline {best:.2f} ({verdict.opponents[0]}), "
        f"difference +{auroc - best:.2f} [+"
    )
    free = overall.signals["free"]
    assert (free.role, free.opponents) == ("baseline", ("chance",))
    assert value(overall, "free", "opponent") == 0.5
    assert ", chance 0.50 (it is free itself), difference " in free.reason


def test_beating_baselines_that_are_worse_than_chance_earns_nothing() -> None:
    hard = noise(0, 200)
    signals = {"s": noise(8, 200), "free": -hard, "first_logprob": -hard + noise(1, 200)}
    overall, _ = judge_signals(rows_of(signals, hard > 0), DESIGN)
    assert not overall.signals["s"].earned
    assert overall.signals["s"].opponents == ("chance",)
    assert value(overall, "s", "difference") == pytest.approx(value(overall, "s", "auroc") - 0.5)


def test_the_best_baseline_is_chosen_in_every_draw() -> None:
    """Of many baselines that tell nothing the best looks good: the draws must all pay for it."""
    hard, names = noise(0, 100), [f"free{i}" for i in range(20)]
    signals = {"s": noise(50, 100)} | {name: noise(i + 1, 100) for i, name in enumerate(names)}
    rows = rows_of(signals, hard > 0)
    overall, _ = judge_signals(rows, Design("s", tuple(names)))
    [fixed] = overall.signals["s"].opponents
    single, _ = judge_signals(rows, Design("s", (fixed,)))
    chosen, paid = (v.signals["s"].figures["difference"] for v in (single, overall))
    assert chosen.metric == paid.metric
    assert chosen.interval is not None
    assert paid.interval is not None
    assert paid.interval.high < chosen.interval.high - 0.02


def test_a_secondary_signal_pays_for_its_family() -> None:
    hard = noise(0, 120)
    good = hard + 1.8 * noise(4, 120)
    base = {"s": noise(40, 120), "free": noise(41, 120)}
    alone, _ = judge_signals(rows_of(base | {"good": good}, hard > 0), DESIGN)
    many = {f"n{i}": noise(60 + i, 120) for i in range(60)}
    crowded, _ = judge_signals(rows_of(base | {"good": good} | many, hard > 0), DESIGN)
    first, last = alone.signals["good"], crowded.signals["good"]
    assert first.figures["auroc"].metric == last.figures["auroc"].metric
    assert (first.earned, last.earned) == (True, False)
    assert last.p_value is not None
    assert last.p_value > 0.05
    assert f"p {last.p_value:.3f} (Holm)" in last.reason


def test_the_label_itself_is_never_earned() -> None:
    hard = noise(0, 100)
    signals = {"gold_logprob": hard, "s": noise(1, 100), "free": noise(2, 100)}
    overall, _ = judge_signals(rows_of(signals, hard > 0, hard), DESIGN)
    assert value(overall, "gold_logprob", "auroc") == 1
    assert not overall.signals["gold_logprob"].earned
    assert overall.signals["gold_logprob"].reason.startswith("not earned: it needs the gold answer")


def test_what_has_no_figure_has_a_reason() -> None:
    hard = noise(0, 40)
    signals = {"s": np.ones(40), "free": noise(1, 40)}
    constant, _ = judge_signals(rows_of(signals, hard > 0, hard), DESIGN)
    assert constant.signals["s"].figures["auroc"].metric.value is None
    assert (
        constant.signals["s"].reason == "not earned: unavailable, it is the same on every problem"
    )
    assert constant.signals["free"].figures["partial"].metric.reason == (
        "no control of familiarity is known and varies"
    )
    right, _ = judge_signals(rows_of({"s": hard}, hard > 99, np.zeros(40)), DESIGN)
    assert right.signals["s"].reason == "not earned: unavailable, every answer is right"
    assert right.signals["s"].figures["spearman"].metric.reason == (
        "every problem is as difficult as the others"
    )
    control = {"length": np.arange(40)}
    same, _ = judge_signals(rows_of({"s": np.arange(40)}, hard > 0, hard, controls=control), DESIGN)
    assert same.signals["s"].figures["partial"].metric.reason == "the controls determine it"
    rows = rows_of({"s": hard}, hard > 0)
    rows[3] = ProblemRow("e3", "t", None, True, {"s": None}, {"length": 1.0})
    partly, _ = judge_signals(rows, DESIGN)
    assert "it is not defined on 1 of 40 problems" in partly.signals["s"].reason
    assert partly.notes == ("length on t: it is not defined on 39 of 40 problems",)


def test_one_wrong_answer_gives_no_interval_and_earns_nothing() -> None:
    hard = np.arange(30.0)
    overall, _ = judge_signals(rows_of({"s": hard, "free": -hard}, hard > 28), DESIGN)
    difference = overall.signals["s"].figures["difference"]
    assert difference.metric.value == 0.5
    assert difference.interval is None
    assert "bootstrap draws" in (difference.interval_reason or "")
    assert not overall.signals["s"].earned


def test_over_tasks_figures_are_means_of_those_within() -> None:
    """Tasks of unlike level: mixed, the signal would tell the tasks apart and nothing else."""
    first, second = noise(0, 60), noise(1, 60)
    rows = [
        *rows_of({"s": noise(2, 60), "free": noise(3, 60)}, first > 1, first, "easy"),
        *rows_of({"s": 9 + noise(4, 60), "free": noise(5, 60)}, second > -1, second + 9, "hard"),
    ]
    overall, single = judge_signals(rows, DESIGN)
    for figure in ("auroc", "spearman", "difference"):
        within = [value(single[task], "s", figure) for task in ("easy", "hard")]
        assert value(overall, "s", figure) == pytest.approx(np.mean(within))
    assert value(overall, "s", "auroc") < 0.65
    assert overall.examples == 120
    rows[60:] = rows_of({"s": np.ones(60), "free": noise(5, 60)}, second > -1, second, "hard")
    partly, _ = judge_signals(rows, DESIGN)
    assert "over 1 of 2 tasks" in partly.signals["s"].reason


def test_clusters_are_drawn_whole() -> None:
    """Twenty copies of each of ten problems say no more than the ten."""
    hard = np.repeat(noise(0, 10), 20)
    signals = {"s": hard + np.repeat(noise(1, 10), 20), "free": np.repeat(noise(2, 10), 20)}
    clusters = [f"c{i}" for i in np.repeat(range(10), 20)]
    widths = []
    for names in (clusters, None):
        overall, _ = judge_signals(rows_of(signals, hard > 0, hard, clusters=names), DESIGN)
        interval = overall.signals["s"].figures["spearman"].interval
        assert interval is not None
        widths.append(interval.high - interval.low)
    assert widths[0] > 2 * widths[1]


def test_the_learned_reference_is_shown_and_never_earned() -> None:
    states = np.random.default_rng(0).normal(size=(150, 6))
    signals = {"s": noise(1, 150), "free": noise(2, 150)}
    rows = rows_of(signals, states[:, 0] > 0, states[:, 0], states=states.tolist())
    overall, _ = judge_signals(rows, DESIGN)
    reference = overall.signals[RIDGE]
    assert value(overall, RIDGE, "auroc") > 0.9
    assert value(overall, RIDGE, "spearman") > 0.9
    assert (reference.role, reference.earned, reference.p_value) == ("reference", False, None)


@pytest.mark.parametrize("num_wrong", [1, 2])
def test_a_task_with_too_few_wrong_answers_does_not_take_the_others_verdict(num_wrong: int) -> None:
    """Its draws mostly have no AUROC; what the other task shows must stay decided."""
    generator = np.random.default_rng(0)
    wrong = np.arange(80) % 2 == 0
    clear, noise = wrong + 0.1 * generator.random(80), generator.random(80)
    few = np.arange(80) < num_wrong
    signals = {"s": clear, "b": noise}
    rows = rows_of(signals, wrong, task="clear")
    rows += rows_of({"s": noise, "b": clear}, few, task="few")
    both, single = judge_signals(rows, Design("s", ("b",)))
    assert both.signals["s"].earned
    assert "over 1 of 2 tasks" in both.signals["s"].reason
    assert both.signals["s"].figures["auroc"] == single["clear"].signals["s"].figures["auroc"]
    assert single["few"].signals["s"].figures["auroc"].interval is None
