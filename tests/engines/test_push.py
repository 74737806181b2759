"""Publishing to a real S3 interface, and reading back what was published.

Skipped where s3fs or moto is absent: `pip install 'fastslow[s3]' 'moto[server]'`.
"""

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_socket import enable_socket

from fastslow.cli.main import main
from fastslow.policy.saved import read_kept
from tests.support.runs import TOY, newest
from tests.support.servers import free_port

ABSENT = [name for name in ("s3fs", "moto") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.network,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)}"),
    # botocore, and s3fs at the end of the process
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]
KEYS = {"AWS_ACCESS_KEY_ID": "planted-id", "AWS_SECRET_ACCESS_KEY": "planted-secret-0123456789"}


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    """An S3 server on this machine, with one bucket; the environment leads to it."""
    enable_socket()
    port = free_port()
    words = [sys.executable, "-c", "import sys; from moto.server import main; main(sys.argv[1:])"]
    process = subprocess.Popen(
        [*words, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": address, "AWS_REGION": "us-east-1"}.items():
            patch.setenv(name, value)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        import s3fs

        files = s3fs.S3FileSystem()
        files.mkdir("runs")
        yield files
        process.kill()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def run(store: Any, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that published itself."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "toy.yaml").write_text(TOY)
    words = ["train", str(folder / "toy.yaml"), f"runs_dir={folder / 'runs'}"]
    assert main([*words, f"model.name={tiny_folder}", "publish=s3://runs/all"]) == 0
    return newest(folder)


def objects(store: Any, root: str) -> dict[str, int]:
    store.invalidate_cache()
    entries = store.find(root, detail=True)
    return {name.removeprefix(f"{root}/"): entry["size"] for name, entry in entries.items()}


def test_a_run_publishes_its_stages_and_itself(store: Any, run: Path) -> None:
    names = objects(store, f"runs/all/{run.name}")
    manifest = json.loads(store.cat(f"runs/all/{run.name}/manifest.json"))
    assert set(manifest["files"]) == names.keys() - {"manifest.json"}
    for stage in ("000-first", "001-second"):
        assert f"stages/{stage}/adapter_model.safetensors" in names
    assert not [name for name in names if re.match(r"resume|.*lock|tracker\.json", name)]
    content = b"".join(store.cat(f"runs/all/{run.name}/{name}") for name in names)
    assert [value for value in KEYS.values() if value.encode() in content] == []


def test_pushing_again_sends_nothing(
    store: Any, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(run)]) == 0
    assert f"published: s3://runs/all/{run.name}, 0 files sent" in capsys.readouterr().out
    assert main(["push", str(run), "s3://runs/stage", "--stage", "2"]) == 0
    names = objects(store, "runs/stage")
    assert {name.partition("/")[0] for name in names} == {
        "manifest.json",
        "config.json",
        "run.json",
        "environment.json",
        "stages",
    }


def test_a_copy_can_be_reported_and_its_adapter_loads(
    store: Any, run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / run.name
    store.get(f"runs/all/{run.name}", str(copy), recursive=True)
    assert main(["report", str(copy), "--recompute"]) == 0
    stage = "stages/001-second"
    sums = [read_kept(root / stage).weights_of("second") for root in (run, copy)]
    assert sums[0] == sums[1]
    from peft import PeftConfig

    assert PeftConfig.from_pretrained(str(copy / stage)).peft_type == "LORA"


def test_an_export_is_pushed_with_its_card(store: Any, run: Path) -> None:
    assert main(["export", str(run)]) == 0
    export = run / "export" / "001-second"
    assert main(["push", str(run), "s3://runs/model", "--export", str(export)]) == 0
    names = objects(store, "runs/model")
    assert {"README.md", "adapter_model.safetensors", "export.json", "manifest.json"} <= set(names)
    (export / "README.md").write_text("another card")
    assert main(["push", str(run), "s3://runs/model", "--export", str(export)]) == 2


def test_a_bucket_that_is_not_there_is_said_and_stops_no_run(
    store: Any, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(run), "s3://no-such-bucket/x"]) == 1
    answer = capsys.readouterr().err
    assert answer.startswith("s3://no-such-bucket/x: the store refused, got ")
    assert "planted" not in answer
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == KEYS["AWS_SECRET_ACCESS_KEY"]
