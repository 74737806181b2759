"""What the policy answers to a task's training examples when its stage has ended."""

from collections.abc import Mapping, Sequence
from random import Random

from fastslow.channels.slow.remedies.base import Stage
from fastslow.core.distributed import by_leader
from fastslow.core.seeds import derive_seed, named_random
from fastslow.core.types import Completion, Example, Sampling, TokenIds


def some_examples(stage: Stage, count: int) -> list[Example]:
    """Training examples of the stage's task, `count` of them or all, by the remedy's own seed."""
    train = list(stage.task.train)
    return named_random(stage.seed, "examples").sample(train, min(count, len(train)))


def own_completions(stage: Stage, count: int) -> list[tuple[Example, Completion]]:
    """One rollout at temperature 1 for each of some examples, under the deployed text.

    Drawn once, by the leader of several processes.
    """
    task, policy = stage.task, stage.policy
    examples = some_examples(stage, count)
    program = policy.live_program(task)
    completions = by_leader(
        lambda: policy.complete(
            [(program, example) for example in examples],
            Sampling(task.max_tokens, temperature=1.0),
            [derive_seed(stage.seed, "answer", example.id) for example in examples],
        )
    )
    return list(zip(examples, completions, strict=True))


def earlier_rows(
    stage: Stage, answers: Mapping[str, Mapping[str, Sequence[int]]], count: int, random: Random
) -> list[tuple[TokenIds, TokenIds]]:
    """Prompt and tokens of `count` answers to earlier tasks' training examples, or of all.

    `answers` are token ids by task and example; each is asked under its task's deployed text.
    """
    policy = stage.policy
    every = [
        (task, example, tuple(tokens))
        for task in stage.earlier
        for example, tokens in answers.get(task.name, {}).items()
    ]
    chosen = random.sample(every, min(count, len(every)))
    questions = {task.name: {e.id: e.question for e in task.train} for task in stage.earlier}
    return [
        (
            policy.renderer.prompt_ids(policy.live_program(task), questions[task.name][example]),
            tokens,
        )
        for task, example, tokens in chosen
    ]
