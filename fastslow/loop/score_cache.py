"""Scores that need not be drawn twice: what determines one has not changed.

A score follows from weights, text, task and example, because decoding is greedy and a run's tasks,
examples and limits are fixed. So a cell whose weights and text were scored before is recorded again
without a rollout.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from fastslow.core.types import Example, PromptPolicy, SampleScore
from fastslow.policy.saved import BASE
from fastslow.records.events import ScoreRow

Key: TypeAlias = tuple[str, str, str, str]


class ScoreCache:
    """Every sample scored in a run, by what determines it."""

    def __init__(self, rows: Iterable[ScoreRow] = ()) -> None:
        """Take in the rows recorded so far."""
        self._samples: dict[Key, SampleScore] = {}
        for row in rows:
            self.add(row)

    def add(self, row: ScoreRow) -> None:
        """Keep one recorded sample; row 0 is the base, whatever its fresh adapter is called."""
        sample = row.sample
        weights = {sample.weights, BASE} if row.row == 0 else {sample.weights}
        for name in weights:
            key = (name, sample.text_hash, sample.task, sample.example)
            self._samples.setdefault(key, sample)

    def look_up(
        self,
        weights: str,
        text_hash: str,
        task: str,
        examples: Sequence[Example],
        prompt_policy: PromptPolicy,
    ) -> dict[str, SampleScore]:
        """Earlier scores by example, as samples of these weights and this role."""
        samples = {}
        for example in examples:
            sample = self._samples.get((weights, text_hash, task, example.id))
            if sample is not None:
                samples[example.id] = replace(
                    sample, weights=weights, prompt_policy=prompt_policy, sample=0
                )
        return samples
