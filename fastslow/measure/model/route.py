"""The measure of a route: what sending the hardest questions to a stronger arm by a signal scores.

An arm is a prompt with weights. The signal is read under the cheap arm; see `scores.route`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import fmean

from fastslow.core.prompts import PromptProgram
from fastslow.core.types import ArmName, Example, Metric
from fastslow.measure.base import Measure, Measured, Snapshot
from fastslow.measure.scores.route import Answers, mixture, shares_sent
from fastslow.measure.scores.routing_curve import FORMULA, Arm, routing_curve
from fastslow.measure.stats.intervals import Interval, cluster_labels, score_interval
from fastslow.policy.policy import seed_program
from fastslow.policy.signals import Reading, Signal
from fastslow.task.definition import Task

ARMS: Mapping[ArmName, str] = {
    "seed": "seed prompt, present weights",
    "live": "deployed prompt, present weights",
    "base": "deployed prompt, base weights",
}
"""What each arm is, in words."""


@dataclass(frozen=True)
class Route:
    """Which questions go to a stronger arm."""

    name: str
    """Of the signal that chooses."""
    signal: Signal
    """Read under the cheap arm."""
    cheap: ArmName
    strong: ArmName
    share: float
    """Of the questions, the hardest, that go to the strong arm; in (0, 1)."""

    @property
    def formulas(self) -> dict[str, str]:
        """What is scored, by the name of its figures."""
        return {
            "cheap": f"mean of {self.cheap} ({ARMS[self.cheap]})",
            "strong": f"mean of {self.strong} ({ARMS[self.strong]})",
            "chance": f"mean if {self.share:g} of the questions went to {self.strong} at random",
            "routed": f"mean if the hardest {self.share:g} by {self.name} go to {self.strong}",
        }


def route_measure(route: Route) -> Measure:
    """Scores and prompt tokens of both arms and of the route, on the test sample of visited tasks.

    Next to the scores stands `routing_gain` of the whole curve; see `scores.routing_curve`.
    """

    def measure(snapshot: Snapshot) -> Iterable[Measured]:
        return [_measured(snapshot, snapshot.tasks[name], route) for name in snapshot.visited]

    return measure


def _measured(snapshot: Snapshot, task: Task, route: Route) -> Measured:
    """The figures of one task; without those of the route where there is none."""
    examples = snapshot.test_sample(task)
    readings = _read(snapshot, task, route.cheap, examples)
    ways = {
        "cheap": Answers(
            _scores(snapshot, task, route.cheap), [float(r.prompt_tokens) for r in readings]
        ),
        "strong": Answers(
            _scores(snapshot, task, route.strong), _tokens(snapshot, task, route.strong)
        ),
    }
    numbers = {"examples": float(len(examples))}
    values = [route.signal(_without_gold(reading)) for reading in readings]
    defined = [value for value in values if value is not None and math.isfinite(value)]
    clusters = {e.id: e.cluster for e in examples if e.cluster is not None}
    labels = cluster_labels([example.id for example in examples], clusters)
    gain = Metric("routing_gain", None, None, FORMULA)
    if missing := len(values) - len(defined):
        reason = f"{route.name} has no number for {missing} of {len(values)} questions"
        gain = replace(gain, reason=reason)
    elif _are_alike(snapshot, task, {route.cheap, route.strong}):
        gain = replace(gain, reason="both arms are one: the seed prompt is the deployed one")
    else:
        sent = shares_sent(defined, route.share)
        numbers["sent"] = fmean(sent)
        at_random = [numbers["sent"]] * len(sent)
        ways["chance"] = mixture(ways["cheap"], ways["strong"], at_random, are_read=False)
        ways["routed"] = mixture(ways["cheap"], ways["strong"], sent, are_read=True)
        cheap, strong = (
            Arm(name, tuple(ways[name].scores), fmean(ways[name].tokens))
            for name in ("cheap", "strong")
        )
        signals = {route.name: defined}
        curve = routing_curve(task.name, cheap, strong, signals, labels, snapshot.seed)
        gain = curve.gains[route.name].metric
        numbers |= _ends("routing_gain", curve.gains[route.name].interval)
    for name, way in ways.items():
        numbers |= _ends(f"{name}/score", score_interval(way.scores, labels))
    return Measured(task.name, (*_figures(ways, route.formulas, gain.reason), gain), numbers)


def _are_alike(snapshot: Snapshot, task: Task, arms: set[ArmName]) -> bool:
    """Whether the arms are one: another name of the same prompt, with the same weights."""
    live = snapshot.policy.live_program(task).text_hash
    return arms == {"seed", "live"} and seed_program(task).text_hash == live


def _ends(name: str, interval: Interval | None) -> dict[str, float]:
    """Of an interval, as numbers of a record; nothing where there is none."""
    return {f"{name}/low": interval.low, f"{name}/high": interval.high} if interval else {}


def _tokens(snapshot: Snapshot, task: Task, arm: ArmName) -> list[float]:
    """Prompt tokens of every test example under an arm, in order."""
    prompt_ids, program = snapshot.policy.renderer.prompt_ids, _prompt(snapshot, task, arm)
    examples = snapshot.test_sample(task)
    return [float(len(prompt_ids(program, example.question))) for example in examples]


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
