"""The plasticity probe: fresh runs on a held-out task from the base and from a stage's weights.

Same data, updates, optimizer and seeds on both sides, new optimizer state, the task's seed text.
The curves are kept in the run folder under `probe/`; `measure/scores/plasticity.py` computes what
they say. A curve that is there already under the same settings is not made again.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastslow.channels.base import Channel
from fastslow.config.evaluation import ProbeConfig
from fastslow.core.distributed import from_leader, is_leader
from fastslow.core.errors import CheckpointError
from fastslow.core.files import disk_errors, write_file
from fastslow.core.seeds import derive_seed
from fastslow.core.types import Anchor, Json
from fastslow.loop.stream import Stream
from fastslow.measure.evaluator import Evaluator
from fastslow.policy.policy import Policy, seed_program
from fastslow.task.definition import Task


@dataclass(frozen=True)
class ProbeSetup:
    """What a probe needs in addition to its settings."""

    run: Path
    """The run folder, the same in every process."""
    policy: Policy
    """Its adapter and texts are lost: give one whose run is over."""
    task: Task
    """Visited by no stage."""
    evaluator: Evaluator
    """Gives the validation sample, which the curves are measured on."""
    make_channel: Callable[[], Channel]
    """A slow channel without any state, one for each fresh run."""
    problems: int
    """Problems of one update."""
    seed: int
    """The run's seed."""


def probe(
    setup: ProbeSetup, settings: ProbeConfig, stage: Path, begin: Callable[[int, int], None]
) -> float:
    """Make every curve of a probe that is not there yet.

    Args:
        setup: What to probe with.
        settings: Size and kind of the fresh runs.
        stage: Folder of the stage whose weights are probed, as the loop keeps it.
        begin: Told before each fresh run its number, from 1, and how many there are.

    Returns:
        Seconds that all its curves took, those that were there already too.

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
    for seed in range(settings.seeds):
        for number, start in enumerate((0, row), start=1):
            begin(2 * seed + number, 2 * settings.seeds)
            name = f"probe/{setup.task.name}/row-{start:03d}-seed-{seed}.json"
            identity = _identity(setup, settings, start, seed)
            curve = from_leader(_kept_curve(setup.run / name, identity))
            if curve is None:
                curve = {**identity, **_curve(setup, settings, stage if start else None, seed)}
                if is_leader():
                    _write(setup.run, name, curve)
            seconds += float(curve["seconds"])
    return seconds


def _identity(setup: ProbeSetup, settings: ProbeConfig, row: int, seed: int) -> dict[str, Json]:
    """What determines a curve."""
    return {
        "task": setup.task.name,
        "version": setup.task.version,
        "row": row,
        "seed": seed,
        "problems": setup.problems,
        "settings": settings.model_dump(mode="json", exclude={"task", "seeds"}),
    }


def _kept_curve(path: Path, identity: Mapping[str, Json]) -> dict[str, Any] | None:
    """The curve kept in `path` if it was made with the same settings."""
    try:
        curve: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None  # not there, or cut off by a crash: it is made again
    return curve if all(curve.get(name) == value for name, value in identity.items()) else None


def _curve(
    setup: ProbeSetup, settings: ProbeConfig, stage: Path | None, seed: int
) -> dict[str, Json]:
    """One fresh run: validation scores at its start, in between and at its end."""
    started, before = time.monotonic(), setup.policy.sampler.num_rollouts
    curve_seed = derive_seed(setup.seed, "probe", setup.task.name, seed)
    _take_start(setup.policy, settings, stage, derive_seed(curve_seed, "adapter"))
    weights = setup.policy.weights_fingerprint()
    channel = setup.make_channel()
    text = seed_program(setup.task)
    points = [setup.evaluator.validation_scores(setup.policy, setup.task, text)]
    updates = [0]
    while updates[-1] < settings.updates:
        steps = min(settings.score_every, settings.updates - updates[-1])
        anchor = _anchor(setup, settings, curve_seed, updates[-1], steps)
        seed_now = derive_seed(curve_seed, "updates", updates[-1])
        channel.adapt(setup.policy, setup.task, anchor, seed_now, lambda *_: None)
        updates.append(updates[-1] + steps)
        points.append(setup.evaluator.validation_scores(setup.policy, setup.task, text))
    return {
        "weights": weights,
        "examples": sorted(points[0]),
        "at": updates,
        "scores": [[point[example] for example in sorted(point)] for point in points],
        "rollouts": setup.policy.sampler.num_rollouts - before,
        "seconds": time.monotonic() - started,
    }


def _take_start(policy: Policy, settings: ProbeConfig, stage: Path | None, seed: int) -> None:
    """Put the start's weights into the adapter; from the base a fresh one on nothing."""
    policy.populations.clear()
    policy.live.clear()
    if stage is None:
        policy.adapters.restart(seed)
        return
    policy.load(stage)
    policy.populations.clear()
    policy.live.clear()
    if settings.adapter == "merge":
        policy.adapters.freeze(seed)


def _anchor(setup: ProbeSetup, settings: ProbeConfig, seed: int, first: int, steps: int) -> Anchor:
    """The next batches; both starts meet the same ones in the same order."""
    stream = Stream(
        setup.task.name,
        setup.task.train,
        seed=seed,
        stage=0,
        num_cycles=1,
        steps=settings.updates,
        problems=setup.problems,
        pool=0,
    )
    batches = stream.anchor(0).batches[first : first + steps]
    return Anchor(0, 0, 1, batches, ())


def _write(run: Path, name: str, curve: Mapping[str, Json]) -> None:
    with disk_errors(run / name, "cannot be written", "probe again"):
        write_file(run, name, json.dumps(curve, indent=1, allow_nan=False) + "\n")
