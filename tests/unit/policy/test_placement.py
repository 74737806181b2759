"""Where a model is put and in which number format, on cards that this machine need not have."""

import os
from typing import Any

import pytest
import torch

from fastslow.core.errors import ModelError
from fastslow.policy.placement import pick_device, pick_dtype, repeat_exactly


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return monkeypatch


@pytest.mark.parametrize("rank", ["0", "1"])
def test_each_process_has_the_card_of_its_place_on_its_machine(
    two_cards: pytest.MonkeyPatch, rank: str
) -> None:
    two_cards.setenv("LOCAL_RANK", rank)
    two_cards.setenv("RANK", "9")
    assert pick_device("cuda") == pick_device("auto") == f"cuda:{rank}"
    assert pick_device("cpu") == "cpu"


def test_more_processes_than_cards_are_told_how_many_there_are(
    two_cards: pytest.MonkeyPatch,
) -> None:
    two_cards.setenv("LOCAL_RANK", "2")
    with pytest.raises(ModelError, match=r"process 3 of .*sees 2\. .*--nproc_per_node 2\."):
        pick_device("auto")


@pytest.mark.parametrize(("has_it", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_bfloat16_on_a_card_that_has_it(
    monkeypatch: pytest.MonkeyPatch, has_it: bool, dtype: str
) -> None:
    asked: list[bool] = []

    def supported(*, including_emulation: bool) -> bool:
        asked.append(including_emulation)
        return has_it

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert pick_dtype("auto", "cuda:0") == dtype
    assert asked == [False]  # emulated it would be slower than float32
    assert pick_dtype("auto", "cpu") == "float32"
    assert pick_dtype("bfloat16", "cpu") == "bfloat16"
    assert pick_dtype("float32", "cuda:0") == "float32"


def test_a_card_is_asked_to_repeat_itself_and_the_cpu_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[bool] = []
    deterministic: Any = torch.utils.deterministic
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(deterministic, "fill_uninitialized_memory", True)
    monkeypatch.setattr(
        torch, "use_deterministic_algorithms", lambda on, *, warn_only: calls.append(warn_only)
    )
    repeat_exactly("cpu")
    assert calls == []
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    repeat_exactly("cuda:1")
    assert calls == [True]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not deterministic.fill_uninitialized_memory
