"""What an ablation does with the jobs of a launcher, whichever it is."""

import io
import json
import shlex
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console

from fastslow.cli import ablate as command
from fastslow.cli.main import main
from fastslow.core import files
from fastslow.core.errors import ConfigError
from fastslow.core.progress import Progress
from fastslow.records.lease import LEASE_FOLDER
from fastslow.records.run_folder import RunDir
from fastslow.results.ablation import Plan, execute, read_plan
from fastslow.results.ablation import plan as plans
from fastslow.results.ablation.launchers import local
from fastslow.results.ablation.launchers.base import End, Share

BASE = """
name: base
stages: [{task: country_continent, cycles: 1}]
fast: null
slow: null
runs_dir: out
tracking: null
"""
FILE = """
name: grid
base: base.yaml
seeds: [0]
arms: {one: {}, two: {evaluation: {test_examples: 8}}}
"""
Step = Callable[[], End | None]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(execute, "POLL_S", 0.0)
    Path("base.yaml").write_text(BASE)
    Path("file.yaml").write_text(FILE)
    return read_plan(Path("file.yaml"))


@dataclass
class FakeJob:
    """Takes a step at every look, stays at the last, and stops when it is told to."""

    steps: Iterator[Step]
    signals: list[signal.Signals] = field(default_factory=list)
    end: End | None = None

    def poll(self) -> End | None:
        self.end = self.end or next(self.steps)()
        return self.end

    def stop(self, sign: signal.Signals) -> None:
        self.signals.append(sign)
        self.end = End(130)


@dataclass
class FakeLauncher:
    """Every start of a run, by arm, does what was written down for it."""

    plan: Plan
    scripts: dict[str, list[list[Step]]]
    words: dict[str, list[list[str]]] = field(default_factory=lambda: defaultdict(list))
    jobs: list[FakeJob] = field(default_factory=list)
    num_jobs: int | None = None
    printed: io.StringIO = field(default_factory=io.StringIO)

    def submit(self, words: Sequence[str], log: Path) -> FakeJob:
        arm = log.stem.removesuffix("-s0")
        self.words[arm].append(list(words))
        self.jobs.append(FakeJob(iter(self.scripts[arm].pop(0))))
        return self.jobs[-1]

    def close(self) -> None:
        """Nothing is to be closed."""

    def run(self, workers: int | None = None) -> dict[str, str]:
        console = Console(file=self.printed, width=200)
        return execute.execute(self.plan, self, workers, lambda total: Progress(total, console))


class Run:
    """The folder of one arm, as its process would leave it."""

    def __init__(self, plan: Plan, arm: int) -> None:
        self.run = plan.runs[arm]
        self.folder: RunDir | None = None

    def open(self) -> None:
        paths = sorted(Path(self.run.config.runs_dir).glob(f"*-{self.run.name}-*"))
        self.folder = RunDir.open(paths[0]) if paths else RunDir.create(self.run.config, {}, ())

    def leave(self, point: str | None = None) -> None:
        assert self.folder is not None
        if point:
            (self.folder.path / "resume" / point).mkdir(parents=True)
        self.folder.close()

    def die(self, end: End, point: str | None = None) -> Step:
        """As after SIGKILL: its folder says running, and nobody holds it."""

        def step() -> End:
            self.open()
            self.leave(point)
            return end

        return step

    def finish(self) -> End:
        self.open()
        assert self.folder is not None
        self.folder.mark("finished")
        self.leave()
        return End(0)


def test_the_dead_are_made_again_and_those_that_fail_are_not(plan: Plan) -> None:
    one, two = Run(plan, 0), Run(plan, 1)
    launcher = FakeLauncher(
        plan,
        {
            "one": [
                [lambda: None, lambda: End(-9)],
                [one.die(End(None, "NodeDied"))],
                [one.finish],
            ],
            "two": [[two.die(End(1))]],
        },
    )
    assert launcher.run() == {"two-s0": "exit code 1: it said nothing"}
    config = f"out/grid/configs/one-s0-{plan.runs[0].hash}.json"
    [path] = Path("out/grid").glob("*-one-s0-*")
    assert launcher.words["one"] == [
        ["train", config],
        ["train", config],
        ["resume", "--trust", str(path)],
    ]
    assert len(launcher.words["two"]) == 1
    printed = launcher.printed.getvalue()
    assert "died one-s0: exit code -9; started again\n" in printed
    assert "died one-s0: lost (NodeDied); started again\n" in printed


def test_a_run_that_comes_no_further_is_given_up_and_one_that_does_is_not(plan: Plan) -> None:
    """Five limits of time, each of which lets it come one resume point further."""
    one, two = Run(plan, 0), Run(plan, 1)
    points = [f"000-{cycle:03d}" for cycle in range(1, 6)]
    launcher = FakeLauncher(
        plan,
        {
            "one": [*([one.die(End(143), point)] for point in points), [one.finish]],
            "two": [[two.die(End(143))] for _ in range(9)],
        },
    )
    assert launcher.run() == {"two-s0": "exit code 143: it said nothing"}
    assert len(launcher.words["one"]) == 6
    # its first start made its folder, which is as far as it came
    assert len(launcher.words["two"]) == execute.MAX_STARTS


