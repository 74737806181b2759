"""The plasticity probe: fresh runs on a held-out task from the base and from a stage's weights.

Same data, updates, optimizer and seeds on both sides, new optimizer state, the task's seed text.
A curve that is there already under the same settings is not made again.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastslow.channels.slow.settings import GrpoConfig, SftConfig, SlowConfig
from fastslow.config.evaluation import ProbeConfig
from fastslow.config.models import RunConfig
from fastslow.core.distributed import from_leader, is_leader
from fastslow.core.errors import CheckpointError
from fastslow.core.files import disk_errors, read_json, write_file
from fastslow.core.seeds import derive_seed
from fastslow.core.types import Json
from fastslow.loop.build import build_slow
from fastslow.loop.stream import probe_stream
from fastslow.measure.evaluator import Evaluator
from fastslow.policy.policy import Policy, seed_program
from fastslow.task.definition import Task


@dataclass(frozen=True)
class ProbeSetup:
    """What a probe works with."""

    run: Path
    """The run folder, the same in every process."""
    config: RunConfig
    """The run's own."""
    policy: Policy
    """Its adapter and texts are lost: give one whose run is over."""
    task: Task
    """Visited by no stage."""
    settings: ProbeConfig
    """Size and kind of the fresh runs."""


def probe(setup: ProbeSetup, stage: Path, begin: Callable[[int, int], None]) -> float:
    """Make every curve of a probe that is not there yet, of the weights in a stage's folder.

    `begin` takes the number of each fresh run before it starts, from 1, and how many there are. The
    result is the seconds that all curves took, those that were there already too.

    Raises:
        CheckpointError: The stage was not kept, or a curve cannot be written.
        ChannelError: A fresh run failed.
    """
    if not from_leader(stage.is_dir()):
        raise CheckpointError(
            f"{stage}: no such stage of this run. Known: folders under {stage.parent}. A probe "
            "starts from weights that a finished stage kept."
        )
    row = int(stage.name.partition("-")[0]) + 1
    seconds = 0.0
    for seed in range(setup.settings.seeds):
        for number, start in enumerate((0, row), start=1):
            begin(2 * seed + number, 2 * setup.settings.seeds)
            name = f"probe/{setup.task.name}/row-{start:03d}-seed-{seed}.json"
            identity: dict[str, Json] = {  # what determines a curve
                "task": setup.task.name,
                "version": setup.task.version,
                "row": start,
                "seed": seed,
                "problems": setup.config.cycle.problems,
                "settings": setup.settings.model_dump(mode="json", exclude={"task", "seeds"}),
            }
            curve = from_leader(_kept_curve(setup.run / name, identity))
            if curve is None:
                curve = {**identity, **_curve(setup, stage if start else None, seed)}
                if is_leader():
                    text = json.dumps(curve, indent=1, allow_nan=False) + "\n"
                    with disk_errors(setup.run / name, "cannot be written", "probe again"):
                        write_file(setup.run, name, text)
            seconds += float(curve["seconds"])
    return seconds


def _kept_curve(path: Path, identity: Mapping[str, Json]) -> dict[str, Any] | None:
    """The curve kept in `path` if it was made with the same settings."""
    try:
        curve: dict[str, Any] = read_json(path)
    except (OSError, ValueError):
        return None  # not there, or cut off by a crash: it is made again
    return curve if all(curve.get(name) == value for name, value in identity.items()) else None


def _curve(setup: ProbeSetup, stage: Path | None, seed: int) -> dict[str, Json]:
    """One fresh run: validation scores at its start, in between and at its end."""
    config, policy, task, settings = setup.config, setup.policy, setup.task, setup.settings
    started, before = time.monotonic(), policy.sampler.num_rollouts
    curve_seed = derive_seed(config.seed, "probe", task.name, seed)
    _take_start(policy, settings, stage, derive_seed(curve_seed, "adapter"))
    weights = policy.weights_fingerprint()
    channel = build_slow(_learner(config, settings), config.seed)
    evaluation, text = config.evaluation, seed_program(task)
    evaluator = Evaluator(
        evaluation.test_examples, evaluation.validation_examples, evaluation.split
    )
    # both starts meet the same batches in the same order
    stream = probe_stream(config, task, curve_seed, settings.updates)
    every_update = stream.anchor(0)
    points = [evaluator.validation_scores(policy, task, text)]
    updates = [0]
    while updates[-1] < settings.updates:
        first, last = updates[-1], min(updates[-1] + settings.score_every, settings.updates)
        anchor = replace(every_update, batches=every_update.batches[first:last])
        channel.adapt(
            policy, task, anchor, derive_seed(curve_seed, "updates", first), lambda *_: None
        )
        updates.append(last)
        points.append(evaluator.validation_scores(policy, task, text))
    return {
        "weights": weights,
        "examples": sorted(points[0]),
        "at": updates,
        "scores": [[point[example] for example in sorted(point)] for point in points],
        "rollouts": policy.sampler.num_rollouts - before,
        "seconds": time.monotonic() - started,
    }


def _take_start(policy: Policy, settings: ProbeConfig, stage: Path | None, seed: int) -> None:
    """Put the start's weights into the adapter; from the base a fresh one on nothing."""
    if stage is not None:
        policy.load(stage)
    policy.populations.clear()
    policy.live.clear()
    if stage is None:
        policy.adapters.restart(seed)
    elif settings.adapter == "merge":
        policy.adapters.freeze(seed)


def _learner(config: RunConfig, settings: ProbeConfig) -> SlowConfig:
    """The run's own slow channel where the probe is of that kind, else one with its defaults."""
    assert config.slow is not None
    kinds: dict[str, type[GrpoConfig | SftConfig]] = {"sft": SftConfig, "grpo": GrpoConfig}
    is_own_kind = config.slow.kind == settings.kind
    learner = config.slow if is_own_kind else kinds[settings.kind](lora=config.slow.lora)
    switched_off: dict[str, object] = dict.fromkeys(("kl_budget", "kl_budget_earlier", "shrink"))
    switched_off["remedies"] = ()
    if isinstance(learner, GrpoConfig):
        switched_off["guidance"] = None
    return learner.model_copy(update={"lr": settings.lr, "warmup_steps": 0, **switched_off})
