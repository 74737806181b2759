"""Makes the missing runs of an ablation, several at once, each by a command that a launcher places.

Each is started with `fastslow train` or `fastslow resume`. One that is killed or lost is started
again; a failure is recorded and the others continue. A run that another process still writes to,
such as one whose parent was killed, is waited for.
"""

import math
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fastslow.config.cost import estimate_cost
from fastslow.config.loading.load import dump_resolved
from fastslow.core.errors import CheckpointError
from fastslow.core.files import disk_errors, write_file
from fastslow.core.progress import Progress
from fastslow.core.text import shorten, visible
from fastslow.records.events import CycleEvent, EvaluationEvent, TextEvent
from fastslow.records.jsonl import read_events
from fastslow.records.lock import locked
from fastslow.records.tracking.build import prepare_tracking
from fastslow.results.ablation.launchers.base import End, Job, Launcher
from fastslow.results.ablation.launchers.process import POLL_S, stop_all
from fastslow.results.ablation.plan import Plan, PlannedRun, RunStatus
from fastslow.results.ablation.search import average_accuracy

MAX_STARTS = 3
"""How often a run is started without coming one resume point further. Source: ours."""
LOOK_S = 10.0
"""Between two readings of the rollouts of the runs under way."""
LOOK_SHARE = 0.2
"""Share of the time that looking at runs may take, however many there are."""
MOST_NAMES = 3
"""Runs that the progress line names."""
SLOW_UNITS = 3
"""Work of a slow rollout, which is drawn and trained on, in rollouts drawn; for progress alone."""


@dataclass
class Active:
    """A run that is being made."""

    run: PlannedRun
    job: Job
    log: Path


@dataclass
class Execution:
    """An ablation while its runs are made."""

    plan: Plan
    launcher: Launcher
    progress: Progress
    todo: list[PlannedRun]
    active: list[Active] = field(default_factory=list)
    starts: Counter[str] = field(default_factory=Counter)
    """How often a run was started since it came further, by its name."""
    points: dict[str, str] = field(default_factory=dict)
    """The newest resume point of a run when it was started, by its name."""
    failures: dict[str, str] = field(default_factory=dict)
    """Why a run did not come to its end, by its name."""
    scores: dict[str, float] = field(default_factory=dict)
    """Average accuracy of the run that ended last, by its name."""
    under_way: float = 0.0
    """Work that the active runs have done, as it was when they were looked at."""
    looked: float = -math.inf
    """When that was, on the monotonic clock."""


def execute(
    plan: Plan,
    launcher: Launcher,
    workers: int | None,
    make_progress: Callable[[float], Progress],
) -> dict[str, str]:
    """Make every run that is not finished; gives failures by names of runs.

    `workers` are made at once, by default as many as the launcher takes. `make_progress` takes the
    work to do, in rollouts drawn.

    Raises:
        CheckpointError: The folder cannot be written, or another process runs this ablation.
        AblationError: The launcher's cluster takes no jobs.
        KeyboardInterrupt: After the runs were told to stop and have stopped.
    """
    todo = [run for run, status in plan.statuses() if status.state != "finished"]
    workers = workers or launcher.num_jobs or len(todo)
    plan.folder.mkdir(parents=True, exist_ok=True)
    with locked(plan.folder) as lease, make_progress(sum(map(units, todo))) as progress:
        if todo:
            prepare_tracking(todo[0].config)
        doing = Execution(plan, launcher, progress, todo)
        try:
            while doing.todo or doing.active:
                began = time.monotonic()
                lease.require()
                collect(doing)
                begin(doing, workers)
                show(doing)
                time.sleep(max(POLL_S, (time.monotonic() - began) / LOOK_SHARE))
        finally:
            stop(doing.active)
    return doing.failures


def commands(plan: Plan) -> Iterator[str]:
    """A line for a shell for every run that is not finished and that nobody makes.

    Each begins in this folder, because paths in configurations start there.
    """
    for run, status in plan.statuses():
        if status.state not in ("finished", "running"):
            command = shlex.join(["fastslow", *command_words(run, status)])
            yield f"cd {shlex.quote(str(Path.cwd()))} && {command}"


