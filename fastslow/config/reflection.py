"""The reflection LM's part of the configuration."""

import re
from typing import Any

from pydantic import (
    ConfigDict,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from fastslow.config.keys import OURS, Model, key
from fastslow.credentials import looks_like_key


class ReflectionConfig(Model):
    """The language model that reads how texts fared and writes better ones.

    Its key comes from the environment alone; a section that holds one is refused.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    model: str = key("self", "name", "P2O, arXiv 2603.21877, has self-reflection", min_length=1)
    """`self`, the policy's base with the adapter off, or a model string of DSPy or LiteLLM, e.g.
    `openai/gpt-5-mini`; `openai/NAME` with `api_base` is any server that speaks OpenAI's chat
    completions."""
    api_base: str | None = key(None, "address", "the provider's own")
    """Address of the server, with its version, e.g. `http://127.0.0.1:8000/v1`. One on this machine
    needs no key."""
    api_key_env: str | None = key(None, "name", "the provider's usual one, e.g. OPENAI_API_KEY")
    """Environment variable that holds the key."""
    temperature: NonNegativeFloat = key(1.0, "temperature", "GEPA's advice for reflection LMs")
    """Sampling temperature of its answers."""
    max_tokens: PositiveInt = key(1024, "tokens", OURS)
    """Limit of one answer; models that think before they answer need many times that."""
    timeout_s: PositiveFloat = key(120.0, "seconds", OURS)
    """A request without an answer after this time counts as failed; `self` has no limit."""
    attempts: PositiveInt = key(5, "requests", OURS)
    """After this many in a row without an answer the model counts as away, and the phase ends."""
    wait_s: PositiveFloat = key(1.0, "seconds", OURS)
    """Longest wait after the first failure; doubles with each, up to a minute."""
    playbook_items: NonNegativeInt = key(
        3, "items", "SkillRL, arXiv 2602.08234: at most 3 new skills per round"
    )
    """Worked examples, and as many lessons, that `reuse_slow_rollouts` shows the reflection LM in
    one cycle."""
    playbook_tokens: PositiveInt = key(256, "tokens", OURS)
    """Limit of those worked examples together, in the policy's tokens."""

    @model_validator(mode="before")
    @classmethod
    def _no_keys(cls, written: Any) -> Any:
        texts = written.values() if isinstance(written, dict) else ()
        if any(isinstance(text, str) and looks_like_key(text) for text in texts):
            raise ValueError(
                "holds what looks like a key or a password. Keys come from the environment alone, "
                "never from a file or the command line: put it into a variable, name that in "
                "api_key_env if it is not the provider's usual one, and replace the key if others "
                "can read this file."
            )
        return written

    @field_validator("api_base")
    @classmethod
    def _is_address(cls, address: str | None) -> str | None:
        if address is not None and not address.startswith(("http://", "https://")):
            raise ValueError(
                "not an address that starts with http:// or https://. Write it with its version, "
                "e.g. http://127.0.0.1:8000/v1."
            )
        return address

    @field_validator("api_key_env")
    @classmethod
    def _is_variable(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Z][A-Z0-9_]{2,63}", name):
            raise ValueError(
                "not the name of an environment variable: capitals, digits and _, e.g. MY_API_KEY. "
                "The key itself belongs into that variable."
            )
        return name
