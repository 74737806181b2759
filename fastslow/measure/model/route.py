"""The measure of a route: what sending the hardest questions to a stronger arm by a signal scores.

An arm is a prompt with weights. The signal is read under the cheap arm; see `scores.route`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from statistics import fmean

from fastslow.core.prompts import PromptProgram
from fastslow.core.types import ArmName, Example, Metric
from fastslow.measure.base import Measure, Measured, Snapshot
from fastslow.measure.scores.route import Answers, mixture, shares_sent
from fastslow.measure.stats.intervals import cluster_labels, score_interval
from fastslow.policy.policy import seed_program
from fastslow.policy.signals import Reading, Signal
from fastslow.task.definition import Task

ARMS: Mapping[ArmName, str] = {
    "seed": "seed prompt, present weights",
    "live": "deployed prompt, present weights",
    "base": "deployed prompt, base weights",
}
"""What each arm is, in words."""


def route_measure(
    name: str, signal: Signal, cheap: ArmName, strong: ArmName, share: float
) -> Measure:
    """Scores and prompt tokens of both arms and of the route, on the test sample of visited tasks.

    `name` is the signal's; `share` of the questions, the hardest, go to the strong arm.
    """
    formulas = {
        "cheap": f"mean of {cheap} ({ARMS[cheap]})",
        "strong": f"mean of {strong} ({ARMS[strong]})",
        "chance": f"mean if {share:g} of the questions went to {strong} at random",
        "routed": f"mean if the hardest {share:g} by {name} go to {strong}",
    }

    def measure(snapshot: Snapshot) -> Iterable[Measured]:
        for task in (snapshot.tasks[visited] for visited in snapshot.visited):
            examples = snapshot.test_sample(task)
            readings = _read(snapshot, task, cheap, examples)
            values = [signal(_without_gold(reading)) for reading in readings]
            prompt_ids, program = (
                snapshot.policy.renderer.prompt_ids,
                _prompt(snapshot, task, strong),
            )
            ways = {
                "cheap": Answers(
                    _scores(snapshot, task, cheap), [reading.prompt_tokens for reading in readings]
                ),
                "strong": Answers(
                    _scores(snapshot, task, strong),
                    [len(prompt_ids(program, example.question)) for example in examples],
                ),
            }
            numbers = {"examples": float(len(examples))}
            defined = [value for value in values if value is not None and math.isfinite(value)]
            reason = None
            if missing := len(values) - len(defined):
                reason = f"{name} has no number for {missing} of {len(values)} questions"
            else:
                sent = shares_sent(defined, share)
                numbers["sent"] = fmean(sent)
                at_random = [numbers["sent"]] * len(sent)
                ways["chance"] = mixture(ways["cheap"], ways["strong"], at_random, are_read=False)
                ways["routed"] = mixture(ways["cheap"], ways["strong"], sent, are_read=True)
            figures = tuple(_figures(ways, formulas, reason))
            yield Measured(task.name, figures, numbers | _intervals(ways, examples))

    return measure


def _prompt(snapshot: Snapshot, task: Task, arm: ArmName) -> PromptProgram:
    return seed_program(task) if arm == "seed" else snapshot.policy.live_program(task)


def _scores(snapshot: Snapshot, task: Task, arm: ArmName) -> list[float]:
    """Of every test example, in order."""
    scores = snapshot.arm_scores(task, arm)
    return [scores[example.id] for example in snapshot.test_sample(task)]


def _read(
    snapshot: Snapshot, task: Task, arm: ArmName, examples: Sequence[Example]
) -> list[Reading]:
    """Readings of a task's questions under one arm."""
    policy = snapshot.policy
    with ExitStack() as weights:
        weights.enter_context(policy.adapters.serving(task.name))
        if arm == "base":
            weights.enter_context(policy.as_of("base"))
        return policy.read_prompts(_prompt(snapshot, task, arm), examples)


def _without_gold(reading: Reading) -> Reading:
    """A reading as a router has it, which is not shown the answer."""
    return replace(reading, gold_logprob=math.nan, gold_is_greedy=False)


def _figures(
    ways: Mapping[str, Answers], formulas: Mapping[str, str], reason: str | None
) -> Iterator[Metric]:
    """Score and prompt tokens of every way; `reason` is why there is no route."""
    for name, formula in formulas.items():
        way = ways.get(name)
        score, tokens = (fmean(way.scores), fmean(way.tokens)) if way else (None, None)
        yield Metric(f"{name}/score", score, None if way else reason, formula)
        yield Metric(f"{name}/prompt_tokens", tokens, None if way else reason, formula)


def _intervals(ways: Mapping[str, Answers], examples: Sequence[Example]) -> dict[str, float]:
    """Ends of the intervals of the scores, where there are any."""
    clusters = {e.id: e.cluster for e in examples if e.cluster is not None}
    labels = cluster_labels([example.id for example in examples], clusters)
    numbers: dict[str, float] = {}
    for name, way in ways.items():
        if interval := score_interval(way.scores, labels):
            numbers |= {f"{name}/score/low": interval.low, f"{name}/score/high": interval.high}
    return numbers
