"""Builds the parts of a run from its configuration.

The one place where `kind` is matched. Configuration ends here; everything below receives plain
arguments.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

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
from fastslow.channels.slow.remedies.base import Remedy
from fastslow.channels.slow.remedies.shipped import remedy_of
from fastslow.channels.slow.settings import MinimalConfig, SlowConfig
from fastslow.config.engine import highest_rank
from fastslow.config.evaluation import EvaluationConfig
from fastslow.config.ledger import PARTS
from fastslow.config.loading.load import LoadedConfig
from fastslow.config.models import RunConfig
from fastslow.core.distributed import num_processes
from fastslow.core.errors import ConfigError
from fastslow.core.plugins import CustomUse
from fastslow.core.prompts import Demonstration
from fastslow.core.seeds import derive_seed
from fastslow.core.types import TokenIds
from fastslow.loop.preflight import require_optuna
from fastslow.measure.base import Measure
from fastslow.measure.model.route import route_measure
from fastslow.measure.model.shipped import SHIPPED_MEASURES, measure_of
from fastslow.policy.engine.settings import TorchConfig
from fastslow.policy.engine.vllm.proofs import PROOF, ROWS
from fastslow.policy.placement import pick_device, pick_dtype
from fastslow.policy.policy import Policy, load_policy, seed_program, with_adapter
from fastslow.policy.signals import SIGNALS, Signal, signal_of
from fastslow.task.definition import Task
from fastslow.task.guarded_grader import guard_graders
from fastslow.task.registry import build_task

if TYPE_CHECKING:
    from fastslow.channels.fast.optimizers.base import Optimizer
    from fastslow.channels.fast.reflection.lm import Reflection
    from fastslow.channels.slow.remedies.stack import Remedies
    from fastslow.channels.slow.trainer import MakeUpdates


T = TypeVar("T")

DEMONSTRATIONS = 8
"""Of a prompt that a server is proven by: two hundred tokens or so, some blocks of its cache."""
TAKEN_NAMES = ("overlap", "signals", *PARTS, *SHIPPED_MEASURES)
"""Names under which the package itself records figures or the cost of a part."""


def build_tasks(loaded: LoadedConfig, names: Iterable[str]) -> dict[str, Task]:
    """Tasks by name, in this order; names that the run does not use are built as `find_task` says.

    Raises:
        TaskError: A task's data cannot be had or breaks the contract.
    """
    config = loaded.config
    tasks = {
        name: build_task(
            name,
            config.task_use(name).use,
            loaded.task_params.get(name),
            allow_code=config.allow_code,
        )
        for name in names
    }
    return guard_graders(tasks, config.graders.timeout_s, config.graders.max_failures_frac)


def build_policy(config: RunConfig, path_or_id: str, day: date, dtype: str | None = None) -> Policy:
    """The base model, with a fresh adapter if the slow channel is on.

    `day` is today for chat templates that write the date: the one on which the run began. `dtype`
    is the number format it began with, for a run that goes on.

    Raises:
        ModelError: The model cannot be loaded, or takes no adapter as configured.
    """
    model = config.model
    device = pick_device(model.device)
    is_sharded = config.engine.sharding != "none" and num_processes() > 1
    policy = load_policy(
        path_or_id,
        revision=model.revision,
        dtype=dtype or pick_dtype(model.dtype, device),
        device="cpu" if is_sharded else device,
        template_arguments=model.chat_template_kwargs,
        day=day,
    )
    if is_sharded:
        policy.shard(device)
    if config.slow is None:
        return policy
    seed = derive_seed(config.seed, "adapter")
    return with_adapter(policy, **dict(config.slow.lora), seed=seed)


@contextlib.contextmanager
def drawing(
    config: RunConfig, policy: Policy, tasks: Iterable[Task], model: str, run: Path
) -> Iterator[None]:
    """Within it the policy's completions come from the run's engine.

    `tasks` give the prompts by which servers are proven, `model` is the base's folder or hub id,
    and `run` the run's folder.

    Raises:
        EngineError: A server does not answer, or does not draw with the policy's weights.
    """
    if isinstance(config.engine, TorchConfig):
        yield
        return
    from fastslow.policy.engine.vllm.sampler import vllm_sampler

    with vllm_sampler(
        policy,
        config.engine,
        model=model,
        rank=highest_rank(config),
        prompts=proof_prompts(policy, tasks),
        run=run,
    ) as sampler:
        policy.sampler = sampler
        yield


def proof_prompts(policy: Policy, tasks: Iterable[Task]) -> list[TokenIds]:
    """Prompts of all tasks by which servers are proven, with demonstrations where they fit.

    So they begin alike for some blocks, which a server caches: that is where stale weights hide.
    """
    limit = (policy.context_length or sys.maxsize) - PROOF.max_tokens
    prompts = []
    for task in tasks:
        examples = [Demonstration(e.question, e.answer) for e in task.train[:DEMONSTRATIONS]]
        long = replace(seed_program(task), demonstrations=tuple(examples))
        for example in task.train[-ROWS:]:
            prompt = policy.renderer.prompt_ids(long, example.question)
            if len(prompt) > limit:
                prompt = policy.renderer.prompt_ids(seed_program(task), example.question)
            prompts.append(prompt)
    return prompts[:: -(-len(prompts) // ROWS)]


def build_channels(config: RunConfig, tasks: Mapping[str, Task]) -> list[Channel]:
    """The run's channels, fast first."""
    channels: list[Channel] = []
    if config.fast is not None:
        channels.append(build_fast(config.fast))
    if config.slow is not None:
        channels.append(
            build_slow(
                config.slow,
                config.seed,
                visits=[(tasks[stage.task], stage.slow) for stage in config.stages],
                stage_lrs={i: stage.lr for i, stage in enumerate(config.stages) if stage.lr},
            )
        )
    return channels


