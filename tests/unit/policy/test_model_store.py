import hashlib
import json
from pathlib import Path

import pytest

from fastslow.core.errors import ModelError
from fastslow.policy.model_store import (
    CARD,
    MODELS,
    ResolvedModel,
    WheelModel,
    cache_home,
    hub_unreachable,
    resolve,
    where,
)

NAME = "smollm2-135m-instruct"


def local_model(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    return folder


def fetched(home: Path) -> Path:
    folder = local_model(home / "models" / NAME, "config.json", "model.safetensors")
    files = {
        path.name: {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in folder.iterdir()
    }
    (folder / CARD).write_text(json.dumps({"files": files}))
    return folder


def refusal(name: str) -> str:
    with pytest.raises(ModelError) as caught:
        resolve(name)
    return str(caught.value)


def test_the_embedded_model_is_pinned_by_two_checksums() -> None:
    assert tuple(MODELS) == (NAME, "tiny-random")
    model = MODELS[NAME]
    assert isinstance(model, WheelModel)
    assert len(bytes.fromhex(model.wheel_sha256)) == 32
    assert len(bytes.fromhex(model.member_sha256)) == 32
    assert "==" in model.requirement


def test_the_cache_is_fastslow_home_then_xdg_then_the_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("FASTSLOW_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_home() == Path("/home/ada/.cache/fastslow")
    monkeypatch.setenv("XDG_CACHE_HOME", "/big/cache")
    assert cache_home() == Path("/big/cache/fastslow")
    monkeypatch.setenv("FASTSLOW_HOME", "~/models")
    assert cache_home() == Path("/home/ada/models")


def test_a_model_that_is_not_fetched_says_how_to_fetch_it(model_cache: Path) -> None:
    assert refusal(NAME) == (
        f"model.name: {NAME}: it is not fetched yet. Run: fastslow models fetch {NAME}"
    )


def test_a_fetched_model_resolves_to_its_folder(model_cache: Path) -> None:
    folder = fetched(model_cache)
    assert resolve(NAME) == ResolvedModel(str(folder), local=True)
    assert where(NAME) == folder


def test_a_file_changed_after_the_fetch_is_found_by_where(model_cache: Path) -> None:
    folder = fetched(model_cache)
    (folder / "model.safetensors").write_bytes(b"model.safetensorz")
    with pytest.raises(ModelError, match=r"was changed after it was fetched\. Run: fastslow"):
        where(NAME)


def test_a_truncated_file_is_found_without_checksums(model_cache: Path) -> None:
    folder = fetched(model_cache)
    (folder / "model.safetensors").write_bytes(b"")
    assert "model.safetensors is missing or has another size" in refusal(NAME)


@pytest.mark.parametrize(
    "card", ["", "[]", "{}", '{"files": 3', '{"files": []}', '{"files": {"config.json": {}}}']
)
def test_a_broken_card_is_named(model_cache: Path, card: str) -> None:
    folder = fetched(model_cache)
    (folder / CARD).write_text(card)
    assert f"{folder / CARD} cannot be read" in refusal(NAME)


def test_a_local_folder_with_safetensors_resolves_to_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = local_model(tmp_path / "tiny", "config.json", "model-00001-of-00002.safetensors")
    monkeypatch.chdir(tmp_path)
    assert resolve("tiny", revision="main") == ResolvedModel(str(folder), local=True)


def test_pickled_weights_are_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = local_model(tmp_path / "old", "config.json", "pytorch_model.bin")
    message = refusal(str(folder))
    assert "has pickled weights only (pytorch_model.bin)" in message
    assert "save_pretrained" in message


def test_an_adapter_is_not_taken_for_a_base_model(tmp_path: Path) -> None:
    folder = local_model(tmp_path / "lora", "adapter_config.json", "adapter_model.safetensors")
    assert "holds a LoRA adapter, not a base model" in refusal(str(folder))


def test_a_folder_without_a_model_says_what_it_holds(tmp_path: Path) -> None:
    folder = local_model(tmp_path / "photos", "cat\x1b.jpg")
    assert f"{folder} has no config.json, got cat\\x1b.jpg." in refusal(str(folder))


def test_a_mistyped_name_gets_the_nearest_one() -> None:
    assert f"Did you mean '{NAME}'?" in refusal("smollm2-135m-instrct")


def test_a_mistyped_path_gets_the_nearest_model_folder(tmp_path: Path) -> None:
    folder = local_model(tmp_path / "qwen-tiny", "config.json", "model.safetensors")
    assert f"Did you mean '{folder}'?" in refusal(str(tmp_path / "qwen-tinny"))


def test_a_hub_id_is_handed_on_with_its_revision() -> None:
    expected = ResolvedModel("org/some-model.v2", local=False, revision="abc")
    assert resolve("org/some-model.v2", revision="abc") == expected


@pytest.mark.parametrize("name", ["../x", "org/..", "a/b/c", "/etc", "org/mo del", "x\n/y"])
def test_nothing_that_could_leave_its_place_is_taken_for_a_hub_id(name: str) -> None:
    assert "model.name: " in refusal(name)


def test_an_unreachable_hub_gives_one_line_that_says_what_to_do() -> None:
    message = str(hub_unreachable("org/m", OSError("no route\x1b[0m\nlong tail\nof advice")))
    assert len(message.splitlines()) == 1
    assert "\x1b" not in message
    assert "OSError: no route" in message
    assert "hf download org/m --local-dir FOLDER" in message
    assert f"model.name={NAME}" in message
