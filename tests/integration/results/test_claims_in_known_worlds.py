"""The claims in worlds whose truth is known: a little of benchmarks/power.py, and its file."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from benchmarks import power
from fastslow.core.seeds import named_random
from fastslow.results.ablation.claims import QUESTIONS, put

EFFICIENCY = next(question for question in QUESTIONS if question.name == "sample_efficiency")
FOUR_TIMES = "4 times as fast"


def answers(design: power.Design, world: power.World, worlds: int = 20) -> Counter[str]:
    """To the claim of sample efficiency, three seeds."""
    counts = Counter[str]()
    for number in range(worlds):
        generator = named_random(0, "test", design.name, world.effect, number)
        arms = [
            [power.run_of(design, world, arm, seed, generator) for seed in range(3)]
            for arm in ("both", "slow")
        ]
        counts[put(EFFICIENCY, *arms).answer] += 1
    return counts


@pytest.mark.parametrize("design", power.DESIGNS, ids=lambda design: design.name)
def test_an_arm_that_is_4_times_as_fast_is_called_so(design: power.Design) -> None:
    world = power.World(FOUR_TIMES, speed=4.0)
    assert answers(design, world)["yes"] >= 14
    steeper = replace(world, tau=0.8)
    assert answers(design, steeper)["yes"] >= 14


@pytest.mark.parametrize("design", power.DESIGNS, ids=lambda design: design.name)
@pytest.mark.parametrize("tau", [0.02, 0.3, 1.0])
def test_an_arm_that_is_as_fast_is_not(design: power.Design, tau: float) -> None:
    assert answers(design, power.World("none", speed=1.0, tau=tau))["yes"] <= 2


def test_the_kept_rates_are_what_the_document_promises() -> None:
    rows = json.loads(power.FILE.read_text())["rows"]
    assert {row["claim"] for row in rows} == {question.name for question in QUESTIONS}
    for row in rows:
        if row["effect"].startswith(("none", "0.9 of the gain", "0.7 of the gain")):
            assert row["yes"] <= 0.05, row
        if row["effect"].startswith(FOUR_TIMES):
            assert row["yes"] >= 0.80, row
    lines = power.power_lines()
    assert sum(FOUR_TIMES in line for line in lines) == sum(
        row["effect"].startswith(FOUR_TIMES) for row in rows
    )