def build_slow(
    slow: SlowConfig,
    seed: int,
    *,
    visits: Sequence[tuple[Task, bool]] = (),
    stage_lrs: Mapping[int, float] | None = None,
) -> Channel:
    """The slow channel with its trainer and remedies; see `SlowChannel`."""
    from fastslow.channels.slow.channel import SlowChannel

    module, _, name = slow.trainer.partition(":")
    trainer: MakeUpdates = getattr(importlib.import_module(module), name)
    remedies = build_remedies(slow, seed)
    return SlowChannel(slow, trainer, remedies, visits=visits, stage_lrs=stage_lrs, seed=seed)


def build_remedies(slow: MinimalConfig, seed: int) -> "Remedies":
    """The remedies of the slow channel, in the order they act; shrinking is the last thing."""
    from fastslow.channels.slow.remedies.adapter_policy import adapter_policy
    from fastslow.channels.slow.remedies.kl_budget import kl_budget, kl_budget_earlier
    from fastslow.channels.slow.remedies.shrink import shrink
    from fastslow.channels.slow.remedies.stack import Remedies

    remedies: list[tuple[str, Remedy]] = []
    if slow.adapter_policy != "continue":
        policy = adapter_policy(slow.adapter_policy, partial(derive_seed, seed, "adapter"))
        remedies.append(("adapter_policy", policy))
    for use in slow.remedies:
        definition, params = remedy_of(use)
        remedies.append((definition.name, definition.build(params)))
    if slow.kl_budget is not None:
        remedies.append(("kl_budget", kl_budget(slow.kl_budget, slow.kl_budget_rows)))
    if slow.kl_budget_earlier is not None:
        budget = kl_budget_earlier(slow.kl_budget_earlier, slow.kl_budget_rows)
        remedies.append(("kl_budget_earlier", budget))
    if slow.shrink is not None:
        scales_earlier = slow.adapter_policy == "continue"
        remedies.append(("shrink", shrink(slow.shrink, scales_earlier)))
    return Remedies(remedies)


def build_signals(evaluation: EvaluationConfig) -> dict[str, Signal]:
    """The signals that the configuration lists, by name.

    Raises:
        ConfigError: Two of them have one name, or the user's own has that of a shipped one.
    """
    signals: dict[str, Signal] = {}
    for use in evaluation.signals:
        name, signal = signal_of(use)
        if isinstance(use, CustomUse) and name in SIGNALS:
            raise ConfigError(
                f"evaluation.signals: {use.use} calls its signal {name!r}, which is the name of a "
                "shipped one. Give yours another name in its decorator."
            )
        _add(signals, "evaluation.signals", name, signal)
    return signals


def build_measures(evaluation: EvaluationConfig) -> dict[str, Measure]:
    """The measures that the configuration lists, by the name they are reported under.

    Raises:
        ConfigError: Two of them, or two signals, have one name.
    """
    measures: dict[str, Measure] = {}
    if signals := build_signals(evaluation):
        from fastslow.measure.model.signals import signal_measure

        measures["signals"] = signal_measure(signals)
    if evaluation.routers:
        from fastslow.measure.model.router import router_measure

        measures["router"] = router_measure(evaluation.routers)
    if evaluation.route is not None:
        measures["route"] = route_measure(evaluation.route)
    for listed in evaluation.measures:
        chosen, params = measure_of(listed)
        is_shipped = not isinstance(listed, CustomUse)
        path = "evaluation.measures"
        _add(measures, path, chosen.name, chosen.build(params), is_shipped=is_shipped)
    return measures


def _add(named: dict[str, T], path: str, name: str, value: T, *, is_shipped: bool = False) -> None:
    """Add a plug-in under its name, unless another has it, or we record something under it."""
    if name in named or (name in TAKEN_NAMES and not is_shipped):
        raise ConfigError(
            f"{path}: two of them are called {name!r}. List a shipped one once, and give yours "
            "another name in its decorator. Names that are taken: "
            f"{', '.join(dict.fromkeys([*TAKEN_NAMES, *named]))}."
        )
    named[name] = value


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
    from fastslow.channels.fast.optimizers.demos import DemosSearch
    from fastslow.channels.fast.optimizers.gepa import GepaSearch
    from fastslow.channels.fast.optimizers.mipro import MiproSearch
    from fastslow.channels.fast.optimizers.simba import SimbaSearch

    if isinstance(keys, DemosKeys):
        return DemosSearch(keys)
    assert reflection is not None
    if isinstance(keys, GepaKeys):
        return GepaSearch(keys, population, reflection)
    if isinstance(keys, SimbaKeys):
        return SimbaSearch(keys, reflection)
    return MiproSearch(keys, reflection)
