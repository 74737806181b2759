"""Planted signals on mazes, whose difficulty and familiarity are known: what each of them earns."""

from itertools import islice

import numpy as np
import pytest

from fastslow.measure.scores.signal_draws import Design, ProblemRow
from fastslow.measure.scores.validity import SignalValidity, judge_signals
from fastslow.measure.stats.intervals import Interval
from tests.support.mazes import maze_module

PLANTED = {"difficulty": (1, 0), "unfamiliarity": (0, 1), "both": (1, 1)}
"""Weights a and b of s = a z(difficulty) + b z(unfamiliarity) + noise."""


@pytest.fixture(scope="module")
def signals() -> dict[str, SignalValidity]:
    """Verdicts on the planted signals, each as the primary one against a baseline of noise."""
    maze_list = list(islice(maze_module.mazes(0, (3, 4, 5), ("wilson", "pillars")), 400))
    generator = np.random.default_rng(1)
    difficulty = np.array([maze.expansions for maze in maze_list], dtype=float)
    unfamiliarity = np.array([maze.family == "pillars" for maze in maze_list], dtype=float)
    z = [(v - v.mean()) / v.std() for v in (difficulty, unfamiliarity)]
    wrong = z[0] + generator.normal(size=400) / 2 > 0
    values = {n: a * z[0] + b * z[1] + generator.normal(size=400) for n, (a, b) in PLANTED.items()}
    values["noise"] = generator.normal(size=400)
    rows = [
        ProblemRow(
            maze.text,
            "maze",
            difficulty[i],
            bool(wrong[i]),
            {name: float(column[i]) for name, column in values.items()},
            {"family": unfamiliarity[i]},
            cluster=str(i // 2),  # twins are equally hard
        )
        for i, maze in enumerate(maze_list)
    ]
    return {
        name: judge_signals(rows, Design(name, ("noise",)))[0].signals[name] for name in PLANTED
    }


def interval(signal: SignalValidity, figure: str) -> Interval:
    limits = signal.figures[figure].interval
    assert limits is not None
    return limits


def test_pure_familiarity_is_refused_and_called_by_its_name(
    signals: dict[str, SignalValidity],
) -> None:
    signal = signals["unfamiliarity"]
    assert (signal.earned, signal.follows) == (False, "follows unfamiliarity")
    assert signal.reason.startswith("not earned: AUROC ")
    assert signal.reason.endswith("; follows unfamiliarity")
    assert interval(signal, "partial").low < 0 < interval(signal, "partial").high


def test_pure_difficulty_is_earned(signals: dict[str, SignalValidity]) -> None:
    signal = signals["difficulty"]
    assert (signal.earned, signal.follows) == (True, "")
    assert interval(signal, "unfamiliarity").low < 0 < interval(signal, "unfamiliarity").high


def test_the_partial_separates_what_is_mixed(signals: dict[str, SignalValidity]) -> None:
    mixed, pure = signals["both"], signals["difficulty"]
    assert (mixed.earned, mixed.follows) == (True, "")
    assert interval(mixed, "unfamiliarity").low > 0.3
    raw, partial = (mixed.figures[f].metric.value for f in ("spearman", "partial"))
    assert raw is not None
    assert partial is not None
    assert partial > raw + 0.1
    assert partial == pytest.approx(pure.figures["partial"].metric.value, abs=0.12)
