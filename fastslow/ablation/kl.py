"""How far two runs moved from the base to reach the same score."""

from fastslow.ablation.records import RunRecord
from fastslow.measure.figures import Undefined


def kl_at_equal_score(one: RunRecord, other: RunRecord, task: str) -> tuple[float, float]:
    """`kl_fst` of two runs at the highest score on `task` that both reached.

    Raises:
        Undefined: One never rose above the base, or KL was not measured or is 0.
    """
    points = [kl_points(run, task) for run in (one, other)]
    if not all(points):
        raise Undefined(f"KL was not measured on {task}")
    base = max(_score(run, 0, task) for run in (one, other))
    floor = max(one.noise_floor, other.noise_floor)
    best = [max(score for score, _ in found) for found in points]
    for run, top in zip((one, other), best, strict=True):
        if top <= base + floor:
            raise Undefined(f"{run.arm} never rose above the base on {task}")
    first, second = (min(kl for s, kl in found if s >= min(best)) for found in points)
    if first <= 0 or second <= 0:
        raise Undefined(f"a KL on {task} is 0")
    return first, second


def kl_points(run: RunRecord, task: str) -> list[tuple[float, float]]:
    """Score and `kl_fst` of every row from the task's stage on, where both were measured."""
    first = run.matrix.stages.index(task) + 1
    column = run.matrix.tasks.index(task)
    rows = [
        (run.matrix.rows[row][column], run.kl.get((row, task)))
        for row in range(first, run.matrix.num_stages + 1)
    ]
    return [(score, kl) for score, kl in rows if score is not None and kl is not None]


def _score(run: RunRecord, row: int, task: str) -> float:
    score = run.matrix.rows[row][run.matrix.tasks.index(task)]
    if score is None:
        raise Undefined(f"{task} was not scored in row {row}")
    return score
