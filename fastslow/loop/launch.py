"""Starts, resumes and probes runs: has the parts built, hands them to the loop."""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path

from rich.console import Console

from fastslow.channels.base import Channel
from fastslow.channels.slow.settings import SftConfig
from fastslow.config.evaluation import ProbeConfig
from fastslow.config.loading.load import LoadedConfig
from fastslow.config.models import RunConfig
from fastslow.core.distributed import connect, disconnect, from_leader, is_leader, num_processes
from fastslow.core.errors import CheckpointError, ConfigError, EngineError
from fastslow.core.progress import Progress
from fastslow.core.seeds import derive_seed, load_generators, seed_generators
from fastslow.core.text import shorten, visible
from fastslow.loop import stages
from fastslow.loop.build import (
    build_channels,
    build_measures,
    build_policy,
    build_tasks,
    drawing,
)
from fastslow.loop.engine import require_servers
from fastslow.loop.estimate import estimate, price
from fastslow.loop.preflight import require_earned, require_fit, require_hints
from fastslow.loop.probe import ProbeSetup
from fastslow.loop.probe import probe as run_probe
from fastslow.loop.run import Run, stage_folder
from fastslow.loop.signals import StopRequest
from fastslow.loop.stream import require_problems
from fastslow.measure.base import Measure
from fastslow.policy.calibration import num_parameters, peak_gb
from fastslow.policy.engine.settings import TorchConfig
from fastslow.policy.model_store import resolve
from fastslow.policy.placement import pick_device, repeat_exactly
from fastslow.policy.policy import Policy
from fastslow.records.continuation import load_continued
from fastslow.records.data import require_same_data
from fastslow.records.events import DataEvent, RunEvent
from fastslow.records.jsonl import read_events
from fastslow.records.lock import State
from fastslow.records.new_folder import stage_path
from fastslow.records.publishing import require_publishing
from fastslow.records.run_card import read_day, read_dtype
from fastslow.records.run_folder import RunDir
from fastslow.records.state import RunState
from fastslow.records.tracking.build import build_tracking, require_trackers
from fastslow.records.trust import load_run
from fastslow.task.contract import with_checked_grader
from fastslow.task.definition import Task
from fastslow.task.summary import summarize

TRUST_S, TRUST_FRAC = 60.0, 0.2
"""The estimate counts like so many seconds of the run in predicting what remains of it, and like
such a share of a short one. Source: ours, tried on the times of the kept runs."""
UP_TO_TIES = (
    "completions are drawn by a server: they are those of a run that was never stopped but where "
    "two tokens are all but equally likely, which a server's rounding decides; docs/scale.md"
)


def train(
    loaded: LoadedConfig, command: Sequence[str], finish: Callable[[Path], Sequence[Path]]
) -> Path:
    """Start a run, take it to its end, and give its folder; `command` is for the record.

    `finish` writes the reports of a run folder and gives the files to be tracked.

    Raises:
        FastSlowError: See `run`; and what is wrong with tasks or model, before a folder is made.
    """
    config, layers = loaded.config, loaded.layers
    require_earned(config)
    day = config.model.date or date.today()

    def make(policy: Policy, tasks: Mapping[str, Task]) -> RunDir:
        device, dtype = policy.device, policy.dtype
        return RunDir.create(config, layers, command, device, day, tasks, dtype)

    return _build_and_run(loaded, make, finish, day)


def resume(
    path: Path,
    finish: Callable[[Path], Sequence[Path]],
    overrides: Sequence[str] = (),
    trust: bool = False,
) -> Path:
    """Continue a run from its last resume point, under these `key=value` words; see `train`.

    For `trust` see `load_run`.

    Raises:
        CheckpointError: It is not a run folder, is being written, has no usable resume point, or
            was made on other data.
        ConfigError: An override could change results.
    """
    RunDir.require(path)
    loaded = load_continued(path, overrides, trust)
    if overrides:
        require_earned(loaded.config)

    def reopen(policy: Policy, tasks: Mapping[str, Task]) -> RunDir:
        run_dir = RunDir.open(path)
        if overrides:
            run_dir.reconfigure(loaded.config, overrides)
        return run_dir

    return _build_and_run(loaded, reopen, finish, read_day(path), begun=path)


