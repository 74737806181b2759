"""One request to a language model behind an address, and its possible outcomes.

Only this module reads keys, from the environment; messages of a service are repeated without them.
"""

import contextlib
import io
import ipaddress
import os
import re
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlsplit

import dspy
from dspy.lm15 import Request, Response

from fastslow.core.credentials import without_keys
from fastslow.core.errors import ChannelError, ConfigError
from fastslow.core.text import shorten

NO_KEY = "none"
"""Sent to servers on this machine, which ask for none."""
SHORTEST_KEY = 8
"""Characters; an answer may contain a shorter one by accident."""
LONGEST_REASON = 300
"""Characters of a service's message that are repeated."""

Remedy = Literal["again", "another", "none"]


class NoAnswer(ChannelError):
    """A language model did not answer a request; the reason is one line without keys.

    Remedies: `again`: the same request may be answered after `wait_s` seconds; `another`: a
    different request may be; `none`: no request will be.
    """

    def __init__(self, reason: str, remedy: Remedy, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.remedy: Remedy = remedy
        self.wait_s = wait_s


@dataclass(frozen=True)
class Answer:
    """A response and what it cost."""

    response: Response
    cost_usd: float | None
    """By list prices; None when none is known."""


class Endpoint:
    """A model behind an address, or the provider's own address, asked once per request.

    `model` is a model string of DSPy or LiteLLM, e.g. `openai/gpt-5-mini`.
    """

    def __init__(
        self, model: str, api_base: str | None, api_key: str | None, timeout_s: float
    ) -> None:
        self._keys = [api_key] if api_key else []
        options = {"api_base": api_base, "api_key": api_key, "timeout": timeout_s}
        self._lm = dspy.LM(
            model,
            cache=False,
            num_retries=0,
            **{name: value for name, value in options.items() if value is not None},
        )

    def complete(self, request: Request) -> Answer:
        """Ask once.

        Raises:
            NoAnswer: There was no answer; nothing of the request hangs on the error.
        """
        lm = self._lm.copy()  # shares connections; its history is this call's
        try:
            response = lm(replace(request, model=lm.model))
        except Exception as err:  # a service or its client may raise anything
            failure = no_answer(err, self._keys)
        else:
            if any(len(key) >= SHORTEST_KEY and key in str(response.text) for key in self._keys):
                raise NoAnswer("the answer repeats the key it was asked with", "another")
            return Answer(response, lm.history[-1]["cost"] if lm.history else None)
        raise failure  # outside of the handler, so that the original does not hang on it


def no_answer(error: Exception, keys: list[str]) -> NoAnswer:
    """What an error of DSPy or of a service means for the next request."""
    message = without_keys(f"{type(error).__name__}: {error}", keys)
    reason = shorten(" ".join(message.split()), LONGEST_REASON)
    if dspy.is_retryable_lm_error(error):
        return NoAnswer(reason, "again", float(getattr(error, "retry_after", None) or 0.0))
    hopeless = (dspy.LMAuthError, dspy.LMBillingError, dspy.LMConfigurationError, ImportError)
    return NoAnswer(reason, "none" if isinstance(error, hopeless) else "another")


def find_key(model: str, api_base: str | None, api_key_env: str | None) -> str | None:
    """The key to send, from the environment; None when the provider knows another way in.

    A server on this machine gets no key unless `api_key_env` names one, so that a program that
    needs no key never sees one. Without that name the variable is the provider's usual one.

    Raises:
        ConfigError: The variable is not set; names it.
    """
    if api_key_env is None and api_base is not None and is_local(api_base):
        return NO_KEY
    names = (api_key_env,) if api_key_env else key_variables(model)
    key = next((os.environ[name] for name in names if os.environ.get(name)), None)
    if names and key is None:
        raise ConfigError(
            f"fast.reflection.model: {model} needs a key, got none. Expected it in the environment "
            f"variable {' or '.join(names)}. Set it, or use model: self, which needs none."
        )
    return key


def key_variables(model: str) -> tuple[str, ...]:
    """Environment variables, any of which may hold the key of a model's provider; often one."""
    from dspy._vendor.lm15.registry import lookup

    provider = lookup(re.split("[/:]", model)[0])
    if provider is not None:
        return tuple(provider.access.env_keys)
    import litellm

    with contextlib.redirect_stdout(io.StringIO()):  # it prints advice
        missing: list[str] = litellm.validate_environment(model)["missing_keys"]
    return tuple(missing)


def is_local(address: str) -> bool:
    """Whether an address leads to this machine."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
