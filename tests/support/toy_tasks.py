"""Tasks that a tiny random model can make progress on: write letters of one kind."""

from zlib import crc32

from pydantic import Field

from fastslow.core.types import Example, Grade
from fastslow.task.definition import Task, TaskConfig, task


class Letters(TaskConfig):
    """Parameters of `letters`."""

    wanted: str = "abcdefgh"
    """Letters that score."""
    train: int = Field(40, ge=1)
    """Training examples."""


class Parity(TaskConfig):
    """Parameters of `parity`: none."""


@task(name="parity", version=1, source="made here")
def parity(config: Parity) -> Task:
    """Full marks if the completion has an even number of characters; about half have."""

    def examples(split: str, count: int) -> tuple[Example, ...]:
        return tuple(Example(f"{split}-{i}", f"{split} {i}", f"{i % 4}!") for i in range(count))

    def grade(example: Example, text: str) -> Grade:
        return Grade(float(len(text) % 2 == 0), f"{len(text)} characters")

    return Task(
        train=examples("train", 40),
        validation=examples("validation", 4),
        test=examples("test", 8),
        instruction="Write.",
        grade=grade,
        max_tokens=5,
    )


class Rare(TaskConfig):
    """Parameters of `rare`."""

    odds: int = Field(8, ge=1)
    """One completion in so many is right; of a large number none."""


@task(name="rare", version=1, source="made here")
def rare(config: Rare) -> Task:
    """Full marks for some completions, by their checksum; gold answers of 20 characters."""

    def examples(split: str, count: int) -> tuple[Example, ...]:
        return tuple(
            Example(f"{split}-{i}", f"{split} {i}", f"answer {i:03d} is longer")
            for i in range(count)
        )

    def grade(example: Example, text: str) -> Grade:
        return Grade(float(crc32(text.encode()) % config.odds == 0), "by its checksum")

    return Task(
        train=examples("train", 40),
        validation=examples("validation", 4),
        test=examples("test", 8),
        instruction="Write.",
        grade=grade,
        max_tokens=5,
    )


@task(name="letters", version=1, source="made here")
def letters(config: Letters) -> Task:
    """Share of the completion's characters that are wanted letters."""

    def examples(split: str, count: int) -> tuple[Example, ...]:
        return tuple(
            Example(f"{split}-{i}", f"{split} {i} {config.wanted[0]}", config.wanted)
            for i in range(count)
        )

    def grade(example: Example, text: str) -> Grade:
        share = sum(c in config.wanted for c in text) / max(1, len(text))
        return Grade(share, f"{share:.2f} of the characters are wanted")

    return Task(
        train=examples("train", config.train),
        validation=examples("validation", 6),
        test=examples("test", 10),
        instruction="Write letters.",
        grade=grade,
        max_tokens=6,
    )
