"""Studies of signals made of numbers, with names that attack whoever shows them."""

import numpy as np

from fastslow.measure.scores.routing_curve import Arm, routing_curve
from fastslow.measure.scores.signal_draws import Design, ProblemRow
from fastslow.measure.scores.validity import judge_signals
from fastslow.records.validity_file import SignalStudy
from tests.support.hostile_folder import ATTACKS


def hostile_study(tasks: int = 2, problems: int = 40) -> SignalStudy:
    """A study whose tasks, examples, signals and model have hostile names."""
    generator = np.random.default_rng(0)
    names = [f"{attack} {i}" for i, attack in enumerate(ATTACKS)][:tasks]
    signals = ("top5_energy", "first_logprob", "question_length", ATTACKS[0], "a" * 60)
    rows = [
        ProblemRow(
            f"{ATTACKS[0]}{i}",
            name,
            float(generator.normal()),
            bool(generator.integers(0, 2)),
            {signal: float(generator.normal()) for signal in signals} | {"flat": 1.0},
            {"question_length": float(generator.integers(1, 9)), "word_rarity": 1.0},
            generator.normal(size=4),
        )
        for name in names
        for i in range(problems)
    ]
    overall, single = judge_signals(rows, Design("top5_energy", ("first_logprob",)))
    cheap, strong = (tuple(generator.integers(0, 2, problems).astype(float)) for _ in range(2))
    curves = tuple(
        routing_curve(
            name,
            Arm("seed prompt", cheap, 20),
            Arm("deployed prompt", strong, tokens),
            {signal: generator.normal(size=problems).tolist() for signal in signals},
        )
        for name, tokens in zip(names, (20, 100), strict=True)
    )
    return SignalStudy(
        model=ATTACKS[0],
        subject="run after stage 1 of 2",
        primary="top5_energy",
        weights=dict.fromkeys(names, "base"),
        prompts=dict.fromkeys(names, "0123456789ab"),
        labels=dict.fromkeys(names, "1 - score"),
        rows=tuple(rows),
        overall=overall,
        tasks=single,
        curves=curves,
        absent=(f"base / tuned on {ATTACKS[0]}: both are the same",),
    )
