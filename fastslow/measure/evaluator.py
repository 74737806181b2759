"""Scores a policy on a task's examples: greedy, on fixed samples, and without changing it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from fastslow.core.prompts import Candidate, PromptProgram
from fastslow.core.seeds import named_random
from fastslow.core.types import Completion, Example, PromptPolicy, SampleScore, Sampling
from fastslow.policy.policy import Policy
from fastslow.policy.saved import BASE
from fastslow.task.definition import Task
from fastslow.task.guarded_grader import grade_all


@dataclass(frozen=True)
class Evaluator:
    """Fixed samples of each task's test and validation split, scored greedily."""

    test_examples: int | None
    """Size of the test sample of each task; None takes the whole split."""
    validation_examples: int
    """Size of the validation sample."""
    split: Literal["test", "validation"] = "test"
    """What the test sample is taken from."""

    def test_sample(self, task: Task) -> tuple[Example, ...]:
        """The same test examples in every row of every run of this version of the task."""
        examples = task.test if self.split == "test" else task.validation
        return fixed_sample(examples, self.test_examples, task.version, "test")

    def score(
        self,
        policy: Policy,
        task: Task,
        program: PromptProgram,
        prompt_policy: PromptPolicy,
        *,
        examples: Sequence[Example] | None = None,
        adapter: bool = True,
    ) -> list[SampleScore]:
        """Score one cell of the matrix: the test sample, or some of it, under one prompt.

        The policy is bit-identical afterwards, generators included; without `adapter` the base is
        scored. `prompt_policy` is the role of the prompt.
        """
        examples = self.test_sample(task) if examples is None else examples
        prompts = [(program, example) for example in examples]
        sampling, seeds = Sampling(task.max_tokens), [0] * len(examples)
        completions = policy.complete(prompts, sampling, seeds, adapter=adapter)
        weights = policy.weights_fingerprint() if adapter else BASE
        text_hash = program.text_hash
        records = []
        grades = grade_all(task.grade, _answers(examples, completions))
        for example, completion, grade in zip(examples, completions, grades, strict=True):
            records.append(
                SampleScore(
                    task=task.name,
                    version=task.version,
                    example=example.id,
                    sample=0,
                    prompt_policy=prompt_policy,
                    text_hash=text_hash,
                    weights=weights,
                    completion=completion.text,
                    tokens=len(completion.token_ids),
                    score=grade.score,
                    reason=grade.reason,
                )
            )
        return records

    def validate(self, policy: Policy, task: Task) -> tuple[Candidate, ...]:
        """The task's prompts, each with its scores on the validation sample."""
        return tuple(
            Candidate(candidate.program, self.validation_scores(policy, task, candidate.program))
            for candidate in policy.population(task)
        )

    def validation_sample(self, task: Task) -> tuple[Example, ...]:
        """The same validation examples in every run of this version of the task."""
        return validation_sample(task, self.validation_examples)

    def validation_scores(
        self, policy: Policy, task: Task, program: PromptProgram
    ) -> dict[str, float]:
        """Score of each validation example under one prompt, by its id; greedy."""
        examples = self.validation_sample(task)
        prompts = [(program, example) for example in examples]
        completions = policy.complete(prompts, Sampling(task.max_tokens), [0] * len(examples))
        grades = grade_all(task.grade, _answers(examples, completions))
        return {e.id: grade.score for e, grade in zip(examples, grades, strict=True)}


def _answers(
    examples: Sequence[Example], completions: Sequence[Completion]
) -> list[tuple[Example, str]]:
    return [(e, completion.text) for e, completion in zip(examples, completions, strict=True)]


def fixed_sample(
    examples: Sequence[Example], size: int | None, version: str, split: str
) -> tuple[Example, ...]:
    """`size` examples, or all, that depend on the task's version and split only, not on the run.

    In random order, so that its beginning, too, is a sample of a split that is sorted by label; a
    smaller sample is the beginning of a larger one.
    """
    return tuple(named_random(0, split, version).sample(list(examples), len(examples))[:size])


def validation_sample(task: Task, size: int) -> tuple[Example, ...]:
    """So many validation examples, or all; the same in every run of this version of the task."""
    return fixed_sample(task.validation, size, task.version, "validation")


def mean_score(records: Sequence[SampleScore]) -> float:
    """Mean of the records' scores, in [0, 1]; at least one record."""
    return fmean(record.score for record in records)
