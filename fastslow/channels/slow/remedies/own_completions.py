"""What the policy answers to a task's training examples when its stage has ended."""

from fastslow.channels.slow.remedies.base import Stage
from fastslow.core.distributed import by_leader
from fastslow.core.seeds import derive_seed, named_random
from fastslow.core.types import Completion, Example, Sampling
from fastslow.task.definition import Task


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


def questions(task: Task) -> dict[str, str]:
    """Of the training examples, by id."""
    return {example.id: example.question for example in task.train}
