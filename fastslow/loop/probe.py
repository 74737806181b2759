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
from fastslow.policy.adapter.parts import concatenated, freeze_trained, put_parts, start_fresh
from fastslow.policy.policy import Policy, seed_program
from fastslow.task.definition import Task


@dataclass(frozen=True)
class ProbeParts:
    """What a probe needs beside its settings."""

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
    parts: ProbeParts, settings: ProbeConfig, stage: Path, begin: Callable[[int, int], None]
) -> float:
    """Make every curve of a probe that is not there yet.

    Args:
        parts: What to probe with.
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
        for at, start in enumerate((0, row), start=1):
            begin(2 * seed + at, 2 * settings.seeds)
            name = f"probe/{parts.task.name}/row-{start:03d}-seed-{seed}.json"
            wanted = _wanted(parts, settings, start, seed)
            found = from_leader(_found(parts.run / name, wanted))
            if found is None:
                found = {**wanted, **_curve(parts, settings, stage if start else None, seed)}
                if is_leader():
                    _write(parts.run, name, found)
            seconds += float(found["seconds"])
    return seconds


def _wanted(parts: ProbeParts, settings: ProbeConfig, row: int, seed: int) -> dict[str, Json]:
    """What determines a curve."""
    return {
        "task": parts.task.name,
        "version": parts.task.version,
        "row": row,
        "seed": seed,
        "problems": parts.problems,
        "settings": settings.model_dump(mode="json", exclude={"task", "seeds"}),
    }


def _found(path: Path, wanted: Mapping[str, Json]) -> dict[str, Any] | None:
    """The curve kept in `path` if it was made with the same settings."""
    try:
        kept: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None  # not there, or cut off by a crash: it is made again
    return kept if all(kept.get(name) == value for name, value in wanted.items()) else None


def _curve(
    parts: ProbeParts, settings: ProbeConfig, stage: Path | None, seed: int
) -> dict[str, Json]:
    """One fresh run: validation scores at its start, in between and at its end."""
    started, before = time.monotonic(), parts.policy.engine.num_rollouts
    own = derive_seed(parts.seed, "probe", parts.task.name, seed)
    _take_start(parts.policy, settings, stage, derive_seed(own, "adapter"))
    weights = parts.policy.weights_fingerprint()
    channel = parts.make_channel()
    text = seed_program(parts.task)
    points = [parts.evaluator.validation_scores(parts.policy, parts.task, text)]
    at = [0]
    while at[-1] < settings.updates:
        steps = min(settings.score_every, settings.updates - at[-1])
        anchor = _anchor(parts, settings, own, at[-1], steps)
        seed_now = derive_seed(own, "updates", at[-1])
        channel.adapt(parts.policy, parts.task, anchor, seed_now, lambda *_: None)
        at.append(at[-1] + steps)
        points.append(parts.evaluator.validation_scores(parts.policy, parts.task, text))
    return {
        "weights": weights,
        "examples": sorted(points[0]),
        "at": at,
        "scores": [[point[example] for example in sorted(point)] for point in points],
        "rollouts": parts.policy.engine.num_rollouts - before,
        "seconds": time.monotonic() - started,
    }


def _take_start(policy: Policy, settings: ProbeConfig, stage: Path | None, seed: int) -> None:
    """Put the start's weights into the adapter; from the base a fresh one on nothing."""
    policy.populations.clear()
    policy.live.clear()
    if stage is None:
        put_parts(policy.model, concatenated(policy.model, frozen=False), 0)
        start_fresh(policy.model, seed)
        return
    policy.load(stage)
    policy.populations.clear()
    policy.live.clear()
    if settings.adapter == "merge":
        freeze_trained(policy.model, seed)


def _anchor(parts: ProbeParts, settings: ProbeConfig, seed: int, done: int, steps: int) -> Anchor:
    """The next batches; both starts meet the same ones in the same order."""
    stream = Stream(
        parts.task.name,
        parts.task.train,
        seed=seed,
        stage=0,
        num_cycles=1,
        steps=settings.updates,
        problems=parts.problems,
        pool=0,
    )
    batches = stream.anchor(0).batches[done : done + steps]
    return Anchor(0, 0, 1, batches, ())


def _write(run: Path, name: str, curve: Mapping[str, Json]) -> None:
    with disk_errors(run / name, "cannot be written", "probe again"):
        write_file(run, name, json.dumps(curve, indent=1, allow_nan=False) + "\n")
