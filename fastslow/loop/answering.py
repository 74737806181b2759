"""Answers of a policy that a run kept, outside of the run."""

from collections.abc import Sequence
from pathlib import Path

from fastslow.core.errors import ConfigError, nearest
from fastslow.core.types import Sampling
from fastslow.loop.build import build_policy, build_tasks
from fastslow.policy.model_store import resolve
from fastslow.policy.placement import repeat_exactly
from fastslow.policy.policy import seed_program
from fastslow.policy.saved import KeptPolicy
from fastslow.records.run_card import read_day, read_dtype
from fastslow.records.trust import load_run


class Answering:
    """The base model of a run, which takes on the adapters that its stages left.

    Raises:
        ModelError: The base model is not on this machine, or cannot be loaded.
        CheckpointError: See `load_run`, for `trust` too.
    """

    def __init__(self, run: Path, trust: bool = False) -> None:
        self._loaded = load_run(run, trust)
        model = resolve(self._loaded.config.model.name, self._loaded.config.model.revision)
        self._policy = build_policy(
            self._loaded.config, model.path_or_id, read_day(run), read_dtype(run)
        )
        repeat_exactly(self._policy.device)

    def answers(
        self, saved: KeptPolicy, name: str, questions: Sequence[str], max_tokens: int | None = None
    ) -> list[str]:
        """Greedy answers under the prompt and the adapter that `saved` deploys the task with.

        Raises:
            ConfigError: The run has no such task.
            TaskError: The task cannot be built, and is needed for its prompt or its limit.
        """
        names = self._loaded.config.task_names
        if name not in names:
            raise ConfigError(f"predict: this run has no task {name!r}.{nearest(name, names)}")
        policy = self._policy
        if self._loaded.config.slow is not None:
            policy.load(saved.folder)
        program = saved.live.get(name)
        if program is None or max_tokens is None:
            task = build_tasks(self._loaded, [name])[name]
            program, max_tokens = program or seed_program(task), max_tokens or task.max_tokens
        prompts = [policy.renderer.prompt_ids(program, question) for question in questions]
        with policy.adapters.serving(name):
            completions = policy.sampler.sample(prompts, Sampling(max_tokens), [0] * len(prompts))
        return [completion.text for completion in completions]
