"""The measure of a route: what sending the hardest questions to a stronger arm by a signal scores.

An arm is a prompt with weights. The signal is read under the cheap arm; see `scores.route`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from statistics import fmean

from fastslow.core.keys import OURS, Model, key
from fastslow.core.prompts import PromptProgram
from fastslow.core.types import ArmName, Metric
from fastslow.measure.base import Measure, Measured, Snapshot
from fastslow.measure.scores.route import Answers, mixture, shares_sent
from fastslow.measure.stats.intervals import Interval, cluster_labels, score_interval
from fastslow.policy.signals import ActingSignal, Reading, signal_of
from fastslow.task.definition import Task

ARMS: Mapping[ArmName, str] = {
    "seed": "seed prompt, present weights",
    "live": "deployed prompt, present weights",
    "base": "deployed prompt, base weights",
}
"""What each arm is, in words."""
GAIN = "what the order by the signal gains, as a share of what the best order would"


class RouteConfig(Model):
    """Two arms, and which test questions go to the stronger one."""

    signal: ActingSignal = key(..., "section", "required")
    """The signal that chooses, read under the cheap arm; not one that reads the gold answer."""
    cheap: ArmName = key("seed", "name", "ours: the shortest prompt")
    """The arm that every question is read under, and most are answered by: the seed prompt with
    the present weights, the deployed prompt with them (`live`), or with those of the base."""
    strong: ArmName = key("live", "name", OURS)
    """The arm that answers the hardest questions."""
    share: float = key(0.5, "share", OURS, gt=0, lt=1)
    """Share of the questions that go to the strong arm, the hardest by the signal."""


def route_measure(route: RouteConfig) -> Measure:
    """Scores and prompt tokens of both arms and of the route, on the test sample of visited tasks.

    Next to the scores stands `routing_gain` of the whole curve; see `scores.routing_curve`.
    """
    name, signal = signal_of(route.signal)
    formulas = {
        "cheap": f"mean of {route.cheap} ({ARMS[route.cheap]})",
        "strong": f"mean of {route.strong} ({ARMS[route.strong]})",
        "chance": f"mean if {route.share:g} of the questions went to {route.strong} at random",
        "routed": f"mean if the hardest {route.share:g} by {name} go to {route.strong}",
    }

    def measure(snapshot: Snapshot) -> Iterable[Measured]:
        for task in (snapshot.tasks[visited] for visited in snapshot.visited):
            ways = {
                "cheap": _answers(snapshot, task, route.cheap),
                "strong": _answers(snapshot, task, route.strong),
            }
            values = [signal(reading) for reading in _read(snapshot, task, route.cheap)]
            defined = [value for value in values if value is not None and math.isfinite(value)]
            numbers = {"examples": float(len(values))}
            reason: str | None = None
            gain: Metric | None = None
            if missing := len(values) - len(defined):
                reason = f"{name} has no number for {missing} of {len(values)} questions"
            elif _are_one(snapshot, task, {route.cheap, route.strong}):
                reason = "both arms are one: the seed prompt is the deployed one"
            else:
                sent = shares_sent(defined, route.share)
                numbers["sent"] = fmean(sent)
                gain, ends = _gain(snapshot, task, ways, defined)
                numbers |= ends
                at_random = [numbers["sent"]] * len(sent)
                ways["chance"] = mixture(ways["cheap"], ways["strong"], at_random, are_read=False)
                ways["routed"] = mixture(ways["cheap"], ways["strong"], sent, are_read=True)
            for way, answers in ways.items():
                interval = score_interval(answers.scores, _labels(snapshot, task))
                numbers |= _ends(f"{way}/score", interval)
            gain = gain or Metric("routing_gain", None, reason, GAIN)
            yield Measured(task.name, (*_figures(ways, formulas, reason), gain), numbers)

    return measure


def _prompt(snapshot: Snapshot, task: Task, arm: ArmName) -> PromptProgram:
    from fastslow.policy.policy import seed_program

    return seed_program(task) if arm == "seed" else snapshot.policy.live_program(task)


def _are_one(snapshot: Snapshot, task: Task, arms: set[ArmName]) -> bool:
    """Whether the arms are two names of one prompt, with the same weights."""
    hashes = {_prompt(snapshot, task, arm).text_hash for arm in arms}
    return "base" not in arms and len(hashes) == 1


def _answers(snapshot: Snapshot, task: Task, arm: ArmName) -> Answers:
    """Score and prompt tokens of every test example under an arm, in order."""
    scores, prompt = snapshot.arm_scores(task, arm), _prompt(snapshot, task, arm)
    prompt_ids, examples = snapshot.policy.renderer.prompt_ids, snapshot.test_sample(task)
    tokens = [len(prompt_ids(prompt, example.question)) for example in examples]
    return Answers([scores[example.id] for example in examples], tokens)


def _read(snapshot: Snapshot, task: Task, arm: ArmName) -> list[Reading]:
    """Readings of the questions under an arm, as a router has them: it is not shown the answers."""
    policy = snapshot.policy
    with ExitStack() as weights:
        weights.enter_context(policy.adapters.serving(task.name))
        if arm == "base":
            weights.enter_context(policy.as_of("base"))
        prompt = _prompt(snapshot, task, arm)
        readings = policy.read_prompts(prompt, snapshot.test_sample(task))
    return [replace(r, gold_logprob=math.nan, gold_is_greedy=False) for r in readings]


def _gain(
    snapshot: Snapshot, task: Task, ways: Mapping[str, Answers], values: Sequence[float]
) -> tuple[Metric, dict[str, float]]:
    """`routing_gain` between the two arms, and the ends of its interval."""
    from fastslow.measure.scores.routing_curve import Arm, routing_curve  # numpy

    cheap, strong = (Arm(n, tuple(way.scores), fmean(way.tokens)) for n, way in ways.items())
    signals, labels = {"signal": values}, _labels(snapshot, task)
    curve = routing_curve(task.name, cheap, strong, signals, labels, snapshot.seed)
    estimate = curve.gains["signal"]
    return estimate.metric, _ends("routing_gain", estimate.interval)


def _labels(snapshot: Snapshot, task: Task) -> list[tuple[bool, str]]:
    """The cluster of every test example."""
    examples = snapshot.test_sample(task)
    clusters = {e.id: e.cluster for e in examples if e.cluster is not None}
    return cluster_labels([example.id for example in examples], clusters)


def _ends(name: str, interval: Interval | None) -> dict[str, float]:
    """Of an interval, as numbers of a record; nothing where there is none."""
    return {f"{name}/low": interval.low, f"{name}/high": interval.high} if interval else {}


def _figures(
    ways: Mapping[str, Answers], formulas: Mapping[str, str], reason: str | None
) -> Iterator[Metric]:
    """Score and prompt tokens of every way; `reason` is why there is no route."""
    for name, formula in formulas.items():
        way = ways.get(name)
        score, tokens = (fmean(way.scores), fmean(way.tokens)) if way else (None, None)
        yield Metric(f"{name}/score", score, None if way else reason, formula)
        yield Metric(f"{name}/prompt_tokens", tokens, None if way else reason, formula)