def _build_and_run(
    loaded: LoadedConfig,
    make: Callable[[Policy, Mapping[str, Task]], RunDir],
    finish: Callable[[Path], Sequence[Path]],
    day: date,
    begun: Path | None = None,
) -> Path:
    """Build the parts of a run, then make or open its folder, and run.

    `make` is given the policy and the tasks, the probe's included; `day` is when the run began, for
    chat templates that write the date; `begun` is the folder of a run that must go on with the same
    data.
    """
    config, stop = loaded.config, StopRequest()
    require_trackers(config)
    require_publishing(config)
    tasks = build_tasks(loaded, config.task_names)
    probed = build_tasks(loaded, [config.probe.task] if config.probe else [])
    require_problems(config, tasks | probed)
    if begun is not None:
        require_same_data(begun, tasks | probed)
    tasks = {name: with_checked_grader(task) for name, task in tasks.items()}
    channels, measures = build_channels(config, tasks), build_measures(config.evaluation)
    model = resolve(config.model.name, config.model.revision)
    require_servers(config, model.path_or_id)
    with stop.catching(), connected(config):
        dtype = None if begun is None else read_dtype(begun)
        policy = build_policy(config, model.path_or_id, from_leader(day), dtype)
        every_task = [*tasks.values(), *probed.values()]
        require_fit(
            policy,
            every_task,
            teaches_gold=isinstance(config.slow, SftConfig),
            shows_answer=config.slow is not None and config.slow.shows_answer,
        )
        require_hints(policy, config, tasks)
        cost = estimate(config, tasks | probed)
        with (
            run_folder(config, lambda: make(policy, tasks | probed)) as run_dir,
            resumable(run_dir.path),
            drawing(config, policy, every_task, model.path_or_id, run_dir.path),
        ):
            run_dir.keep_estimate(cost)
            if begun is not None and not isinstance(config.engine, TorchConfig):
                run_dir.warnings.append(UP_TO_TIES)
            return _run_in(run_dir, config, tasks, policy, channels, measures, finish, probed, stop)


def probe(path: Path, name: str, stage: int | None = None, trust: bool = False) -> None:
    """Probe a run's plasticity on a task that none of its stages visits; see `probe.probe`.

    The task is a key of the run's `tasks`, or what `find_task` takes. Weights are those of a stage,
    from 1; by default of the last.

    Raises:
        CheckpointError: It is not a run folder, is being written, or did not keep that stage.
        ConfigError: A stage visits the task, or the run has no weights that learn.
    """
    RunDir.require(path)
    loaded = load_run(path, trust)
    config = loaded.config
    visited = [stage_config.task for stage_config in config.stages]
    if name in visited or config.slow is None:
        why = "a stage of this run trains on it" if name in visited else "slow is null in this run"
        raise ConfigError(
            f"probe --task: a task held out of the sequence and an adapter, got {name!r}: {why}. "
            f"Stages: {', '.join(visited)}. Name another task, or probe another run."
        )
    settings = config.probe or ProbeConfig(task=name)
    settings = settings.model_copy(update={"task": name})
    task = build_tasks(loaded, [name])[name]
    require_same_data(path, {name: task})
    model = resolve(config.model.name, config.model.revision)
    index = len(visited) if stage is None else stage
    if not 1 <= index <= len(visited):
        raise ConfigError(f"probe --stage: expected 1 to {len(visited)}, got {index}.")
    require_servers(config, model.path_or_id)
    with connected(config), run_folder(config, lambda: RunDir.open(path)) as run_dir:
        policy = build_policy(config, model.path_or_id, read_day(path), read_dtype(path))
        folder = path / stage_path(index - 1, visited[index - 1])
        setup = ProbeSetup(path, config, policy, task, settings)
        with drawing(config, policy, [task], model.path_or_id, run_dir.path):
            run_probe(setup, folder, lambda *_: None)


@contextlib.contextmanager
def connected(config: RunConfig) -> Iterator[None]:
    """Join the other processes of this run, if there are any, and part from them at the end.

    Raises:
        ConfigError: The rollouts of an update cannot be shared out evenly.
    """
    rows = config.cycle.problems * (config.slow.rollouts_per_problem if config.slow else 1)
    if rows % num_processes():
        raise ConfigError(
            f"cycle.problems x slow.group = {rows} rollouts of an update cannot be shared out "
            f"evenly among {num_processes()} processes. Use a number of processes that divides it."
        )
    device = pick_device(config.model.device)
    repeat_exactly(device)
    connect(device)
    try:
        yield
    finally:
        disconnect()


@contextlib.contextmanager
def run_folder(config: RunConfig, make: Callable[[], RunDir]) -> Iterator[RunDir]:
    """The run folder in the leader; in other processes one that is thrown away."""
    if is_leader():
        with make() as run_dir:
            yield run_dir
        return
    with tempfile.TemporaryDirectory() as unused:
        scratch = config.model_copy(update={"runs_dir": unused})
        with RunDir.create(scratch, {}, ()) as run_dir:
            yield run_dir


@contextlib.contextmanager
def resumable(path: Path) -> Iterator[None]:
    """Say how to go on where what draws completions fails, outside of a stage too."""
    try:
        yield
    except EngineError as err:
        raise EngineError(f"{err} Continue with: fastslow resume {path}") from err


