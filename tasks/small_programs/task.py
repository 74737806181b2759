"""Small Python programs from a description, graded by running them in a closed room."""

from collections.abc import Callable, Sequence

from pydantic import Field, NonNegativeInt

from fastslow.core.seeds import named_random
from fastslow.core.types import Example
from fastslow.task.definition import Task, TaskConfig, task
from fastslow.task.sandbox.grader import Case, program_grader
from fastslow.task.splits import facts_to_splits

Formula = tuple[str, str, Callable[[int, int, int], int]]
"""A description with `a` and `b`, the same as Python over n, and as a function of n, a, b."""
FORMULAS: tuple[Formula, ...] = (
    ("{a} times n, plus {b}", "{a} * n + {b}", lambda n, a, b: a * n + b),
    ("{a} times the sum of n and {b}", "{a} * (n + {b})", lambda n, a, b: a * (n + b)),
    ("the square of n, plus {a}, minus {b}", "n ** 2 + {a} - {b}", lambda n, a, b: n**2 + a - b),
    ("{a} minus {b} times n", "{a} - {b} * n", lambda n, a, b: a - b * n),
)
NUMBERS = range(2, 10)
LARGEST_INPUT = 99


class SmallPrograms(TaskConfig):
    """Parameters of `small_programs`."""

    programs: int = Field(40, ge=12, le=224)
    """Descriptions, all splits together."""
    validation: int = Field(8, ge=1, le=60)
    """Examples in the validation split."""
    test: int = Field(12, ge=1, le=100)
    """Examples in the test split; train gets what is left."""
    inputs: int = Field(2, ge=1, le=10)
    """Inputs that a program is run with; it must answer all of them."""
    split_seed: NonNegativeInt = 0
    """Which descriptions are taken, and into which split."""


@task(name="small_programs", version=1, source="made here", runs_code=True)
def small_programs(config: SmallPrograms) -> Task:
    """A Python program that reads n and prints a formula of it. Score in [0, 1], higher is better.

    Full marks for a program that prints the right number for every input, whatever else it is.
    """
    described = {
        f"Read a whole number n. Print {words.format(a=a, b=b)}.": (code, formula, a, b)
        for words, code, formula in FORMULAS
        for a in NUMBERS
        for b in NUMBERS
        if a != b
    }
    chosen = sorted(described)
    named_random(config.split_seed, "small_programs").shuffle(chosen)
    gold = {
        question: f"n = int(input())\nprint({code.format(a=a, b=b)})"
        for question in chosen[: config.programs]
        for code, _, a, b in (described[question],)
    }

    draw = named_random(config.split_seed, "small_programs", "inputs")
    inputs = draw.sample(range(-LARGEST_INPUT, LARGEST_INPUT + 1), config.inputs)

    def cases(example: Example) -> Sequence[Case]:
        _, formula, a, b = described[example.question]
        return [Case(f"{n}\n", f"{formula(n, a, b)}") for n in inputs]

    return Task(
        *facts_to_splits(
            gold, validation=config.validation, test=config.test, seed=config.split_seed
        ),
        instruction="Write a Python program.",
        grade=program_grader(cases),
        max_tokens=64,
    )
