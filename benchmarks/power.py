"""How often do the claims of an ablation get the right answer? Simulated, in worlds we know.

    python -m benchmarks.power             # a quarter of an hour; writes runs/reference/power.json
    python -m benchmarks.power lower_kl    # this claim again, the others as they are in the file

Learning curves of two arms rise as A (1 - exp(-x / tau)) in x slow rollouts, at the points that the
shipped ablations measure; every run has its own A and tau, every example is right or wrong by
chance. In each world one effect is planted and the claim about it is put to the test, by the code
that answers it for real runs. `python -m benchmarks.results` writes the table.
"""

import argparse
import json
import math
import random
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from benchmarks.keeping import REFERENCE
from fastslow.core.seeds import named_random
from fastslow.measure.scores.curves import LearningCurve
from fastslow.measure.scores.matrix import ScoreMatrix
from fastslow.measure.scores.plasticity import Probe
from fastslow.records.cells import ExampleScores
from fastslow.results.ablation.claims import QUESTIONS, Question, put
from fastslow.results.ablation.records import Point, RunRecord

Cells: TypeAlias = dict[tuple[int, str], ExampleScores]
FILE = REFERENCE / "power.json"
WORLDS = 400
"""Ablations simulated of each kind: a rate of 5 % is known within 2 points."""
PLASTICITY_WORLDS = 200
"""Of those about plasticity, whose intervals are drawn: within 3 points."""
SEEDS = (3, 5)
TASKS = ("first", "second", "third")
ASYMPTOTE, PROBE_GAIN, PROBE_EXAMPLES = 0.8, 0.5, 40
RUN_SCORE, RUN_SPEED, RUN_KL, CELL_KL, RUN_GAIN = 0.03, 0.2, 0.3, 0.4, 0.05
"""Standard deviations between runs: of A, of ln tau, of ln KL by run and by cell, of the probe's
gain. Of the size seen on the kept ablations."""


@dataclass(frozen=True)
class Design:
    """The points and examples of a shipped ablation."""

    name: str
    both: tuple[int, ...]
    """Slow rollouts at the points of the arm with both channels."""
    slow: tuple[int, ...]
    examples: int
    """Test examples of a task."""
    curve_examples: int
    """Of those, scored within a stage."""


DESIGNS = (
    Design("channels-demo", (0, 160, 320), (0, 352, 704), 64, 32),
    Design("channels-text", (0, 320, 640, 960), (0, 512, 1024, 1536), 64, 64),
    Design("equal points", (0, 352, 704), (0, 352, 704), 64, 32),
)
NUM_DESIGNS = {"sample_efficiency": 3, "plasticity": 1}
"""By claim: only one is about the points, and a probe is the same in all; two of the others."""


@dataclass(frozen=True)
class World:
    """What is true of the arm with both channels; as it stands, nothing sets it apart."""

    effect: str
    speed: float | None = None
    """Times as fast as slow-only; None: as fast as lets both end alike, whatever their rollouts."""
    lift: float = 0.0
    """Added to its score at the end."""
    kl: float = 1.0
    """Times slow-only's KL."""
    share: float = 0.9
    """Of the base's gain on the probe that its weights keep."""
    tau: float = 0.5
    """A share of the rollouts of a stage."""


WORLDS_OF = {
    "sample_efficiency": (
        World("none", speed=1.0),
        World("none, both at their best before the first point", speed=1.0, tau=0.02),
        World("twice as fast", speed=2.0),
        World("4 times as fast", speed=4.0),
        World("4 times as fast, far from the best score", speed=4.0, tau=1.0),
    ),
    "higher_score": (
        World("none"),
        *(World(f"+{lift:.2f}", lift=lift) for lift in (0.05, 0.10, 0.15)),
    ),
    "lower_kl": (
        World("none"),
        *(World(f"{kl:g} of the KL", kl=kl) for kl in (0.5, 0.25)),
    ),
    "plasticity": (
        World("0.9 of the gain kept, the boundary", share=0.9),
        World("0.7 of the gain kept", share=0.7),
        *(World(f"{share:g} of the gain kept", share=share) for share in (1.0, 1.2)),
    ),
    "continued_acquisition": (
        World("none"),
        *(World(f"+{lift:.2f}", lift=lift) for lift in (0.05, 0.10, 0.15)),
    ),
}
"""By claim, what is planted; the worlds with no effect come first."""


def simulate(claims: Collection[str]) -> Iterator[dict[str, object]]:
    """One row for every design, number of seeds and world of these claims."""
    for question in (question for question in QUESTIONS if question.name in claims):
        for design in DESIGNS[: NUM_DESIGNS.get(question.name, 2)]:
            for num_seeds in SEEDS:
                for world in WORLDS_OF[question.name]:
                    yield _row(question, design, num_seeds, world)


