"""Builds the parts of a run from its configuration.

The one place where `kind` is matched. Configuration ends here; everything below receives plain
arguments.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastslow.channels.base import Channel
from fastslow.channels.fast.settings import (
    DemosKeys,
    FastConfig,
    GepaKeys,
    MiproKeys,
    ReflectiveSettings,
    SequenceConfig,
    SimbaKeys,
)
from fastslow.config.loading.load import LoadedConfig
from fastslow.config.models import RunConfig
from fastslow.config.slow import GrpoConfig, MinimalConfig, SlowConfig
from fastslow.core.seeds import derive_seed
from fastslow.loop.preflight import require_optuna
from fastslow.policy import model_store
from fastslow.policy.policy import Policy, load_policy, pick_device, with_adapter
from fastslow.task.definition import Task
from fastslow.task.guarded_grader import guard_graders
from fastslow.task.registry import build_task

if TYPE_CHECKING:
    from fastslow.channels.fast.optimizers.base import Optimizer
    from fastslow.channels.fast.reflection.lm import Reflection
    from fastslow.channels.slow.grpo import GrpoSettings
    from fastslow.channels.slow.minimal import KlBudget


def build_tasks(loaded: LoadedConfig) -> dict[str, Task]:
    """Every task of the run by name, in the order of the matrix.

    Raises:
        TaskError: A task's data cannot be had or breaks the contract.
    """
    config = loaded.config
    tasks = {
        name: build_task(
            name,
            config.task_use(name).use,
            loaded.task_params[name],
            allow_code=config.allow_code,
        )
        for name in config.task_names
    }
    return guard_graders(tasks, config.graders.timeout_s, config.graders.max_failures_frac)


def build_probe_task(loaded: LoadedConfig) -> Task | None:
    """The task of the run's probe; None without one.

    Raises:
        TaskError: Its data cannot be had or breaks the contract.
    """
    probe = loaded.config.probe
    if probe is None:
        return None
    use, params = loaded.config.task_use(probe.task).use, loaded.task_params[probe.task]
    task = build_task(probe.task, use, params, allow_code=loaded.config.allow_code)
    limits = loaded.config.graders
    return guard_graders({probe.task: task}, limits.timeout_s, limits.max_failures_frac)[probe.task]


def locate_model(config: RunConfig) -> str:
    """Folder or hub id of the base model.

    Raises:
        ModelError: It is not there; says how to get it.
    """
    return model_store.resolve(config.model.name, config.model.revision).path_or_id


def build_policy(config: RunConfig, path_or_id: str) -> Policy:
    """The base model, with a fresh adapter if the slow channel is on.

    Raises:
        ModelError: The model cannot be loaded, or takes no adapter as configured.
    """
    model = config.model
    policy = load_policy(
        path_or_id,
        revision=model.revision,
        dtype=model.dtype,
        device=pick_device(model.device),
    )
    if config.slow is None:
        return policy
    lora = config.slow.lora
    return with_adapter(
        policy,
        rank=lora.rank,
        alpha=lora.alpha,
        target_modules=lora.target_modules,
        seed=derive_seed(config.seed, "adapter"),
        placement=lora.placement,
    )


def build_channels(config: RunConfig) -> list[Channel]:
    """The run's channels, fast first."""
    channels: list[Channel] = []
    if config.fast is not None:
        channels.append(build_fast(config.fast))
    if config.slow is not None:
        own = {index: stage.lr for index, stage in enumerate(config.stages) if stage.lr}
        channels.append(build_slow(config.slow, own))
    return channels


def build_slow(slow: SlowConfig, stage_lrs: Mapping[int, float] | None = None) -> Channel:
    """The slow channel with its trainer; `stage_lrs` as in `SlowChannel`."""
    from fastslow.channels.slow.channel import SlowChannel

    if isinstance(slow, GrpoConfig):
        budget = build_kl_budget(slow)
        return SlowChannel(grpo_settings(slow), kl_budget=budget, stage_lrs=stage_lrs)
    from fastslow.channels.slow.sft import GoldTrainer, SftSettings

    names = SftSettings.__dataclass_fields__
    settings = SftSettings(**{name: getattr(slow, name) for name in names})
    return SlowChannel(settings, GoldTrainer, build_kl_budget(slow), stage_lrs)


def build_fast(fast: FastConfig) -> Channel:
    """The fast channel with its optimizer, and the optimizer's second language model.

    Raises:
        ConfigError: The optimizer needs a package that is not installed, or the model a key that is
            not in the environment.
    """
    from fastslow.channels.fast.channel import FastChannel
    from fastslow.channels.fast.optimizers.base import SequenceSearch
    from fastslow.channels.fast.reflection.lm import Reflection

    require_optuna(fast)
    reflection = Reflection(fast.reflection) if isinstance(fast, ReflectiveSettings) else None
    if not isinstance(fast, SequenceConfig):
        return FastChannel(fast, build_optimizer(fast, fast.population, reflection), reflection)
    steps = [build_optimizer(step, fast.population, reflection) for step in fast.steps]
    shared = zip(fast.shares, steps, strict=True)
    return FastChannel(fast, SequenceSearch(list(shared)), reflection)


def build_optimizer(
    keys: DemosKeys | GepaKeys | SimbaKeys | MiproKeys,
    population: int,
    reflection: "Reflection | None",
) -> "Optimizer":
    """One optimizer of texts."""
    if isinstance(keys, DemosKeys):
        from fastslow.channels.fast.optimizers.demos import DemosSearch

        return DemosSearch(keys.demonstrations, keys.demonstration_order)
    assert reflection is not None
    match keys:
        case GepaKeys():
            from fastslow.channels.fast.optimizers.gepa import GepaSearch

            return GepaSearch(keys.minibatch, population, reflection)
        case SimbaKeys():
            from fastslow.channels.fast.optimizers.simba import SimbaSearch

            return SimbaSearch(keys.demonstrations, keys.batch, keys.candidates, reflection)
        case MiproKeys():
            from fastslow.channels.fast.optimizers.mipro import MiproSearch

            return MiproSearch(keys.demonstrations, keys.candidates, reflection)


def build_kl_budget(slow: MinimalConfig) -> "KlBudget | None":
    """The slow channel's budget of KL to the base, if it has one."""
    from fastslow.channels.slow.minimal import KlBudget

    return KlBudget(slow.kl_budget, slow.kl_budget_rows) if slow.kl_budget else None


def grpo_settings(grpo: GrpoConfig) -> "GrpoSettings":
    """The slow channel's part of the configuration as plain data."""
    from fastslow.channels.slow.difficulty import DifficultySettings
    from fastslow.channels.slow.grpo import GrpoSettings

    given = {name: getattr(grpo, name) for name in GrpoSettings.__dataclass_fields__}
    return GrpoSettings(
        **given | {"difficulty": DifficultySettings(**grpo.difficulty.model_dump())}
    )
