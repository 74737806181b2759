"""What of a run is published, where, and what happens when a push is cut short."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastslow.cli.main import main
from fastslow.config.loading.load import load_config
from fastslow.core.errors import CheckpointError, ConfigError, PublishError
from fastslow.records import publishing, stores
from fastslow.records.publishing import MANIFEST, PARTIAL, Publisher, push_run
from fastslow.results.report import recompute_report
from tests.support.paths import ROOT
from tests.support.run_folder import write_run

DEMO = ROOT / "runs" / "reference" / "demo"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run, with what stays at home: resume points, a lock, unfinished files."""
    folder = Path(shutil.copytree(DEMO, tmp_path / "demo"))
    for name in ("resume/000-001/state.json", "lock", "tracker.json", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("private")
    for name in ("stages/000-capital/adapter.safetensors", "stages/tmp-001/x", "figures/.tmp-1"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * 10)
    return folder


@pytest.fixture
def memory() -> Iterator[Any]:
    import fsspec

    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def push(run: Path, place: str, **options: Any) -> int:
    return push_run(run, place, lambda *_: None, **options)


def test_a_published_run_has_records_and_adapters_and_can_be_reported(
    run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    assert push(run, f"file://{copy}") == len(names(copy)) - 1
    published = names(copy)
    assert published - names(DEMO) == {MANIFEST, "stages/000-capital/adapter.safetensors"}
    assert names(DEMO) < published
    assert recompute_report(copy) == ()
    manifest = json.loads((copy / MANIFEST).read_text())
    assert set(manifest["files"]) == published - {MANIFEST}
    assert (manifest["run"], manifest["schema_version"]) == ("demo", 1)


def test_only_what_changed_is_sent_again(run: Path, memory: Any) -> None:
    assert push(run, "memory://bucket/a") > 10
    assert push(run, "memory://bucket/a") == 0
    (run / "report.md").write_bytes((run / "report.md").read_bytes()[::-1])  # of the same size
    memory.rm_file("/bucket/a/report.html")
    assert push(run, "memory://bucket/a") == 2
    assert memory.cat("/bucket/a/report.md") == (run / "report.md").read_bytes()


def test_a_push_that_is_cut_short_has_no_manifest_and_goes_on_where_it_ended(
    run: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = stores.FileStore.write
    total = push(run, "memory://bucket/whole")

    def cut(self: Any, name: str, content: Any) -> str:
        if name == "report.md":
            raise OSError("https://me:secret@store is away")
        return write(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(stores.FileStore, "write", cut)
        with pytest.raises(PublishError, match=r"got OSError: https://\[removed\]@store is away"):
            push(run, "memory://bucket/b")
    assert not memory.exists(f"/bucket/b/{MANIFEST}")
    sent = len(json.loads(memory.cat(f"/bucket/b/{PARTIAL}"))["files"])
    assert 0 < sent < total
    assert push(run, "memory://bucket/b") == total - sent
    assert not memory.exists(f"/bucket/b/{PARTIAL}")


def test_a_file_in_a_folder_here_is_the_old_one_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if content := super().read(4):
                return content
            raise KeyboardInterrupt

    store = stores.FileStore(f"file://{tmp_path}/copy")
    store.write("gate/gate.json", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(stores, "open_regular", lambda _: Cut(b"new and longer"))
        with pytest.raises(KeyboardInterrupt):
            store.write("gate/gate.json", tmp_path)
    assert store.read("gate/gate.json") == b"old"
    store.write("gate/gate.json", b"new")
    assert store.read("gate/gate.json") == b"new"
    assert set(store.sizes()) == {"gate/gate.json"}


def test_another_run_is_written_over_by_force_only(run: Path, tmp_path: Path, memory: Any) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    push(run, "memory://bucket/c")
    with pytest.raises(ConfigError, match=r"memory://bucket/c has another run, demo\..*--force"):
        push(other, "memory://bucket/c")
    push(other, "memory://bucket/c", force=True)
    assert json.loads(memory.cat(f"/bucket/c/{MANIFEST}"))["run"] == "other"


def test_a_stage_goes_alone_and_the_run_after_it(run: Path, memory: Any) -> None:
    stages = json.loads((run / "run.json").read_text())["stages"]
    (run / "stages" / "000-capital").rename(run / "stages" / f"000-{stages[0]}")
    assert push(run, "memory://bucket/d", stage=1) == 4
    with pytest.raises(CheckpointError, match="there is no complete stage 2"):
        push(run, "memory://bucket/d", stage=2)
    with pytest.raises(CheckpointError, match="there is no complete stage 0"):
        push(run, "memory://bucket/d", stage=0)
    push(run, "memory://bucket/d")
    assert len(json.loads(memory.cat(f"/bucket/d/{MANIFEST}"))["files"]) == len(names(DEMO)) + 1


def test_an_unfinished_run_links_and_keys_are_not_published(run: Path, memory: Any) -> None:
    (run / "layers").mkdir()
    (run / "layers" / "00-run.yaml").write_text("uri: http://me:secret@host/")
    with pytest.raises(ConfigError, match=r"00-run\.yaml: holds what looks like a key"):
        push(run, "memory://bucket/e")
    (run / "layers" / "00-run.yaml").unlink()
    (run / "layers" / "00-run.yaml").symlink_to("/etc/passwd")
    with pytest.raises(CheckpointError, match=r"00-run\.yaml: a link"):
        push(run, "memory://bucket/e")
    (run / "layers" / "00-run.yaml").unlink()
    card = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(card | {"state": "interrupted"}))
    with pytest.raises(CheckpointError, match="the run is interrupted, and only a finished"):
        push(run, "memory://bucket/e")
    assert memory.store == {}


def test_an_edited_run_is_not_published(tmp_path: Path, memory: Any) -> None:
    run = write_run(tmp_path)
    scores = (run / "scores.jsonl").read_text()
    (run / "scores.jsonl").write_text(scores.replace('"score": 0.0', '"score": 1.0', 1))
    with pytest.raises(CheckpointError, match="edited or damaged since the run wrote it"):
        push(run, "memory://bucket/edited")
    assert memory.store == {}
    (run / "scores.jsonl").write_text(scores)
    assert push(run, "memory://bucket/edited")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://key:secret@bucket/x", "holds what looks like a key or a password"),
        ("gs://token@bucket/x", "holds what looks like a key or a password"),
        ("s4://bucket/x", "not an address where runs can be published"),
        ("bucket/x", "not an address where runs can be published"),
        ("file://a/../b", "names no place of its own"),
        ("hf://name", "expected hf://owner/name"),
    ],
)
def test_an_address_is_checked_before_anything_is_sent(
    run: Path, capsys: pytest.CaptureFixture[str], address: str, message: str
) -> None:
    assert main(["push", str(run), address]) == 2
    answer = capsys.readouterr().err
    assert message in answer
    assert "secret" not in answer
    assert "token@" not in answer


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("publish=s4://bucket/x", "publish: not an address where runs can be published"),
        ("publish=s3://key:secret@bucket/x", "publish: holds what looks like a key"),
        ("runs_dir=s3://bucket/x", "runs_dir: runs are made in a folder of this machine"),
        ("tracking.uri=http://me:secret@host:5000", "tracking: holds what looks like a key"),
        ("tracking=[{uri: 'postgresql://me:secret@host/db'}]", "tracking.0: holds what looks"),
        ("tracking.uri=https://host/?token=secretsecret", "tracking: holds what looks like a key"),
    ],
)
def test_addresses_in_a_configuration_are_checked_and_passwords_not_repeated(
    override: str, message: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        load_config([ROOT / "configs" / "tests" / "tiny.yaml"], [override])
    assert message in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_a_store_that_is_away_stops_no_run(
    run: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, memory: Any
) -> None:
    tiny = load_config([ROOT / "configs" / "tests" / "tiny.yaml"], ["publish=memory://bucket/f"])

    def away(address: str) -> Any:
        raise ConnectionError("no route")

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "open_store", away)
        Publisher(tiny.config, run).push()
    [record] = caplog.records
    assert "the store refused, got ConnectionError: no route" in record.message
    assert record.message.endswith(f"To send what is missing: fastslow push {run}")
    Publisher(tiny.config, run).push()
    assert memory.exists(f"/bucket/f/demo/{MANIFEST}")


