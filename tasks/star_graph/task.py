"""Path-finding on star graphs: exact-match reward that a base model never meets by chance."""

from itertools import pairwise
from random import Random

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from fastslow.core.errors import TaskError
from fastslow.core.seeds import named_random
from fastslow.core.types import Example
from fastslow.task.definition import Task, TaskConfig, task
from fastslow.task.graders import boxed_match
from fastslow.task.splits import Splits, content_id, without_repeats


class StarGraph(TaskConfig):
    """Parameters of `star_graph`. The size knobs are `degree` and `path`."""

    degree: int = Field(3, ge=2, le=100)
    """D: arms that leave the source; guessing the arm succeeds once in D."""
    path: int = Field(3, ge=2, le=100)
    """P: nodes on each arm, the source included; the answer is P ids long."""
    nodes: int = Field(300, ge=3, le=100_000)
    """N: node ids are drawn without replacement from 0 to N - 1."""
    train: PositiveInt = 512
    """Examples in the train split."""
    validation: PositiveInt = 64
    """Examples in the validation split."""
    test: PositiveInt = 128
    """Examples in the test split."""
    seed: NonNegativeInt = 0
    """Which graphs are drawn."""
    max_tokens: PositiveInt = 64
    """Limit of one completion, in tokens; at least 4 per node of the path, and 8."""

    @model_validator(mode="after")
    def _graph_fits(self) -> "StarGraph":
        needed = 1 + self.degree * (self.path - 1)
        if needed > self.nodes:
            raise ValueError(
                f"degree = {self.degree} and path = {self.path} make a graph of {needed} nodes, "
                f"but nodes = {self.nodes}. Raise nodes, or lower degree or path."
            )
        return self


@task(name="star_graph", version=1, source="made here from a seed; after arXiv 2510.03971")
def star_graph(config: StarGraph) -> Task:
    r"""Path from the source of a star to one of its tips, boxed. Score in [0, 1], higher is better.

    All arms look alike near the source, so the arm must be found from the goal backwards; there
    is no partial credit.

    Source: the graphs of arXiv 2510.03971 (Degree-D-Path-P, ids from N = 300, edges as shuffled
    pairs, `\boxed{}` with comma-separated ids, reward 0 or 1), used at zero reward by Fast-Slow
    Training (arXiv 2605.12484). Wording and default sizes are ours.
    """
    taken: set[str] = set()
    test, validation, train = (
        _graphs(config, split, size, taken)
        for split, size in (
            ("test", config.test),
            ("validation", config.validation),
            ("train", config.train),
        )
    )
    return Task(
        *Splits(train=train, validation=validation, test=test),
        instruction=(
            "Find the path from the source to the goal. Give its node ids in order, separated by "
            r"commas, inside \boxed{}."
        ),
        grade=boxed_match,
        max_tokens=config.max_tokens,
    )


def _graphs(config: StarGraph, split: str, size: int, taken: set[str]) -> tuple[Example, ...]:
    stream = named_random(config.seed, "star_graph", split)
    examples: list[Example] = []
    for _ in range(10 * size):
        examples += without_repeats([_graph(config, stream)], taken)
        if len(examples) == size:
            return tuple(examples)
    raise TaskError(
        f"task star_graph: only {len(examples)} different graphs for the {split} split, got "
        f"{split} = {size}. Raise nodes, degree or path, or ask for fewer examples."
    )


def _graph(config: StarGraph, stream: Random) -> Example:
    source, *others = stream.sample(range(config.nodes), 1 + config.degree * (config.path - 1))
    length = config.path - 1
    arms = [[source, *others[i * length : (i + 1) * length]] for i in range(config.degree)]
    edges = [pair for arm in arms for pair in pairwise(arm)]
    stream.shuffle(edges)
    goal_arm = arms[stream.randrange(config.degree)]
    pairs = " ".join(f"({a},{b})" for a, b in edges)
    question = f"Edges: {pairs}\nSource: {source}\nGoal: {goal_arm[-1]}"
    path = ",".join(map(str, goal_arm))
    return Example(id=content_id(question), question=question, answer=rf"\boxed{{{path}}}")
