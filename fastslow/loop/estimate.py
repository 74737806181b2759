"""What a run will take on this machine: the cost estimate, fed with what lies here.

`fastslow check` prints it, and a run keeps it, so that it can be compared with what was taken. The
progress line weighs the parts of a run by it.
"""

import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

from fastslow.config.cost import REFERENCE, Cost, estimate_cost, model_shape, reference_rates
from fastslow.config.ledger import Ledger
from fastslow.config.lengths import task_lengths
from fastslow.config.models import RunConfig
from fastslow.config.price import Price
from fastslow.core.errors import ModelError
from fastslow.policy.calibration import Rates, measure_rates, read_rates, write_rates
from fastslow.policy.model_store import resolve
from fastslow.policy.token_lengths import TokenCounter
from fastslow.task.definition import Task


def estimate(config: RunConfig, tasks: Mapping[str, Task]) -> Cost:
    """The cost of a run of these tasks, with the rates that were measured here, if any were.

    Loads no model: texts are counted by the tokenizer's file, where the model is on this machine.
    """
    return estimate_cost(config, tasks, *_measured(config))


def price(config: RunConfig, tasks: Mapping[str, Task]) -> Price:
    """What the parts of a run take, by the same rates.

    Those of a model of unknown size are of one as large as the reference's: its parts are right in
    proportion.
    """
    count, rates = _measured(config)
    shape = model_shape(config.model.name)
    rates = rates or (reference_rates(config, shape) if shape else REFERENCE)
    return Price(Ledger(config, tasks), task_lengths(tasks, count), rates)


def _measured(config: RunConfig) -> tuple[Callable[[str], int] | None, Rates | None]:
    """How the tokens of a text are counted, and rates measured here; None where there are none."""
    try:
        model = resolve(config.model.name, config.model.revision)
        folder = Path(model.path_or_id)
        count = TokenCounter(folder).tokens if model.local else None
    except ModelError:  # the loader says what is wrong with it
        return None, None
    if count is None:
        return None, None
    return count, read_rates(folder, config.model.dtype, config.model.device)


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
