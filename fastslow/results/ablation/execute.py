"""Makes the missing runs of an ablation, several at once, each in a process of its own.

Each is started with `fastslow train` or `fastslow resume`. A failure is recorded and the others
continue. A run that another process still writes to, such as one whose parent was killed, is waited
for.
"""

import ctypes
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fastslow.config.cost import estimate_cost
from fastslow.config.ledger import TRAINED_UNITS
from fastslow.config.loading.load import dump_resolved
from fastslow.core.errors import CheckpointError
from fastslow.core.files import append_to, disk_errors, make_folder, read_json, write_file
from fastslow.core.progress import Progress
from fastslow.core.text import shorten, visible
from fastslow.records.events import CycleEvent, EvaluationEvent, TextEvent
from fastslow.records.jsonl import read_events
from fastslow.records.lock import locked
from fastslow.records.tracking.live import prepare_tracking
from fastslow.results.ablation.plan import Plan, PlannedRun

POLL_S = 0.2
"""Between two looks at the processes."""
STOP_S = 60.0
"""A run that is told to stop ends the step in hand; after this long it is told again."""
LOOK_S = 10.0
"""Between two readings of the rollouts of the runs under way."""
SLOW_UNITS = 1 + TRAINED_UNITS
"""Work of a slow rollout, which is drawn and trained on, in rollouts drawn; for progress alone."""


@dataclass
class Active:
    """A run that is being made."""

    run: PlannedRun
    process: subprocess.Popen[bytes]
    log: Path


@dataclass
class Execution:
    """An ablation while its runs are made."""

    plan: Plan
    progress: Progress
    todo: list[PlannedRun]
    active: list[Active] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """Why a run did not come to its end, by its name."""
    scores: dict[str, float] = field(default_factory=dict)
    """Average accuracy of the run that ended last, by its name."""
    under_way: float = 0.0
    """Work that the active runs have done, as it was when they were looked at."""
    looked: float = -math.inf
    """When that was, on the monotonic clock."""


def execute(plan: Plan, workers: int, make_progress: Callable[[float], Progress]) -> dict[str, str]:
    """Make every run that is not finished, `workers` at once; gives failures by names of runs.

    `make_progress` takes the work to do, in rollouts drawn.

    Raises:
        CheckpointError: The folder cannot be written, or another process runs this ablation.
        KeyboardInterrupt: After the runs were told to stop and have stopped.
    """
    todo = [run for run in plan.runs if plan.status_of(run).state != "finished"]
    plan.folder.mkdir(parents=True, exist_ok=True)
    with locked(plan.folder), make_progress(sum(map(units, todo))) as progress:
        if todo:
            prepare_tracking(todo[0].config)
        doing = Execution(plan, progress, list(todo))
        try:
            while doing.todo or doing.active:
                collect(doing)
                begin(doing, workers)
                show(doing)
                time.sleep(POLL_S)
        finally:
            stop(doing.active)
    return doing.failures


def begin(doing: Execution, workers: int) -> None:
    """Start runs while there is room; those that another process writes to wait."""
    for run in list(doing.todo):
        if len(doing.active) >= workers:
            return
        status = doing.plan.status_of(run)
        if status.state == "running":
            continue
        doing.todo.remove(run)
        if status.state == "finished":  # by the process that was waited for
            ended(doing, run, None)
            continue
        words = ["resume", str(status.path)] if status.path else ["train", str(write_config(run))]
        log = doing.plan.folder / "logs" / f"{run.name}.log"
        doing.active.append(Active(run, start(words, log, workers), log))
        verb = "resuming" if status.path else "starting"
        say(doing, f"{verb} {run.name} ({log})")


def collect(doing: Execution) -> None:
    """Take note of the runs that have ended."""
    for active in list(doing.active):
        code = active.process.poll()
        if code is not None:
            doing.active.remove(active)
            failure = None
            if code != 0:
                lines = active.log.read_text(errors="replace").splitlines()
                words = next((line for line in reversed(lines) if line.strip()), "it said nothing")
                failure = f"exit code {code}: {shorten(words, 300)}"
            ended(doing, active.run, failure)


