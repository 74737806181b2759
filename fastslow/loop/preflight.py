"""What this machine lacks for a run: a model's folder, a package of an extra, a key.

`fastslow check` notes it, as a run may be meant for another machine; `train` stops at it.
"""

import importlib.util
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fastslow.channels.fast.settings import (
    FastConfig,
    MiproKeys,
    ReflectiveSettings,
    SequenceConfig,
)
from fastslow.config.models import RunConfig
from fastslow.core.errors import ConfigError, ModelError, TaskError
from fastslow.core.text import shorten
from fastslow.policy.model_store import MODELS, resolve
from fastslow.task.definition import Task

if TYPE_CHECKING:
    from fastslow.policy.policy import Policy  # imports torch


def require_fit(policy: "Policy", tasks: Iterable[Task], teaches_gold: bool) -> None:
    """Make sure that every prompt and its answer fit under the task's seed text, in all splits.

    A model without a context length takes everything. `teaches_gold`: gold answers are trained on,
    which may be longer than completions.

    Raises:
        TaskError: One does not; names the longest, with its tokens and the model's.
    """
    from fastslow.policy.policy import seed_program

    if (limit := policy.context_length) is None:
        return
    for task in tasks:
        text, renderer = seed_program(task), policy.renderer
        frame, least = len(renderer.prompt_ids(text, "")), len(renderer.answer_ids(""))
        worst, tokens = "", 0
        for example in (*task.train, *task.validation, *task.test):
            gold = len(example.answer.encode()) + least if teaches_gold else 0
            # a token is a byte at least, so most need not be counted
            if frame + len(example.question.encode()) + max(task.max_tokens, gold) <= limit:
                continue
            answer = len(renderer.answer_ids(example.answer)) if teaches_gold else 0
            needed = len(renderer.prompt_ids(text, example.question)) + max(task.max_tokens, answer)
            if needed > tokens:
                worst, tokens = example.id, needed
        if tokens > limit:
            raise TaskError(
                f"task {task.name}: example {shorten(worst, 60)!r} needs {tokens} tokens, prompt "
                f"and answer of at most {task.max_tokens} together, but the model reads {limit}. "
                "Take a model with a longer context, shorten the task's instruction or max_tokens, "
                "or leave its long examples out."
            )


def lacking(config: RunConfig) -> list[str]:
    """What a run would stop at here, one sentence or two each; loads no model, asks no network."""
    fast, problems = config.fast, []
    if config.model.name not in MODELS:  # those are fetched when they are wanted
        try:
            resolve(config.model.name)
        except ModelError as err:
            problems.append(str(err))
    for require in (require_optuna, _require_key):
        try:
            if fast is not None:
                require(fast)
        except ConfigError as err:
            problems.append(str(err))
    return problems


def require_optuna(fast: FastConfig) -> None:
    """Make sure that the `mipro` optimizer finds the package it searches with.

    Raises:
        ConfigError: It does not.
    """
    steps = fast.steps if isinstance(fast, SequenceConfig) else (fast,)
    uses_it = any(isinstance(step, MiproKeys) for step in steps)
    if uses_it and importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            "fast.kind: mipro searches with the package optuna, which is not installed. "
            "Install it with: pip install 'fastslow[mipro]'"
        )


def _require_key(fast: FastConfig) -> None:
    """Make sure that the key of the reflection LM is in the environment; see `find_key`."""
    if isinstance(fast, ReflectiveSettings) and fast.reflection.model != "self":
        from fastslow.channels.fast.reflection.endpoint import find_key  # imports dspy

        reflection = fast.reflection
        find_key(reflection.model, reflection.api_base, reflection.api_key_env)
