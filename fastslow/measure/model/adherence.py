"""Context adherence: does the policy still do what its prompt says, or do the weights decide?

Demonstrations whose answers were exchanged, each for the next one in sorted order, ask for other
answers than those of the task; with words that mean nothing only the prompt can tell the answer.
The prompts depend on the task alone, so that rows of the matrix differ in weights only; the base's
own row is row 0, and without it the figures mean nothing: small models follow such prompts badly.

Source: flipped and nonsense labels after arXiv 2303.03846; influence of the context as a divergence
after arXiv 2404.04633.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import PositiveInt

from fastslow.core.keys import OURS, key
from fastslow.core.prompts import Demonstration, PromptProgram
from fastslow.core.seeds import named_random
from fastslow.core.types import FULL_MARKS, Example, Metric, Sampling
from fastslow.measure.base import (
    Measure,
    MeasureConfig,
    Measured,
    MeasurePrice,
    RowSize,
    Snapshot,
    measure,
)
from fastslow.measure.stats.intervals import (
    cluster_labels,
    mean_interval,
    named_limits,
    score_interval,
)
from fastslow.task.definition import Task
from fastslow.task.guarded_grader import attempted_score
from fastslow.task.splits import spread_answers

if TYPE_CHECKING:
    from fastslow.policy.policy import Policy

MOST_ANSWERS = 20
"""Distinct gold answers of a closed set."""
NONSENSE = (
    *("dax", "wug", "blick", "toma", "fep", "zorp", "mib", "kiv", "lorp", "gax"),
    *("tiv", "bosa", "nurl", "pim", "quib", "rast", "vonk", "yeb", "sulp", "hof"),
)
"""Words that mean nothing, short for tokens' sake; one for each answer, in sorted order."""
PASSES = 4
"""Readings of each input: tuned and base, under two prompts."""
FORMULAS = {
    "text_influence": "KL(p(. | prompt, x) || p(. | seed prompt, x)) at the first completion token,"
    " mean over test inputs, nats (after arXiv 2404.04633)",
    "text_influence_base": "the same of the base under the same prompts",
    "adherence_flipped": "score by the exchanged answers under exchanged demonstrations: share that"
    " follows the prompt (arXiv 2303.03846)",
    "adherence_prior": "score of the same completions by the true answers: share that does not",
    "adherence_nonsense": "score by words that mean nothing under demonstrations with such words",
}
SCORES = ("adherence_flipped", "adherence_prior", "adherence_nonsense")
"""Figures that are means of scores of completions."""
Exchange: TypeAlias = Callable[[Example], Example]
"""Gives an example another gold answer."""


class AdherenceConfig(MeasureConfig):
    """Whether completions follow the prompt where it asks for other answers than the task."""

    kind: Literal["adherence"] = key("adherence", "name", "arXiv 2303.03846")
    """Which measure."""
    demonstrations: PositiveInt = key(4, "demonstrations", OURS)
    """Of training problems; inputs whose answer none of them shows are left out."""

    def price(self, size: RowSize) -> MeasurePrice:
        """Two completions of each test input, of every task in row 0, then of those visited."""
        inputs = sum(size.visited if size.row else size.tests)
        return MeasurePrice(rollouts=2 * inputs, extra=PASSES * inputs if size.row else 0)


@dataclass(frozen=True)
class Adherence:
    """What a task's prompts do, on its test sample."""

    influence: Mapping[str, tuple[float, ...]]
    """Of each input in nats, for the policy and for its base, by the figure's name."""
    scores: Mapping[str, Mapping[str, float]]
    """By example, in [0, 1], for the figures of `SCORES` that are defined."""
    reasons: Mapping[str, str]
    """Why the others are not."""


@measure(name="adherence", source="arXiv 2303.03846 and 2404.04633")
def adherence(config: AdherenceConfig) -> Measure:
    """Whether prompts still decide: their influence, and exchanged and nonsense answers."""

    def take(snapshot: Snapshot) -> Iterable[Measured]:
        for name in snapshot.visited if snapshot.row else snapshot.tasks:
            task, policy = snapshot.tasks[name], snapshot.policy
            examples = snapshot.test_sample(task)
            with policy.adapters.serving(name):
                program = policy.live_program(task)
                result = measure_adherence(policy, task, program, examples, config.demonstrations)
            numbers = _numbers(result, examples)
            numbers["answers"] = float(len({example.answer for example in task.train}))
            yield Measured(name, tuple(_metrics(result)), numbers)

    return take


def measure_adherence(
    policy: "Policy",
    task: Task,
    program: PromptProgram,
    examples: Sequence[Example],
    demonstrations: int,
) -> Adherence:
    """Adherence of the policy with its present adapter; `program` is the prompt in use."""
    answers = sorted({example.answer for example in task.train})
    with policy.scorer.base_weights():
        influence_base = text_influence(policy, task, program, examples)
    influence = {
        "text_influence": text_influence(policy, task, program, examples),
        "text_influence_base": influence_base,
    }
    if not 2 <= len(answers) <= MOST_ANSWERS:
        reason = f"not a closed set of answers: {len(answers)} different ones in train"
        return Adherence(influence, {}, dict.fromkeys(SCORES, reason))
    demonstrated = spread(task, demonstrations)
    inputs = [
        e for e in examples if e.answer in {demonstration.answer for demonstration in demonstrated}
    ]
    scores: dict[str, Mapping[str, float]] = {}
    reasons: dict[str, str] = {}
    for names, exchange in ((SCORES[:2], _flipped(task)), (SCORES[2:], _nonsense(task))):
        why_not = _why_unfit(policy, task, inputs, exchange)
        if why_not is not None:
            reasons |= dict.fromkeys(names, why_not)
            continue
        followed, true = _scores(policy, task, demonstrated, inputs, exchange)
        scores |= dict(zip(names, (followed, true), strict=False))
    return Adherence(influence, scores, reasons)


