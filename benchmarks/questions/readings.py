"""Could activation sparsity say how hard a problem is? A pass per prompt and spelling, no rollout.

Every problem of three tasks is read under three prompts of six demonstrations, and again in another
spelling: letter by letter, and in capitals. That changes how familiar the form of a question is
while what it asks stays.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import numpy as np

from benchmarks.questions.design import BASELINE, CHEAP, DEMONSTRATIONS, DRAWS, STRONG
from benchmarks.questions.setting import demonstrated, tasks
from fastslow.core.prompts import PromptProgram
from fastslow.core.seeds import named_random
from fastslow.core.types import Example
from fastslow.measure.scores.routing_curve import Arm, routing_curve
from fastslow.measure.scores.signal_draws import DRAWS as RESAMPLES
from fastslow.measure.scores.signal_draws import Design, ProblemRow
from fastslow.measure.scores.validity import SignalValidity, judge_signals
from fastslow.measure.stats.bootstrap import (
    LEAST_DEFINED,
    Estimate,
    draw_again,
    percentile_interval,
)
from fastslow.measure.stats.rank_figures import aurocs, centred_ranks
from fastslow.policy.policy import Policy
from fastslow.policy.signals import FREE, PRIMARY, SIGNALS, SPARSITY, Reading
from fastslow.task.definition import Task

SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "plain": str,
    "spaced": lambda question: " ".join(question),
    "capitals": str.upper,
}
ALL = ("spearman", "partial", "partial_free", "unfamiliarity", "auroc")
"""Figures that are kept of every signal; of the other spellings AUROC alone."""
JUDGED = frozenset({*SPARSITY, *FREE})


def read_all(policy: Policy) -> dict[str, Any]:
    """The figures of every task, prompt and spelling."""
    began, figures = time.monotonic(), dict[str, Any]()
    for name, task in tasks().items():
        prompted = [demonstrated(task, DEMONSTRATIONS, draw) for draw in range(DRAWS)]
        readings: dict[str, list[dict[str, Reading]]] = {}
        for spelling, spell in SPELLINGS.items():
            readings[spelling] = []
            for draw in prompted:
                examples = [replace(e, question=spell(e.question)) for e in draw.examples]
                readings[spelling].append(_by_id(policy, draw.program, examples))
                print(f"{name}, {spelling}: {time.monotonic() - began:.0f} s", flush=True)
        figures[name] = {
            "spellings": {
                spelling: [
                    _judged(task, of_draw, spelling == "plain") for of_draw in readings[spelling]
                ]
                for spelling in SPELLINGS
            },
            "shifts": {
                spelling: _shift(readings["plain"], readings[spelling])
                for spelling in SPELLINGS
                if spelling != "plain"
            },
            "routing": [_routed(policy, task, draw) for draw in range(DRAWS)],
        }
    return figures


def _by_id(
    policy: Policy, program: PromptProgram, examples: Sequence[Example]
) -> dict[str, Reading]:
    return {reading.example: reading for reading in policy.read_prompts(program, examples)}


def _judged(task: Task, readings: Mapping[str, Reading], is_plain: bool) -> dict[str, Any]:
    """The validity report on one task under one prompt; controls belong to the plain spelling."""
    from wordfreq import zipf_frequency

    questions = {e.id: e.question for e in (*task.train, *task.validation, *task.test)}
    rows = [
        ProblemRow(
            example=reading.example,
            task=task.name,
            difficulty=-reading.gold_logprob,
            wrong=not reading.gold_is_greedy,
            signals={name: signal(reading) for name, signal in SIGNALS.items()},
            controls={
                "rarity": -zipf_frequency(questions[reading.example], "en"),
                "question_length": float(reading.question_tokens),
                "question_logprob": -reading.question_logprob,
            }
            if is_plain
            else {},
            state=reading.state.double().numpy() if is_plain else None,
        )
        for reading in readings.values()
    ]
    validity, _ = judge_signals(rows, Design(PRIMARY, FREE))
    return {
        "problems": len(rows),
        "right": _rounded(fmean(reading.gold_is_greedy for reading in readings.values())),
        "mean_p_gold": _rounded(fmean(math.exp(r.gold_logprob) for r in readings.values())),
        "signals": {
            name: _figures(signal, ALL if is_plain else ("auroc",))
            for name, signal in validity.signals.items()
        },
        "against first_logprob": _difference(rows),
    }


def _figures(signal: SignalValidity, names: Sequence[str]) -> dict[str, Any]:
    """Each figure as [value, low, high]; null where it has none."""
    return {name: _estimate(signal.figures[name]) for name in names}


def _estimate(estimate: Estimate) -> list[float | None]:
    interval = estimate.interval
    limits = [None, None] if interval is None else [interval.low, interval.high]
    return [_rounded(number) for number in (estimate.metric.value, *limits)]


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 4)


def _interval(values: Sequence[float | None]) -> list[float | None]:
    """The first value, which is the figure itself, and the middle 95 % of the others.

    None for a figure that is undefined, and for an interval of one that mostly is.
    """
    again = [value for value in values[1:] if value is not None]
    if values[0] is None or len(again) < LEAST_DEFINED * RESAMPLES:
        return [_rounded(values[0]), None, None]
    interval = percentile_interval(again)
    return [_rounded(number) for number in (values[0], interval.low, interval.high)]


def _draws(size: int, *names: str | int) -> list[list[int]]:
    """All indices as they are, then bootstrap draws of them."""
    stream = named_random(0, "questions", *names)
    return [[*range(size)], *(draw_again(stream, size) for _ in range(RESAMPLES))]


def _difference(rows: Sequence[ProblemRow]) -> list[float | None]:
    """AUROC of the primary signal less that of the baseline, drawn in pairs."""
    wrong = np.array([row.wrong for row in rows])
    columns = np.array([[row.signals[name] for row in rows] for name in (PRIMARY, BASELINE)])
    values: list[float | None] = []
    for index in _draws(len(rows), "difference"):
        first, second = aurocs(centred_ranks(columns[:, index]), wrong[index]).tolist()
        values.append(None if math.isnan(first) else first - second)
    return _interval(values)


def _shift(
    plain: Sequence[Mapping[str, Reading]], changed: Sequence[Mapping[str, Reading]]
) -> dict[str, Any]:
    """How far another spelling moves the primary signal, and whether that is what it costs.

    In units of the spread within the plain spelling; of each problem the mean over the prompts in
    which it is no demonstration.
    """
    signal = SIGNALS[PRIMARY]
    spreads = [stdev(_values(draw.values(), signal)) for draw in plain]
    ids = [example for example in plain[0] if all(example in draw for draw in plain)]
    moves, costs = [], []
    for example in ids:
        pairs = [(a[example], b[example]) for a, b in zip(plain, changed, strict=True)]
        moves.append(
            fmean(
                (after - before) / spread
                for pair, spread in zip(pairs, spreads, strict=True)
                for before, after in [_values(pair, signal)]
            )
        )
        costs.append(fmean(before.gold_logprob - after.gold_logprob for before, after in pairs))
    moved, harder = np.array(moves), np.array(costs) > 0
    gaps: list[float | None] = []
    draws = _draws(len(ids), "shift")
    for index in draws:
        part, is_harder = moved[index], harder[index]
        is_mixed = 0 < is_harder.sum() < len(index)
        gaps.append(float(part[is_harder].mean() - part[~is_harder].mean()) if is_mixed else None)
    return {
        "problems": len(ids),
        "harder": int(harder.sum()),
        "shift": _interval([float(moved[index].mean()) for index in draws]),
        "shift of harder less of others": _interval(gaps),
        "share that moves up": _rounded(float((moved > 0).mean())),
    }


def _values(readings: Iterable[Reading], signal: Callable[[Reading], float | None]) -> list[float]:
    return [value for reading in readings if (value := signal(reading)) is not None]


def _routed(policy: Policy, task: Task, draw: int) -> dict[str, Any]:
    """What sending hard problems from a short prompt to a long one would bring, by signal."""
    cheap, strong = (demonstrated(task, count, draw) for count in (CHEAP, STRONG))
    examples = [e for e in cheap.examples if e in strong.examples]
    below, above = (list(_by_id(policy, a.program, examples).values()) for a in (cheap, strong))
    weak, best = (
        Arm(
            f"{count} demonstrations",
            tuple(float(reading.gold_is_greedy) for reading in readings),
            fmean(reading.prompt_tokens for reading in readings),
        )
        for count, readings in ((CHEAP, below), (STRONG, above))
    )
    signals = {n: [signal(r) for r in below] for n, signal in SIGNALS.items() if n in JUDGED}
    curve = routing_curve(task.name, weak, best, signals)
    differences = np.array(best.scores) - np.array(weak.scores)
    gaps: list[float | None] = []
    columns = np.array([*(signals[name] for name in (PRIMARY, BASELINE)), differences], dtype=float)
    for index in _draws(len(examples), "routing", task.name, draw):
        part = differences[index]
        areas = centred_ranks(columns[:, index]) @ (part - part.mean())
        gaps.append(float(areas[0] - areas[1]) / float(areas[-1]) if areas[-1] > 0 else None)
    return {
        "problems": len(examples),
        "right": [_rounded(fmean(arm.scores)) for arm in (weak, best)],
        "tokens": [_rounded(arm.prompt_tokens) for arm in (weak, best)],
        "better": _rounded(float((differences > 0).mean())),
        "worse": _rounded(curve.worse_frac),
        "eligible": curve.eligible,
        "gains": {name: _estimate(gain) for name, gain in curve.gains.items()},
        "against first_logprob": _interval(gaps),
    }
