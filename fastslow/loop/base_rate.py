"""What a base model does on a task before anything is trained: is there a reward to learn from?

Kept in the cache folder, under all that the figures depend on.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from statistics import fmean

from fastslow.config.loading.load import LoadedConfig
from fastslow.core.decode import shaped
from fastslow.core.errors import ModelError
from fastslow.core.files import read_json, write_file
from fastslow.core.seeds import derive_seed
from fastslow.core.types import Example, Sampling
from fastslow.loop.build import build_policy, build_tasks
from fastslow.measure.stats.intervals import score_interval
from fastslow.policy.calibration import rates_file
from fastslow.policy.model_store import cache_home, resolve
from fastslow.policy.policy import Policy, seed_program
from fastslow.task.contract import content_hash
from fastslow.task.definition import Task
from fastslow.task.guarded_grader import grade_all
from fastslow.task.summary import summarize


@dataclass(frozen=True, slots=True)
class Draws:
    """What is drawn at random, beside the greedy answers."""

    problems: int = 48
    """Train problems, the first ones."""
    group: int = 8
    """Rollouts of each, as in a group of GRPO."""
    temperature: float = 1.0
    """Of the rollouts; > 0."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class BaseRate:
    """The base model on one task, under the seed instruction alone."""

    task: str
    """`definition@version` with its variant."""
    content: str
    """See `content_hash`."""
    model: str
    instruction: str
    test: tuple[float, ...]
    """Scores of the greedy answers to the test split, in its order."""
    majority: float | None
    """Score of always giving the most frequent test answer; None where there are no classes."""
    rewards: tuple[tuple[float, ...], ...]
    """Scores of the rollouts, a tuple for each problem."""
    draws: Draws

    @property
    def greedy(self) -> float:
        """Mean score of the greedy answers, in [0, 1]."""
        return fmean(self.test)

    @property
    def reward(self) -> float:
        """Mean score of the rollouts, in [0, 1]."""
        return fmean(fmean(group) for group in self.rewards)

    @property
    def mixed(self) -> float:
        """Share of groups whose rollouts differ in score: those that GRPO learns from."""
        return fmean(float(len(set(group)) > 1) for group in self.rewards)

    def lines(self) -> list[str]:
        """For a person, a figure a line; names of tasks and models may be anybody's."""
        settings = self.draws
        rollouts = [score for group in self.rewards for score in group]
        problems = [index for index, group in enumerate(self.rewards) for _ in group]
        where = f"{len(self.rewards)} x {settings.group} at temperature {settings.temperature:g}"
        majority = "no classes" if self.majority is None else f"{self.majority:.2f}"
        return [
            f"{self.task} under {self.model}, {self.instruction!r} alone",
            f"greedy, test:     {self.greedy:.2f}{_interval(self.test)}, {len(self.test)} examples",
            f"majority, test:   {majority}",
            f"reward, train:    {self.reward:.2f}{_interval(rollouts, problems)}, {where}",
            f"groups to learn from: {self.mixed:.2f}, those whose rollouts differ in score",
        ]


def base_rate(loaded: LoadedConfig, name: str, draws: Draws) -> tuple[BaseRate, bool]:
    """The figures of one task of a configuration, and whether they were kept from before.

    Raises:
        ModelError: The model is not on this machine, or cannot be loaded.
        TaskError: The task cannot be built.
    """
    task = build_tasks(loaded, [name])[name]
    config = loaded.config
    model = resolve(config.model.name, config.model.revision)
    if not model.local:
        raise ModelError(
            f"tasks base-rate: {config.model.name!r} is not on this machine. Bring its folder here "
            "and give it as --model."
        )
    identity = [
        rates_file(Path(model.path_or_id), config.model.dtype, config.model.device),
        content_hash(task),
        asdict(draws),
    ]
    place = f"base_rates/{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]}.json"
    root = cache_home()
    try:
        return shaped(BaseRate, read_json(root / place)), True
    except (OSError, ValueError, TypeError):
        pass
    policy = build_policy(config, model.path_or_id, date.today())
    rate = _measured(policy, task, config.model.name, draws)
    root.mkdir(parents=True, exist_ok=True)
    write_file(root, place, json.dumps(asdict(rate)))
    return rate, False


def _measured(policy: Policy, task: Task, model: str, draws: Draws) -> BaseRate:
    problems = task.train[: draws.problems]
    rollouts = [problem for problem in problems for _ in range(draws.group)]
    rewards = _scores(policy, task, rollouts, draws.temperature, draws.seed)
    majority = summarize(task).test.majority
    return BaseRate(
        task=task.version,
        content=content_hash(task),
        model=model,
        instruction=task.instruction,
        test=tuple(_scores(policy, task, task.test, 0.0, draws.seed)),
        majority=None if majority is None else majority[1],
        rewards=tuple(
            tuple(rewards[start : start + draws.group])
            for start in range(0, len(rewards), draws.group)
        ),
        draws=draws,
    )


def _scores(
    policy: Policy, task: Task, examples: Sequence[Example], temperature: float, seed: int
) -> list[float]:
    program = seed_program(task)
    prompts = [policy.renderer.prompt_ids(program, example.question) for example in examples]
    seeds = [derive_seed(seed, "base-rate", place) for place in range(len(prompts))]
    sampling = Sampling(task.max_tokens, temperature=temperature)
    completions = policy.sampler.sample(prompts, sampling, seeds)
    answers = [(example, c.text) for example, c in zip(examples, completions, strict=True)]
    return [grade.score for grade in grade_all(task.grade, answers)]


def _interval(scores: Sequence[float], clusters: Sequence[int] | None = None) -> str:
    interval = score_interval(scores, clusters)
    return "" if interval is None else f" [{interval.low:.2f}, {interval.high:.2f}]"
