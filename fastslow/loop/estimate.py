"""What a run will take on this machine: the cost estimate, fed with what lies here.

`fastslow check` prints it, and a run keeps it, so that it can be compared with what was taken.
"""

import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from fastslow.config.cost import Cost, estimate_cost
from fastslow.config.models import RunConfig
from fastslow.core.errors import ModelError
from fastslow.policy.calibration import measure_rates, read_rates, write_rates
from fastslow.policy.model_store import resolve
from fastslow.policy.token_lengths import TokenCounter
from fastslow.task.definition import Task


def estimate(config: RunConfig, tasks: Mapping[str, Task]) -> Cost:
    """The cost of a run of these tasks, with the rates that were measured here, if any were.

    Loads no model: texts are counted by the tokenizer's file, where the model is on this machine.
    """
    try:
        model = resolve(config.model.name, config.model.revision)
    except ModelError:
        return estimate_cost(config, tasks)
    folder = Path(model.path_or_id)
    if not model.local:
        return estimate_cost(config, tasks)
    try:
        count = TokenCounter(folder).tokens
    except ModelError:  # the loader says what is wrong with it
        return estimate_cost(config, tasks)
    rates = read_rates(folder, config.model.dtype, config.model.device)
    return estimate_cost(config, tasks, count, rates)


def calibrate(config: RunConfig) -> list[str]:
    """Load the model, measure its rates on this machine, and keep them for `estimate`.

    Returns:
        Names of the modules that the run's adapter is on; none without weight updates.

    Raises:
        ModelError: It is not on this machine, or cannot be loaded.
    """
    started = time.perf_counter()
    model = resolve(config.model.name, config.model.revision)
    if not model.local:
        raise ModelError(
            f"check --calibrate: {config.model.name!r} is not on this machine, so nothing can be "
            "measured. Bring its folder here and set model.name to it."
        )
    from fastslow.loop.build import build_policy  # imports torch

    policy = build_policy(config, model.path_or_id, date.today())
    rates = measure_rates(policy, time.perf_counter() - started)
    write_rates(Path(model.path_or_id), config.model.dtype, config.model.device, rates)
    return policy.adapters.modules()
