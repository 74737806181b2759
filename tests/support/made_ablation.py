"""Run records of two arms and more, made up, for statistics and claims that need no model.

Two tasks, `first` and `second`, with twenty examples each. A score of .3 is six examples right.
"""

import random
from collections.abc import Mapping, Sequence

from fastslow.config.ablation import AblationConfig, ClaimsConfig
from fastslow.measure.scores.curves import LearningCurve
from fastslow.measure.scores.matrix import ScoreMatrix
from fastslow.measure.scores.plasticity import Probe
from fastslow.results.ablation.records import Point, RunRecord

TASKS = ("first", "second")
NUM_EXAMPLES = 20


def examples(score: float, seed: int = 0) -> dict[str, float]:
    """That share of the examples right; which ones depends on the seed."""
    order = list(range(NUM_EXAMPLES))
    random.Random(seed).shuffle(order)
    right = set(order[: round(score * NUM_EXAMPLES)])
    return {f"e{i:02d}": float(i in right) for i in range(NUM_EXAMPLES)}


def record(
    arm: str,
    seed: int,
    rows: Sequence[Sequence[float]],
    *,
    curves: Sequence[Sequence[tuple[int, int, float]]] = (),
    kl: Mapping[tuple[int, str], float] | None = None,
    gains: tuple[float, float] | None = None,
    stages: Sequence[str] = TASKS,
    order: str | None = None,
) -> RunRecord:
    """A run whose cells have these scores, and curves these points of slow, total and score.

    Without curves of its own a stage has a point before it and one after 20 slow rollouts.
    """
    ends = [(TASKS.index(task), row) for row, task in enumerate(stages, start=1)]
    curves = curves or [
        [(0, 0, rows[row - 1][column]), (20, 20, rows[row][column])] for column, row in ends
    ]
    cells = {
        (row, task): examples(score, seed)
        for row, scores in enumerate(rows)
        for task, score in zip(TASKS, scores, strict=True)
    }
    return RunRecord(
        arm=arm,
        seed=seed,
        order=order,
        config_hash="0",
        matrix=ScoreMatrix(TASKS, tuple(stages), tuple(map(tuple, rows))),
        noise_floor=0.0,
        cells=cells,
        curves=tuple(
            tuple(Point(slow, total, examples(score, seed)) for slow, total, score in curve)
            for curve in curves
        ),
        rollouts={"fast": 10, "slow": 20},
        kl=kl or {},
        probe=probe(gains, seed) if gains else None,
    )


def probe(gains: tuple[float, float], seed: int) -> Probe:
    """From a start of 0, these gains of the tuned weights and of the base."""
    tuned, base = (
        LearningCurve(
            "steps",
            (0, 5),
            tuple(tuple(examples(score, seed).values()) for score in (0.0, gain)),
        )
        for gain in gains
    )
    return Probe((tuned,), (base,), "merge")


def both_and_slow(seeds: Sequence[int] = (0, 1, 2)) -> list[RunRecord]:
    """An arm that does all the paper claims, and the slow channel alone."""
    records = []
    for seed in seeds:
        wobble = 0.05 * (seed % 2)
        records.append(
            record(
                "fst",
                seed,
                [(0.0, 0.0), (0.8, 0.0), (0.75, 0.7 + wobble)],
                curves=[
                    [(0, 0, 0.0), (10, 20, 0.4), (20, 40, 0.8)],
                    [(0, 0, 0.0), (10, 20, 0.3), (20, 40, 0.7 + wobble)],
                ],
                kl={(1, "first"): 0.02, (2, "first"): 0.03, (2, "second"): 0.02 + wobble / 10},
                gains=(0.5, 0.5),
            )
        )
        records.append(
            record(
                "slow-only",
                seed,
                [(0.0, 0.0), (0.2, 0.0), (0.2, 0.1)],
                curves=[
                    [(0, 0, 0.0), (20, 20, 0.1), (40, 40, 0.2)],
                    [(0, 0, 0.0), (20, 20, 0.0), (40, 40, 0.1)],
                ],
                kl={(1, "first"): 0.1, (2, "first"): 0.1, (2, "second"): 0.2},
                gains=(0.1, 0.5),
            )
        )
    return records


def config(**changes: object) -> AblationConfig:
    """Arms `fst` and `slow-only`, which the claims are about."""
    settings = {
        "name": "made",
        "base": "base.yaml",
        "arms": {"fst": {}, "slow-only": {"fast": None}},
        "claims": ClaimsConfig(fast_slow="fst", slow_only="slow-only"),
    }
    return AblationConfig.model_validate(settings | changes)
