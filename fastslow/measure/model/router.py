"""The measure of routers: which adapter and prompt would an input get that does not name its task?

A task's *deployment* is the adapter and the prompt it is served with, and the limit of its
completions. Inputs are the test samples of the tasks visited so far; what they score under their
own deployment is known from the score matrix, and nothing is drawn twice.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import TypeAlias

from fastslow.core.types import Example, Metric, Sampling
from fastslow.measure.base import Measure, Measured, Snapshot
from fastslow.measure.evaluator import fixed_sample
from fastslow.measure.scores.routing import best_routes, nearest_means
from fastslow.measure.stats.intervals import cluster_labels, named_limits, score_interval

Inputs: TypeAlias = Mapping[str, Sequence[Example]]
"""Test examples by task."""
Routes: TypeAlias = Mapping[str, Sequence[str]]
"""By task, the task that each of its inputs is sent to."""

MEAN_QUESTIONS = 32
"""Training questions of a task's mean. Source: ours."""
FORMULAS = {
    "score": "mean score of a task's inputs under adapter and prompt of the task each is sent to",
    "accuracy": "share of a task's inputs that are sent to it",
}
"""Of each figure of a way of routing: `own`, `latest` (all to the latest stage's), or a router."""


def router_measure(routers: Sequence[str]) -> Measure:
    """Accuracy, confusion and scores of each router on every visited task, from two tasks on."""

    def measure(snapshot: Snapshot) -> Iterable[Measured]:
        if len(snapshot.visited) < 2:
            return
        assert snapshot.latest is not None
        inputs = {name: snapshot.test_sample(snapshot.tasks[name]) for name in snapshot.visited}
        routes: dict[str, Routes] = {
            "own": {name: [name] * len(examples) for name, examples in inputs.items()},
            "latest": {name: [snapshot.latest] * len(ex) for name, ex in inputs.items()},
        }
        routes |= {router: ROUTERS[router](snapshot, inputs) for router in dict.fromkeys(routers)}
        scores = _scores(snapshot, inputs, list(routes.values()))
        for name, examples in inputs.items():
            of_task = {way: by_task[name] for way, by_task in routes.items()}
            yield _measured(name, examples, snapshot.visited, of_task, scores)

    return measure


def _mean_routes(snapshot: Snapshot, inputs: Inputs) -> Routes:
    """By the base's state at the end of the question; the policy keeps the means for its export."""
    policy, means = snapshot.policy, snapshot.policy.question_means
    for name in inputs:
        if name not in means:  # the base never changes, nor does a task's sample
            task = snapshot.tasks[name]
            sample = fixed_sample(task.train, MEAN_QUESTIONS, task.version, "router")
            means[name] = policy.question_states([e.question for e in sample]).mean(0)
    arrays = {name: means[name].double().numpy() for name in inputs}
    states = {
        name: policy.question_states([e.question for e in examples]).double().numpy()
        for name, examples in inputs.items()
    }
    return {name: nearest_means(of_task, arrays) for name, of_task in states.items()}


def _likely_routes(snapshot: Snapshot, inputs: Inputs) -> Routes:
    """By the adapter under which the question's own tokens are likeliest."""
    policy = snapshot.policy
    logprobs: dict[str, dict[str, list[float]]] = {name: {} for name in inputs}
    for deployment in inputs:
        with policy.adapters.serving(deployment):
            for name, examples in inputs.items():
                questions = [example.question for example in examples]
                logprobs[name][deployment] = policy.question_logprobs(questions)
    return {name: best_routes(of_task) for name, of_task in logprobs.items()}


ROUTERS: Mapping[str, Callable[[Snapshot, Inputs], Routes]] = {
    "nearest_mean": _mean_routes,
    "surprisal": _likely_routes,
}


def _scores(
    snapshot: Snapshot, inputs: Inputs, routes: Sequence[Routes]
) -> dict[tuple[str, str], dict[str, float]]:
    """By deployment and task, the score of each example that some route sends there; greedy."""
    policy, tasks = snapshot.policy, snapshot.tasks
    scores = {(name, name): dict(snapshot.scores(tasks[name])) for name in inputs}
    for deployment in inputs:
        requests = [
            (name, example)
            for name, examples in inputs.items()
            for example, *ends in zip(examples, *(r[name] for r in routes), strict=True)
            if deployment in ends and deployment != name
        ]
        program = policy.live_program(tasks[deployment])
        with policy.adapters.serving(deployment):
            completions = policy.complete(
                [(program, example) for _, example in requests],
                Sampling(tasks[deployment].max_tokens),
                [0] * len(requests),
            )
        for (name, example), completion in zip(requests, completions, strict=True):
            grade = tasks[name].grade(example, completion.text)
            scores.setdefault((deployment, name), {})[example.id] = grade.score
    return scores


def _measured(
    task: str,
    examples: Sequence[Example],
    visited: Sequence[str],
    routes: Mapping[str, Sequence[str]],
    scores: Mapping[tuple[str, str], Mapping[str, float]],
) -> Measured:
    """The figures of one task with their intervals; `routes` of its inputs, by way of routing."""
    columns: dict[str, list[float]] = {}
    numbers = {"examples": float(len(examples))}
    for way, ends in routes.items():
        columns[f"{way}/score"] = [
            scores[end, task][example.id] for end, example in zip(ends, examples, strict=True)
        ]
        if way in ROUTERS:
            columns[f"{way}/accuracy"] = [float(end == task) for end in ends]
            numbers |= {f"{way}/sent/{end}": ends.count(end) / len(ends) for end in visited}
    clusters = {e.id: e.cluster for e in examples if e.cluster is not None}
    labels = cluster_labels([example.id for example in examples], clusters)
    for name, values in columns.items():
        numbers |= named_limits(name, score_interval(values, labels))
    figures = tuple(
        Metric(name, fmean(values), None, FORMULAS[name.partition("/")[2]])
        for name, values in columns.items()
    )
    return Measured(task, figures, numbers)