def ended(doing: Execution, run: PlannedRun, failure: str | None) -> None:
    """Say how a run ended, and count it."""
    status = doing.plan.status_of(run)
    doing.progress.finish(units(run))
    doing.looked = -math.inf  # it was among those under way
    if failure is None and status.state != "finished":
        failure = f"ended without a result, its folder is {status.state}"
    if failure is not None:
        doing.failures[run.name] = failure
        say(doing, f"FAILED {run.name}: {failure}")
        return
    assert status.path is not None
    score = average_accuracy(status.path)
    doing.scores = {run.name: score} if score is not None else {}
    say(doing, f"finished {run.name}" + (f", average accuracy {score:.2f}" if doing.scores else ""))


def show(doing: Execution) -> None:
    """The progress line."""
    names = ", ".join(active.run.name for active in doing.active)
    waiting = ", ".join(run.name for run in doing.todo)
    activity = f"running {names}" if names else f"waiting for another process on {waiting}"
    num_open = len(doing.todo) + len(doing.active)
    if num_open:
        now = time.monotonic()
        if now - doing.looked >= LOOK_S:
            paths = [(active.run, doing.plan.status_of(active.run).path) for active in doing.active]
            work = [min(units(run), units_drawn(path)) for run, path in paths if path is not None]
            doing.looked, doing.under_way = now, sum(work)
        count = f"{len(doing.plan.runs) - num_open}/{len(doing.plan.runs)} runs done"
        doing.progress.show(f"{count}, {activity}", "", doing.under_way, doing.scores)


def stop(active: list[Active]) -> None:
    """Tell runs to stop as Ctrl-C would, and wait until they have; nothing when none is left."""
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        for run in active:
            if run.process.poll() is None:
                run.process.send_signal(sign)
        until = time.monotonic() + STOP_S
        while time.monotonic() < until and any(run.process.poll() is None for run in active):
            time.sleep(POLL_S)


def start(words: list[str], log: Path, workers: int) -> subprocess.Popen[bytes]:
    """Start `fastslow` with these words, its output appended to `log`.

    It is a process group of its own, so that Ctrl-C reaches it once, through us; where the system
    can, it is told to stop when we die.
    """
    with disk_errors(log, "cannot be written", "run the command again"):
        make_folder(log.parent.parent, log.parent.name)
        file = append_to(log)
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
    with file:
        return subprocess.Popen(
            [sys.executable, "-m", "fastslow", *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            process_group=0,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )


def _end_with_parent() -> None:
    """Ask Linux for SIGTERM when the parent is gone; and let Ctrl-C work under `&` too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def write_config(run: PlannedRun) -> Path:
    """The run's configuration as a file that `fastslow train` takes."""
    name = f"configs/{run.name}-{run.hash}.json"
    folder = Path(run.config.runs_dir)
    with disk_errors(folder / name, "cannot be written", "run the command again"):
        return write_file(folder, name, dump_resolved(run.config))


def units(run: PlannedRun) -> float:
    """Work of a whole run, in rollouts drawn."""
    cost = estimate_cost(run.config)
    sampled = cost.fast_rollouts + (cost.evaluation_rollouts or 0)
    return float(sampled + SLOW_UNITS * cost.slow_rollouts)


def units_drawn(path: Path) -> float:
    """Work that the records of a run folder show, as `units` counts it; for progress alone."""
    try:
        events = read_events(path / "events.jsonl")
    except CheckpointError:
        return 0.0  # not written yet; or damaged, which the run itself says
    work = 0.0
    for event in events:
        if isinstance(event, CycleEvent):
            work += event.rollouts.get("fast", 0) + SLOW_UNITS * event.rollouts.get("slow", 0)
        elif isinstance(event, EvaluationEvent | TextEvent):
            work += event.rollouts
    return work


def average_accuracy(path: Path) -> float | None:
    """From a finished run's report; None where it has none."""
    try:
        value = read_json(path / "report.json")["metrics"]["average_accuracy"]["value"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return None if value is None else float(value)


def say(doing: Execution, line: str) -> None:
    """Print a line above the progress line."""
    doing.progress.console.print(visible(line), markup=False, soft_wrap=True)
