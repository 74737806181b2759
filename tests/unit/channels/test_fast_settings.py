"""Settings of the fast channel: which reflection LM, and no key in a configuration."""

import pytest
from pydantic import ValidationError

from fastslow.channels.fast.settings import ReflectionSettings


@pytest.mark.parametrize(
    "written",
    [
        {"model": "openai/x", "api_key_env": "sk-0123456789abcdef"},
        {"model": "openai/x", "api_base": "https://me:hunter2@example.org/v1"},
        {"model": "openai/x", "api_base": "https://example.org/v1?api_key=hunter2"},
        {"model": "openai/x", "api_key": "sk-0123456789abcdef"},
        {"model": "openai/x", "api_key_env": "hunter2"},
    ],
)
def test_a_section_with_a_key_in_it_is_refused_and_the_key_not_repeated(
    written: dict[str, str],
) -> None:
    with pytest.raises(ValidationError) as caught:
        ReflectionSettings.model_validate(written)
    assert "hunter2" not in str(caught.value)
    assert "0123456789abcdef" not in str(caught.value)


def test_the_reflection_lm_is_the_policy_itself_unless_another_is_named() -> None:
    assert ReflectionSettings().model == "self"
    local = {"model": "openai//models/tiny", "api_base": "http://127.0.0.1:8000/v1"}
    assert ReflectionSettings.model_validate(local).api_base == local["api_base"]
    with pytest.raises(ValidationError, match="not an address"):
        ReflectionSettings.model_validate({"api_base": "localhost:8000"})