def restore(run_dir: RunDir, policy: Policy, channels: Sequence[Channel]) -> RunState:
    """Bring policy and channels back to the newest resume point that is whole, if there is one.

    Raises:
        CheckpointError: There are resume points, but none can be used.
    """
    saved = from_leader(run_dir.load_state())
    if saved is None:
        return RunState()
    state, point = saved
    try:
        policy.load(point / "policy")
        for channel in channels:
            channel.load(point / channel.name)
        load_generators(point)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{point}: passed its checksums but was not made by this program, got "
            f"{type(error).__name__}: {shorten(str(error), 200)}. Remove it to use the one before, "
            "or start a new run."
        ) from error
    return state


def _run_in(
    run_dir: RunDir,
    config: RunConfig,
    tasks: Mapping[str, Task],
    policy: Policy,
    channels: Sequence[Channel],
    measures: Mapping[str, Measure],
    finish: Callable[[Path], Sequence[Path]],
    probed: Mapping[str, Task],
    stop: StopRequest,
) -> Path:
    """Restore what there is, run, probe, and leave the folder saying how it ended."""
    stop.is_patient = True  # what is said before the first step counts after it
    seed_generators(derive_seed(config.seed, "generators"))
    state = restore(run_dir, policy, channels)
    tracker = build_tracking(config, run_dir.path, is_on=is_leader())
    # bound to the stream as it is now: DSPy's output is caught while texts are evolved
    # plain lines in a notebook too, where rich would make a cell's output of each
    console = Console(file=sys.stderr, highlight=False, quiet=not is_leader(), force_jupyter=False)
    prices = price(config, {**tasks, **probed})
    ahead_s = prices.remaining_s(state.base_done, state.next_stage, state.next_cycle)
    if not any(isinstance(event, DataEvent) for event in read_events(run_dir.events.path)):
        run_dir.events.append(*(DataEvent(summarize(task)) for task in tasks.values()))
    run_dir.mark("running")
    outcome: State = "failed"
    trust_s = min(TRUST_S, TRUST_FRAC * ahead_s)
    with Progress(ahead_s, console, trust_s) as progress, tracker.run():
        progress.listener = run_dir.progress_writer(state.seconds)
        progress.listener("starting", "", 0.0, None)
        notes = [f"data of {t.name}: {visible(note)}" for t in tasks.values() for note in t.notes]
        for line in (f"run folder: {run_dir.path}", *run_dir.warnings, *notes):
            progress.console.print(line, markup=False, soft_wrap=True)
        run = Run(
            *(config, tasks, policy, channels, tracker, run_dir),
            *(progress, prices, state, measures, stop),
        )
        tracker.data({name: run.evaluator.test_sample(task) for name, task in tasks.items()})
        try:
            stages.run(run)
            stop.is_patient = False  # all that is left is made again when the run is resumed
            if config.probe is not None:
                task = probed[config.probe.task]
                state.seconds += _probe_last_stage(run, config.probe, task)
            outcome = "finished"
        except KeyboardInterrupt as end:
            outcome = "interrupted"
            end.add_note(f"fastslow resume {run_dir.path}")
            raise
        finally:
            stop.is_patient, stop.is_held = False, True  # half marked, it would seem to run on
            _leave(run_dir, outcome, state, policy)
            stop.is_held = False
        try:
            stop.obey()  # what came after the last step
            for file in finish(run_dir.path) if is_leader() else ():
                tracker.artifact(file)
            run.publisher.push()
        except KeyboardInterrupt as end:
            end.add_note(f"fastslow report {run_dir.path}")
            raise
    return from_leader(run_dir.path)


def _leave(run_dir: RunDir, outcome: State, state: RunState, policy: Policy) -> None:
    """Have the folder say how the run ended.

    Raises:
        CheckpointError: The disk refused, and the run did not fail anyway.
    """
    try:
        seconds, memory_gb = (state.seconds, state.saving_seconds), peak_gb(policy.device)
        run_dir.events.append(RunEvent(outcome, *seconds, memory_gb, *num_parameters(policy)))
        run_dir.mark(outcome)
    except CheckpointError:
        if outcome == "finished":  # else the error that stopped the run says more
            raise


def _probe_last_stage(run: Run, settings: ProbeConfig, task: Task) -> float:
    """The run's own probe, of the weights it ended with; seconds. The policy is used up."""
    place = from_leader(run.run_dir.path)
    last = from_leader(stage_folder(run, len(run.config.stages) - 1))

    def begin(curve: int, curves: int) -> None:
        if curve > 1:
            run.progress.finish(run.price.curve_s(settings))
        run.progress.show(f"probe on {task.name}, fresh run {curve}/{curves}", "", 0, {})

    return run_probe(ProbeSetup(place, run.config, run.policy, task, settings), last, begin)
