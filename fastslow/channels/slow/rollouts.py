"""Rollouts of one update: drawn, graded, and what is read off them. Without TRL."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fastslow.channels.slow.difficulty import Group
from fastslow.core.errors import ChannelError
from fastslow.core.prompts import PromptProgram
from fastslow.core.types import FULL_MARKS, Completion, Evidence, Example, Grade, Sampling
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task


@dataclass(frozen=True)
class Rollout:
    """A completion with its reward; plain data, which processes send each other."""

    task: str
    """Name of the problem's task."""
    program: PromptProgram
    example: Example
    completion: Completion
    grade: Grade


Request: TypeAlias = tuple[Task, PromptProgram, Example]
"""A problem of a task under one of its texts."""


def draw_rollouts(
    policy: Policy, requests: Sequence[Request], temperature: float, seeds: Sequence[int]
) -> list[Rollout]:
    """One graded completion for each request, in order, within its task's limit of tokens.

    Requests of one task are drawn together, at a temperature > 0, each with its own seed.
    """
    rollouts: dict[int, Rollout] = {}
    for task in {task.name: task for task, _, _ in requests}.values():
        indices = [i for i, request in enumerate(requests) if request[0].name == task.name]
        completions = policy.complete(
            [requests[i][1:] for i in indices],
            Sampling(task.max_tokens, temperature),
            [seeds[i] for i in indices],
        )
        for i, completion in zip(indices, completions, strict=True):
            _, text, problem = requests[i]
            grade = task.grade(problem, completion.text)
            rollouts[i] = Rollout(task.name, text, problem, completion, grade)
    return [rollouts[i] for i in range(len(requests))]


def require_tokens(rollouts: Sequence[Rollout]) -> None:
    """Make sure that there is something to learn from in each.

    Raises:
        ChannelError: A completion has no token; names the problems.
    """
    if empty := [r.example.id for r in rollouts if not r.completion.token_ids]:
        raise ChannelError(
            f"slow: the engine drew {len(empty)} completions without any token, for problems "
            f"{', '.join(sorted(set(empty)))}, so there is nothing to learn from. A completion "
            "ends with its stop token at least: check model.name and its tokenizer."
        )


def evidence_of(rollouts: Sequence[Rollout]) -> list[Evidence]:
    """Of each problem the first full success and the first failure."""
    firsts: dict[tuple[str, bool], Evidence] = {}
    for r in rollouts:
        evidence = Evidence(r.example.id, r.completion.text, r.grade.score, r.grade.reason)
        firsts.setdefault((r.example.id, r.grade.score >= FULL_MARKS), evidence)
    return list(firsts.values())


def groups_of(rollouts: Sequence[Rollout], size: int) -> list[Group]:
    """The rollouts problem by problem, `size` of each."""
    cuts = [rollouts[start : start + size] for start in range(0, len(rollouts), size)]
    return [
        Group(
            task=cut[0].task,
            problem=cut[0].example.id,
            rewards=tuple(r.grade.score for r in cut),
            completions=tuple(r.completion.token_ids for r in cut),
        )
        for cut in cuts
    ]