def test_what_a_dead_worker_left_running_is_waited_for(plan: Plan) -> None:
    one, two = Run(plan, 0), Run(plan, 1)

    def lose_the_worker() -> End:
        one.open()
        return End(None, "WorkerCrashed")

    def end_the_child() -> None:
        assert len(launcher.words["one"]) == 1
        one.leave("000-001")

    launcher = FakeLauncher(
        plan,
        {
            "one": [[lose_the_worker], [one.finish]],
            "two": [[lambda: None, lambda: None, end_the_child, two.finish]],
        },
    )
    assert launcher.run() == {}
    assert [words[0] for words in launcher.words["one"]] == ["train", "resume"]
    assert "another process writes to it, which is waited for" in launcher.printed.getvalue()


def test_as_many_are_made_at_once_as_workers_were_given(plan: Plan) -> None:
    one, two = Run(plan, 0), Run(plan, 1)

    def first() -> End:
        assert len(launcher.jobs) == 1
        return one.finish()

    launcher = FakeLauncher(plan, {"one": [[lambda: None, first]], "two": [[two.finish]]})
    assert launcher.run(workers=1) == {}


def test_an_interrupt_stops_every_job_as_it_would_stop_a_run(plan: Plan) -> None:
    def interrupt() -> End:
        raise KeyboardInterrupt

    idle: list[Step] = [lambda: None] * 9
    launcher = FakeLauncher(plan, {"one": [[*idle]], "two": [[lambda: None, interrupt]]})
    launcher.scripts["two"][0] += idle
    with pytest.raises(KeyboardInterrupt):
        launcher.run()
    assert [job.signals for job in launcher.jobs] == [[signal.SIGINT], [signal.SIGINT]]


def test_printed_commands_make_what_is_missing_from_any_shell(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", "file.yaml", "--launcher", "print"]) == 0
    lines = capsys.readouterr().out.splitlines()
    configs = [f"out/grid/configs/{run.name}-{run.hash}.json" for run in plan.runs]
    assert lines == [f"cd {shlex.quote(str(tmp_path))} && fastslow train {c}" for c in configs]
    assert all(Path(path).is_file() for path in configs)

    one, two = Run(plan, 0), Run(plan, 1)
    one.die(End(-9))()
    two.open()
    assert main(["ablate", "file.yaml", "--launcher", "print"]) == 0
    captured = capsys.readouterr()
    [path] = Path("out/grid").glob("*-one-s0-*")
    assert captured.out == f"cd {shlex.quote(str(tmp_path))} && fastslow resume --trust {path}\n"
    assert captured.err == "Not listed, since other processes make them: 1 runs.\n"
    two.leave()
    one.finish()
    two.finish()
    assert main(["ablate", "file.yaml", "--launcher", "print"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("launcher", "extra"), [("ray", "fastslow[ray]"), ("submitit", "fastslow[slurm]")]
)
def test_a_launcher_whose_package_is_absent_says_what_to_install(
    plan: Plan,
    launcher: str,
    extra: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert main(["ablate", "file.yaml", "--launcher", launcher]) == 2
    assert capsys.readouterr().err == (
        f"--launcher {launcher}: needs the package {launcher}, which is not installed. Install it "
        f"with: pip install '{extra}'\n"
    )
    assert not plan.folder.exists()


def test_runs_here_have_gpus_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[str | None] = []
    ends: list[int | None] = [None, 0, None]

    class Process:
        def __init__(self) -> None:
            self.end = ends.pop(0)

        def poll(self) -> int | None:
            return self.end

    def start(words: object, log: object, threads: int, folder: Path, names: str | None) -> Process:
        devices.append(names)
        return Process()

    monkeypatch.setattr(local, "start", start)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    launcher = local.LocalLauncher(Share(gpus=1), workers=2)
    first, second = (launcher.submit(["train"], tmp_path / "log") for _ in range(2))
    assert first.poll() is None
    assert second.poll() == second.poll() == End(0)
    launcher.submit(["train"], tmp_path / "log")
    assert devices == ["3", "5", "5"]
    with pytest.raises(ConfigError, match="3 runs at the same time need 3 GPUs, got 2 on this"):
        local.LocalLauncher(Share(gpus=1), workers=3)
    ends.append(0)
    local.LocalLauncher(Share(), workers=3).submit(["train"], tmp_path / "log")
    assert devices[-1] is None  # it sees what we see


def test_looking_at_many_runs_costs_a_look_each(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look into the folder, and its own few files for every run, however many there are."""
    wide = read_plan(Path("file.yaml"), [f"seeds={list(range(100))}"])
    for run in wide.runs:
        folder = wide.folder / f"1127-1200-{run.name}-{run.hash[:8]}"
        folder.mkdir(parents=True)
        card = {"name": run.name, "config_hash": run.hash, "state": "failed"}
        (folder / "run.json").write_text(json.dumps(card))
    looks, reads = list[Path](), list[Path]()
    iterdir = Path.iterdir

    def look(path: Path) -> Iterator[Path]:
        if path.name != LEASE_FOLDER:
            looks.append(path)
        return iterdir(path)

    def read(path: Path) -> object:
        reads.append(path)
        return files.read_json(path)

    monkeypatch.setattr(Path, "iterdir", look)
    monkeypatch.setattr(plans, "read_json", read)
    assert {status.state for _, status in wide.statuses()} == {"broken"}
    assert looks == [wide.folder]
    assert len(reads) == 2 * len(wide.runs)
