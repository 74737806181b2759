"""Rollouts of one update: drawn, graded, and what is read off them. Without TRL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import NamedTuple

from fastslow.channels.slow.difficulty import Group
from fastslow.core.distributed import from_all, own_share
from fastslow.core.errors import ChannelError
from fastslow.core.prompts import PromptProgram, assign_slots
from fastslow.core.samples import sample_line
from fastslow.core.types import (
    FULL_MARKS,
    Batch,
    Completion,
    Evidence,
    Example,
    Grade,
    Sampling,
    TokenIds,
)
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task
from fastslow.task.graders import reasoning
from fastslow.task.guarded_grader import grade_all, has_reasoning


@dataclass(frozen=True)
class Rollout:
    """A completion with its reward; plain data, which processes send each other."""

    task: str
    """Name of the problem's task."""
    program: PromptProgram
    example: Example
    completion: Completion
    grade: Grade
    hint: str = ""
    """As in `Request`."""
    is_bare: bool | None = None
    """Whether nothing stands before the answer; None for a task without reasoning before it."""


class Request(NamedTuple):
    """A problem of a task under one of its texts."""

    task: Task
    program: PromptProgram
    example: Example
    hint: str = ""
    """What the question was followed by, see `guidance.hint`; empty for a plain draw."""


def requests_of(
    policy: Policy, tasks: Mapping[str, Task], batch: Batch, group: int
) -> list[Request]:
    """Every problem of a batch `group` times, its slots shared out among its task's prompts."""
    return [
        Request(tasks[name], text, problem)
        for name, problem in batch.rows
        for text in assign_slots(policy.population(tasks[name]), group)
    ]


def token_rows(policy: Policy, rollouts: Sequence[Rollout]) -> list[tuple[TokenIds, TokenIds]]:
    """Prompt, without a hint, and completion of each rollout."""
    prompt_ids = policy.renderer.prompt_ids
    return [(prompt_ids(r.program, r.example.question), r.completion.token_ids) for r in rollouts]


def draw_rollouts(
    policy: Policy, requests: Sequence[Request], temperature: float, seeds: Sequence[int]
) -> list[Rollout]:
    """One graded completion for each request, in order, within its task's limit of tokens.

    Requests of one task are drawn together, at a temperature > 0, each with its own seed.
    """
    rollouts: dict[int, Rollout] = {}
    prompts = [policy.renderer.prompt_ids(r.program, r.example.question, r.hint) for r in requests]
    for task in {request.task.name: request.task for request in requests}.values():
        indices = [i for i, request in enumerate(requests) if request.task.name == task.name]
        completions = policy.sampler.sample(
            [prompts[i] for i in indices],
            Sampling(task.max_tokens, temperature),
            [seeds[i] for i in indices],
        )
        answers = [(requests[i].example, c.text) for i, c in zip(indices, completions, strict=True)]
        grades = grade_all(task.grade, answers)
        for i, completion, grade in zip(indices, completions, grades, strict=True):
            _, text, problem, hint = requests[i]
            is_bare = not reasoning(completion.text) if has_reasoning(task.grade) else None
            rollouts[i] = Rollout(task.name, text, problem, completion, grade, hint, is_bare)
    return [rollouts[i] for i in range(len(requests))]


def draw_shared(
    policy: Policy, requests: Sequence[Request], temperature: float, seeds: Sequence[int]
) -> list[Rollout]:
    """`draw_rollouts`, shared out evenly among the processes: what all of them drew, in order.

    Raises:
        ChannelError: A completion has no token.
    """
    local = own_share(len(requests))
    shares = from_all(draw_rollouts(policy, requests[local], temperature, seeds[local]))
    rollouts = [rollout for share in shares for rollout in share]
    require_tokens(rollouts)
    return rollouts


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


def reward_figures(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Mean and deviation of rewards and mean length, as TRL's figures; of two or more rollouts."""
    rewards = [rollout.grade.score for rollout in rollouts]
    lengths = [len(rollout.completion.token_ids) for rollout in rollouts]
    return {
        "reward": fmean(rewards),
        "reward_std": stdev(rewards),
        "completion_tokens": fmean(lengths),
    }


def readable_lines(rollouts: Sequence[Rollout], figure: str) -> list[str]:
    """The rollouts as people read them; untrusted text. `figure` is what their score is here."""
    return [
        sample_line(
            r.program.text_hash,
            r.example.id,
            r.example.question + r.hint,
            r.completion.text,
            f"{figure} {r.grade.score:g} ({r.grade.reason})",
        )
        for r in rollouts
    ]


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
            bare=tuple(r.is_bare for r in cut if r.is_bare is not None),
        )
        for cut in cuts
    ]