def _row(question: Question, design: Design, num_seeds: int, world: World) -> dict[str, object]:
    answers, powers = Counter[str](), list[float]()
    name = (question.name, design.name, num_seeds, world.effect)
    worlds = PLASTICITY_WORLDS if question.name == "plasticity" else WORLDS
    for number in range(worlds):
        generator = named_random(0, "power", *name, number)
        arms = [
            [run_of(design, world, arm, seed, generator) for seed in range(num_seeds)]
            for arm in ("both", "slow")
        ]
        claim = put(question, *arms)
        answers[claim.answer] += 1
        if claim.power is not None:
            powers.append(claim.power)
    return {
        "claim": question.name,
        "design": design.name,
        "seeds": num_seeds,
        "effect": world.effect,
        "worlds": worlds,
        "yes": answers["yes"] / worlds,
        "no": answers["no"] / worlds,
        "stated_power": round(fmean(powers), 3) if powers else None,
    }


def run_of(
    design: Design, world: World, arm: str, seed: int, generator: random.Random
) -> RunRecord:
    """One finished run of an arm."""
    counts, is_both = (design.both, True) if arm == "both" else (design.slow, False)
    end = 1 - math.exp(-1 / world.tau)
    curves, cells = [], Cells()
    for stage, task in enumerate(TASKS):
        tau = world.tau * counts[-1] * math.exp(generator.gauss(0, RUN_SPEED))
        if is_both and world.speed is not None:
            tau *= design.slow[-1] / counts[-1] / world.speed
        top = ASYMPTOTE + (world.lift / end if is_both else 0) + generator.gauss(0, RUN_SCORE)
        points = []
        for count in counts:
            size = design.examples if count in (0, counts[-1]) else design.curve_examples
            score = min(1.0, top) * (1 - math.exp(-count / tau))
            points.append(Point(count, count, _graded(score, size, generator)))
        curves.append(tuple(points))
        cells[0, task] = points[0].scores
        for row in {stage + 1, len(TASKS)}:
            cells[row, task] = points[-1].scores
    return RunRecord(
        arm=arm,
        seed=seed,
        order=None,
        config_hash="0",
        matrix=_matrix(cells),
        noise_floor=0.0,
        cells=cells,
        curves=tuple(curves),
        rollouts={"fast": 0, "slow": counts[-1] * len(TASKS)},
        kl=_kl(world.kl if arm == "both" else 1.0, cells, generator),
        probe=_probe(world.share, generator),
    )


def _graded(score: float, size: int, generator: random.Random) -> dict[str, float]:
    """Examples that are each right with this probability."""
    return {f"e{i:02d}": float(generator.random() < score) for i in range(size)}


def _matrix(cells: Cells) -> ScoreMatrix:
    rows = range(len(TASKS) + 1)
    scores = [
        tuple(fmean(cells[row, task].values()) if (row, task) in cells else None for task in TASKS)
        for row in rows
    ]
    return ScoreMatrix(TASKS, TASKS, tuple(scores))


def _kl(times: float, cells: Cells, generator: random.Random) -> dict[tuple[int, str], float]:
    """KL to the base of every trained cell, nats per token."""
    of_run = generator.gauss(0, RUN_KL)
    return {
        cell: 0.1 * times * math.exp(of_run + generator.gauss(0, CELL_KL))
        for cell in sorted(cells)
        if cell[0]
    }


def _probe(share: float, generator: random.Random) -> Probe:
    """A fresh run on a new task from the tuned weights, and one from the base."""
    curves = []
    for gain in (share * PROBE_GAIN, PROBE_GAIN):
        score = min(1.0, max(0.0, gain + generator.gauss(0, RUN_GAIN)))
        scores = [tuple(_graded(s, PROBE_EXAMPLES, generator).values()) for s in (0.0, score)]
        curves.append(LearningCurve("steps", (0, 4), tuple(scores)))
    return Probe((curves[0],), (curves[1],), "merge")


def power_lines() -> list[str]:
    """The table of the document, from the file that was kept."""
    if not FILE.is_file():
        return []
    lines = [
        "## How often do the claims of an ablation get the right answer?",
        "",
        "Simulated ablations whose truth is known, put to the test by the code that answers for",
        "real ones; made by `python -m benchmarks.power`.",
        "Where there is no effect, yes is to be at most 5 %. Stated power: the mean of what the",
        "claims themselves say next to “not decidable”, for the goal that they name.",
        "",
        "| claim | design | seeds | true effect | ablations | yes | no | stated power |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in json.loads(FILE.read_text())["rows"]:
        claim = row["claim"].replace("_", " ")
        stated = "-" if row["stated_power"] is None else f"{row['stated_power']:.2f}"
        lines.append(
            f"| {claim} | {row['design']} | {row['seeds']} | {row['effect']} "
            f"| {row['worlds']} | {row['yes']:.1%} | {row['no']:.1%} | {stated} |"
        )
    return [*lines, ""]


def main() -> None:
    """Simulate the claims named, or all, and write the file."""
    names = [question.name for question in QUESTIONS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help=f"one of {', '.join(names)}")
    claims = parser.parse_args().claims or names
    if unknown := set(claims) - set(names):
        parser.error(f"no such claim: {', '.join(sorted(unknown))}. Known: {', '.join(names)}.")
    kept = json.loads(FILE.read_text())["rows"] if FILE.is_file() else []
    rows = [row for row in kept if row["claim"] not in claims] + list(simulate(claims))
    rows.sort(key=lambda row: names.index(row["claim"]))
    FILE.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