class Hub:
    """A repository of the hub, in this process."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.is_private: bool | None = None
        self.commits: list[list[str]] = []

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
        assert (name, exist_ok) == ("owner/name", True)
        self.is_private = private

    def list_repo_tree(self, name: str, path: str | None, recursive: bool) -> list[Any]:
        from huggingface_hub.errors import EntryNotFoundError
        from huggingface_hub.hf_api import RepoFile

        files = {n: c for n, c in self.files.items() if path is None or n.startswith(f"{path}/")}
        if not files and path is not None:
            raise EntryNotFoundError("404")
        make: Any = RepoFile
        return [make(path=n, size=len(c), oid="", lfs=None) for n, c in files.items()]

    def hf_hub_download(self, name: str, path: str) -> str:
        from huggingface_hub.errors import EntryNotFoundError

        if path not in self.files:
            raise EntryNotFoundError("404")
        place = Path(self.folder) / "download"
        place.write_bytes(self.files[path])
        return str(place)

    def create_commit(self, name: str, operations: list[Any], commit_message: str) -> None:
        self.commits.append([operation.path_in_repo for operation in operations])
        for operation in operations:
            with operation.as_file() as file:
                self.files[operation.path_in_repo] = file.read()

    folder: Path


def test_the_hub_gets_one_commit_into_a_private_repository(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    hub = Hub()
    hub.folder = tmp_path
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    total = push(run, "hf://owner/name/runs/demo")
    assert hub.is_private is True
    assert hub.commits[0][-1] == f"runs/demo/{MANIFEST}"
    assert len(hub.commits[0]) == total + 1
    (run / "report.md").write_text("changed")
    assert push(run, "hf://owner/name/runs/demo") == 1
    assert hub.commits[1] == ["runs/demo/report.md", f"runs/demo/{MANIFEST}"]
    assert hub.files["runs/demo/report.md"] == b"changed"
