"""What has the form of a key, and what only looks long."""

import pytest

from fastslow.core.credentials import REMOVED, looks_like_key, without_keys

KEYS = [
    "http://tokenonly@127.0.0.1:5000",
    "sk-proj-abcdefghijklmnop",
    "gsk_0123456789abcdefghij",
    "hf_abcdefgh1234567890abcd",
    "AIza" + "B" * 35,
    "Bearer abc123.def456",
    "https://user:hunter2@example.org/v1",
    "https://example.org/v1?api_key=abcdef",
    "aB3" * 14,
]
NOT_KEYS = [
    "postgresql://user@database/mlflow",
    "openai/gpt-5-mini",
    "openai//models/snapshots/0123456789abcdef0123456789abcdef01234567",
    "http://127.0.0.1:8000/v1",
    "HF_HUB_DISABLE_UPDATE_CHECK",
    "bearer authentication is missing",
    "a task-agnostic instruction",
    "OPENAI_API_KEY",
]


@pytest.mark.parametrize("text", KEYS)
def test_keys_are_found_and_removed(text: str) -> None:
    assert looks_like_key(text)
    assert not looks_like_key(without_keys(f"got {text}, refused"))
    assert REMOVED in without_keys(text)


@pytest.mark.parametrize("text", NOT_KEYS)
def test_names_and_addresses_are_no_keys(text: str) -> None:
    assert not looks_like_key(text)
    assert without_keys(text) == text


def test_a_key_in_use_is_removed_whatever_its_form() -> None:
    assert without_keys("wrong: my plain password", ["my plain password"]) == f"wrong: {REMOVED}"
    assert without_keys("none of it", ["none"]) == "none of it"