def text_influence(
    policy: "Policy", task: Task, program: PromptProgram, examples: Sequence[Example]
) -> tuple[float, ...]:
    """Exact KL(prompt || seed prompt) at the first completion token of each input, in nats."""
    import torch

    from fastslow.policy.divergence import divergences
    from fastslow.policy.policy import seed_program

    seed_prompt = seed_program(task)
    if program == seed_prompt:
        return (0.0,) * len(examples)
    # a completion of any one token: what predicts it is the end of the prompt
    first = [(policy.renderer.stop_id,)] * len(examples)
    with torch.no_grad():
        ours, seed = (
            policy.predict([policy.renderer.prompt_ids(p, e.question) for e in examples], first)
            for p in (program, seed_prompt)
        )
        return tuple(divergences(ours, seed, "reverse")[:, 0].tolist())


def spread(task: Task, count: int) -> list[Example]:
    """So many training examples with answers as different as possible; the task decides which."""
    examples = named_random(0, "adherence", task.version).sample(task.train, len(task.train))
    return spread_answers(examples)[:count]


def _flipped(task: Task) -> Exchange:
    """Each answer becomes the next of the sorted ones, with all that the grader needs for it."""
    first: dict[str, Example] = {}
    for example in task.train:
        first.setdefault(example.answer, example)
    answers = sorted(first)
    after = dict(zip(answers, [*answers[1:], answers[0]], strict=True))

    def exchange(example: Example) -> Example:
        donor = first[after[example.answer]]
        return replace(example, answer=donor.answer, metadata=donor.metadata)

    return exchange


def _nonsense(task: Task) -> Exchange:
    """Each answer becomes a word that means nothing."""
    words = dict(zip(sorted({e.answer for e in task.train}), NONSENSE, strict=False))
    return lambda example: replace(example, answer=words[example.answer])


def _why_unfit(
    policy: "Policy", task: Task, inputs: Sequence[Example], exchange: Exchange
) -> str | None:
    """Why exchanged answers cannot be graded, or not be given; None where they can."""
    if not inputs:
        return "no test input has an answer that the demonstrations show"
    for example in {example.answer: example for example in inputs}.values():
        exchanged = exchange(example)
        follows, keeps = (
            attempted_score(task.grade, exchanged, text)
            for text in (exchanged.answer, example.answer)
        )
        if follows is None or keeps is None or not keeps < FULL_MARKS <= follows:
            return "the grader does not take other answers than the task's own"
        if len(policy.renderer.answer_ids(exchanged.answer)) > task.max_tokens:
            return f"an exchanged answer takes more than max_tokens = {task.max_tokens}"
    return None


def _scores(
    policy: "Policy",
    task: Task,
    demonstrated: Sequence[Example],
    inputs: Sequence[Example],
    exchange: Exchange,
) -> tuple[dict[str, float], dict[str, float]]:
    """Scores by example of greedy completions: by exchanged answers, and by the true ones."""
    from fastslow.policy.policy import seed_program

    demonstrations = tuple(Demonstration(e.question, exchange(e).answer) for e in demonstrated)
    program = replace(seed_program(task), demonstrations=demonstrations)
    requests = [(program, example) for example in inputs]
    completions = policy.complete(requests, Sampling(task.max_tokens), [0] * len(inputs))
    followed, true = {}, {}
    for example, completion in zip(inputs, completions, strict=True):
        followed[example.id] = task.grade(exchange(example), completion.text).score
        true[example.id] = task.grade(example, completion.text).score
    return followed, true


def _metrics(result: Adherence) -> Iterator[Metric]:
    for name, formula in FORMULAS.items():
        values = result.influence.get(name) or tuple(result.scores.get(name, {}).values())
        value = fmean(values) if values else None
        yield Metric(name, value, result.reasons.get(name), formula)


def _numbers(result: Adherence, examples: Sequence[Example]) -> dict[str, float]:
    """Intervals over inputs, and the score of each: readers pair them with those of row 0."""
    numbers: dict[str, float] = {}
    clusters = {e.id: e.cluster for e in examples if e.cluster is not None}
    for name, values in result.influence.items():
        labels = cluster_labels([example.id for example in examples], clusters)
        numbers |= named_limits(name, mean_interval(values, labels, least=0.0))
    for name, scores in result.scores.items():
        interval = score_interval(list(scores.values()), cluster_labels(scores, clusters))
        numbers |= named_limits(name, interval)
        numbers |= {f"{name}/of/{example}": score for example, score in scores.items()}
    return numbers
