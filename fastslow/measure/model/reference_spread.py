r"""Reference spread: how far do sampled reasonings decide the gold answer?

The gold answer is read behind each of several reasonings that the policy draws. Where it is as
likely behind all of them, reasoning decides nothing: the answer is known without it, or out of
reach with it.

Source: the statistic that DRO filters problems by, arXiv 2506.13351. Ours: the tokens that open the
box, `\boxed{`, are read as context, since how likely they are says how a reasoning ended.
"""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from fastslow.core.keys import OURS, key
from fastslow.core.seeds import derive_seed
from fastslow.core.types import FULL_MARKS, Completion, Example, Metric, Sampling
from fastslow.measure.base import (
    Measure,
    MeasureConfig,
    Measured,
    MeasurePrice,
    RowSize,
    Snapshot,
    measure,
)
from fastslow.measure.stats.figure import Undefined, figure
from fastslow.measure.stats.intervals import mean_interval, named_limits
from fastslow.task.definition import Task
from fastslow.task.graders import BOX
from fastslow.task.guarded_grader import grade_all, has_reasoning

if TYPE_CHECKING:
    from fastslow.policy.policy import Policy

NAMES = ("reference_spread", "reference_spread_spearman")
FORMULAS = (
    "largest standard deviation, over sampled reasonings, of ln p of a token of the gold answer, "
    "mean over problems, nats (arXiv 2506.13351)",
    "Spearman's rank correlation of a problem's spread with the share of its completions that pass",
)
NO_REASONING = rf"completions hold no reasoning: the grader reads no {BOX}...}}"


class ReferenceSpreadConfig(MeasureConfig):
    """How far sampled reasonings decide the gold answer, in tasks with reasoning before it."""

    kind: Literal["reference_spread"] = key("reference_spread", "name", "arXiv 2506.13351")
    """Which measure."""
    rollouts: int = key(8, "rollouts", OURS, ge=2)
    """Completions of a problem, at temperature 1."""
    examples: PositiveInt = key(16, "validation examples", OURS)
    """Problems of each visited task."""

    def price(self, size: RowSize) -> MeasurePrice:
        """Every visited task's completions, and a pass behind each; none without reasoning."""
        completions = self.rollouts * self.examples * len(size.visited)
        return MeasurePrice(rollouts=completions, extra=completions)


@measure(name="reference_spread", source="arXiv 2506.13351")
def reference_spread(config: ReferenceSpreadConfig) -> Measure:
    """Spread of the gold answer's probability over sampled reasonings, of each visited task."""

    def take(snapshot: Snapshot) -> Iterable[Measured]:
        for name in snapshot.visited:
            task, seed = snapshot.tasks[name], derive_seed(snapshot.seed, name)
            examples: Sequence[Example] = ()
            if has_reasoning(task.grade):
                examples = snapshot.validation_sample(task, config.examples)
            with snapshot.policy.adapters.serving(name):
                pairs = spreads_and_rates(snapshot.policy, task, examples, config.rollouts, seed)
            yield Measured(name, _metrics(pairs), _numbers(pairs, examples))

    return take


def spreads_and_rates(
    policy: "Policy", task: Task, examples: Sequence[Example], rollouts: int, seed: int
) -> list[tuple[float, float]]:
    """Of each problem the spread, in nats, and its completions' pass rate, in [0, 1].

    From so many completions under the deployed prompt, at temperature 1.
    """
    program = policy.live_program(task)
    requests = [(program, example) for example in examples for _ in range(rollouts)]
    seeds = [derive_seed(seed, example.id, i) for example in examples for i in range(rollouts)]
    completions = policy.complete(requests, Sampling(task.max_tokens, temperature=1.0), seeds)
    pairs = []
    for index, example in enumerate(examples):
        group = completions[index * rollouts : (index + 1) * rollouts]
        grades = grade_all(task.grade, [(example, c.text) for c in group])
        passes = [grade.score >= FULL_MARKS for grade in grades]
        pairs.append((max_spread(_answer_logprobs(policy, task, example, group)), fmean(passes)))
    return pairs


def max_spread(logprobs: Sequence[Sequence[float]]) -> float:
    """Largest standard deviation of a token over reasonings, with N - 1, in nats.

    Of ln p [reasonings][tokens], from two reasonings on.
    """
    return max(float(stdev(token)) for token in zip(*logprobs, strict=True))


def _answer_logprobs(
    policy: "Policy", task: Task, example: Example, completions: Sequence[Completion]
) -> list[tuple[float, ...]]:
    """Log-probabilities of the boxed gold answer's tokens behind each completion's reasoning.

    A reasoning is cut where it leaves no room for the answer within the task's limit.
    """
    from fastslow.policy.render import num_shared

    renderer = policy.renderer
    prompt = renderer.prompt_ids(policy.live_program(task), example.question)
    _, box, inside = example.answer.rpartition(BOX)
    reference, opening = (renderer.text_ids(t, inside=True) for t in (box + inside, BOX))
    shared, room = num_shared(reference, opening), task.max_tokens - len(reference)
    contexts = []
    for completion in completions:
        stop = -1 if completion.finish == "stop" else None
        reasoning = renderer.ids_before(completion.token_ids[:stop], BOX)
        contexts.append(prompt + reasoning[:room] + reference[:shared])
    # the same reasoning is read once, so that it has one value whatever stands beside it
    rows = list(dict.fromkeys(contexts))
    logprobs = policy.scorer.logprobs(rows, [reference[shared:]] * len(rows))
    by_context = dict(zip(rows, logprobs, strict=True))
    return [by_context[context] for context in contexts]


def _metrics(pairs: Sequence[tuple[float, float]]) -> tuple[Metric, ...]:
    functions = (_mean_spread, _rank_correlation)
    return tuple(
        figure(name, formula, partial(function, pairs))
        for name, formula, function in zip(NAMES, FORMULAS, functions, strict=True)
    )


def _mean_spread(pairs: Sequence[tuple[float, float]]) -> float:
    if not pairs:
        raise Undefined(NO_REASONING)
    return fmean(spread for spread, _ in pairs)


def _rank_correlation(pairs: Sequence[tuple[float, float]]) -> float:
    import numpy as np

    from fastslow.measure.stats.rank_figures import centred_ranks, correlations

    if len(pairs) < 3:
        raise Undefined("fewer than three problems" if pairs else NO_REASONING)
    ranks = centred_ranks(np.array(pairs).T)
    value = float(correlations(ranks[:1], ranks[1])[0])
    if math.isnan(value):
        raise Undefined("every problem has the same spread, or the same pass rate")
    return value


def _numbers(pairs: Sequence[tuple[float, float]], examples: Sequence[Example]) -> dict[str, float]:
    """The interval over problems, and both figures of each problem."""
    if not pairs:
        return {}
    clusters = [example.cluster or (example.id,) for example in examples]
    interval = mean_interval([spread for spread, _ in pairs], clusters, least=0.0)
    numbers = named_limits(NAMES[0], interval)
    for example, (spread, rate) in zip(examples, pairs, strict=True):
        numbers |= {f"{NAMES[0]}/of/{example.id}": spread, f"pass_rate/of/{example.id}": rate}
    return numbers