def command_words(run: PlannedRun, status: RunStatus) -> list[str]:
    """What makes a run, or the rest of it: words behind `fastslow`."""
    return (
        ["resume", "--trust", str(status.path)]
        if status.path
        else ["train", str(write_config(run))]
    )


def begin(doing: Execution, workers: int) -> None:
    """Start runs while there is room; those that another process writes to wait."""
    if len(doing.active) >= workers:
        return
    for run, status in doing.plan.statuses(list(doing.todo)):
        if len(doing.active) >= workers:
            return
        if status.state == "running":
            continue
        doing.todo.remove(run)
        if status.state == "finished":  # by the process that was waited for
            ended(doing, run, status, None)
            continue
        point = newest_point(status.path)
        if point != doing.points.get(run.name):
            doing.points[run.name], doing.starts[run.name] = point, 0
        doing.starts[run.name] += 1
        log = doing.plan.folder / "logs" / f"{run.name}.log"
        job = doing.launcher.submit(command_words(run, status), log)
        doing.active.append(Active(run, job, log))
        verb = "resuming" if status.path else "starting"
        say(doing, f"{verb} {run.name} ({log})")


def collect(doing: Execution) -> None:
    """Take note of the runs that have ended."""
    ends = [(active, end) for active in doing.active if (end := active.job.poll()) is not None]
    if not ends:
        return
    statuses = doing.plan.statuses([active.run for active, _ in ends])
    for (active, end), (run, status) in zip(ends, statuses, strict=True):
        doing.active.remove(active)
        if status.state == "finished" or end.code == 0:
            ended(doing, run, status, None)
        elif is_to_go_on(doing, run, status, end):
            doing.todo.insert(0, run)
            doing.looked = -math.inf  # it is not among those under way
        else:
            ended(doing, run, status, f"{end}: {last_words(active.log)}")


def is_to_go_on(doing: Execution, run: PlannedRun, status: RunStatus, end: End) -> bool:
    """Whether a run that did not end well is tried again; says so."""
    is_alive = status.state == "running"  # in what a lost worker left, or for somebody else
    if not (end.is_death or is_alive):
        return False
    further = newest_point(status.path) != doing.points[run.name]
    if doing.starts[run.name] >= MAX_STARTS and not further and not is_alive:
        return False
    then = "another process writes to it, which is waited for" if is_alive else "started again"
    say(doing, f"died {run.name}: {end}; {then}")
    return True


def newest_point(path: Path | None) -> str:
    """Name of the newest resume point of a run; empty for none."""
    return max((point.name for point in path.glob("resume/[0-9]*")), default="") if path else ""


def last_words(log: Path) -> str:
    """The last line that a run wrote."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:  # it never began
        lines = []
    return shorten(next((line for line in reversed(lines) if line.strip()), "it said nothing"), 300)


def ended(doing: Execution, run: PlannedRun, status: RunStatus, failure: str | None) -> None:
    """Say how a run ended, and count it."""
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
    names = short_list([active.run.name for active in doing.active])
    waiting = short_list([run.name for run in doing.todo])
    activity = f"running {names}" if names else f"waiting for another process on {waiting}"
    num_open = len(doing.todo) + len(doing.active)
    if num_open:
        now = time.monotonic()
        if now - doing.looked >= LOOK_S:
            statuses = doing.plan.statuses([active.run for active in doing.active])
            paths = [(run, status.path) for run, status in statuses]
            work = [min(units(run), units_drawn(path)) for run, path in paths if path is not None]
            doing.looked, doing.under_way = now, sum(work)
        count = f"{len(doing.plan.runs) - num_open}/{len(doing.plan.runs)} runs done"
        doing.progress.show(f"{count}, {activity}", "", doing.under_way, doing.scores)


def short_list(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def stop(active: list[Active]) -> None:
    """Have the runs stop, and wait until they have."""
    jobs = [run.job for run in active if run.job.poll() is None]
    stop_all([job.stop for job in jobs], lambda: all(job.poll() is not None for job in jobs))


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


def say(doing: Execution, line: str) -> None:
    """Print a line above the progress line."""
    doing.progress.console.print(visible(line), markup=False, soft_wrap=True)
