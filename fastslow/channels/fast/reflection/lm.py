"""The reflection LM: reads how a prompt performed and writes a better one.

Either a model behind an address or the policy's own base (`self`). DSPy's optimizers see a plain
`dspy.LM`; this module repeats requests, counts them, and notices that the model stays away.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import dspy
from dspy.lm15 import Request, Response

from fastslow.channels.fast.dspy_bridge import system_text
from fastslow.channels.fast.reflection.endpoint import Answer, Endpoint, NoAnswer, find_key
from fastslow.channels.fast.reflection.own_base import OwnBase
from fastslow.channels.fast.settings import SELF, ReflectionSettings
from fastslow.core.errors import ChannelError
from fastslow.core.seeds import named_random
from fastslow.policy.policy import Policy

LONGEST_WAIT_S = 60.0
"""Longest pause between two attempts, even if a service asks for more."""


def _say_nothing(answers: int) -> None:
    """For who does not ask."""


class ReflectionAway(ChannelError):
    """The reflection LM stays away. The fast phase ends and keeps the prompts found so far."""


class Reflection:
    """The reflection LM, and the account of the present fast phase.

    Raises:
        ConfigError: The model's key is not in the environment.
    """

    def __init__(self, settings: ReflectionSettings) -> None:
        self.settings = settings
        self.calls = 0
        """Requests answered."""
        self.failures = 0
        """Attempts without an answer."""
        self.prompt_tokens: int | None = 0
        """In answered requests; None once a service did not say."""
        self.completion_tokens: int | None = 0
        """In answers; None once a service did not say."""
        self.cost_usd: float | None = 0.0
        """By list prices; None once there was none for an answer, as with `self`."""
        self.away: str | None = None
        """Why the model stays away, in one line; None while it answers."""
        self.lm = dspy.LM(
            "local/reflection",
            engine=self,
            cache=False,
            num_retries=0,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
        )
        """The LM for DSPy's optimizers."""
        self._endpoint: Endpoint | None = None
        if settings.model != SELF:
            key = find_key(settings.model, settings.api_base, settings.api_key_env)
            self._endpoint = Endpoint(settings.model, settings.api_base, key, settings.timeout_s)
        self._answers: Endpoint | OwnBase | None = None
        self._preface = ""
        self._note_answer: Callable[[int], None] = _say_nothing
        self._refused = 0
        self._bug: Exception | None = None
        self._lock = threading.Lock()
        self._is_away = threading.Event()

    @contextmanager
    def phase(
        self,
        policy: Policy,
        seed: int,
        preface: str = "",
        note_answer: Callable[[int], None] = _say_nothing,
    ) -> Iterator[None]:
        """One fast phase: a fresh account, and a model that was away is tried again.

        Within it an optimizer may end because the model went away. Optimizers react to a missing
        answer in many ways, so any error counts as its consequence then, except other errors of a
        channel: a policy that cannot answer stops the run.

        The seed is that of waiting times and of the answers of `self`; the preface, e.g. a
        playbook, goes before the system text of every request. `note_answer` gets the number of
        answers so far, after each: they may take most of a phase.

        Raises:
            ChannelError: `self` failed, and not because of the request.
        """
        self._start(policy, seed, preface)
        self._note_answer = note_answer
        try:
            yield
        except Exception as err:
            ours = isinstance(err, ChannelError) and not isinstance(err, ReflectionAway | NoAnswer)
            if self._bug is None and (self.away is None or ours):
                raise
        finally:
            self._answers = None
        if self._bug is not None:
            raise ChannelError(
                f"fast: the policy's base could not answer a request for reflection: {self._bug}"
            ) from self._bug

    def __deepcopy__(self, memo: dict[int, Any]) -> "Reflection":
        """DSPy copies LMs with their engine; there is one account."""
        return self

    def complete(self, request: Request) -> Response:
        """Answer one request of an optimizer; repeats it while that may help.

        Raises:
            ReflectionAway: The model stays away, now or since an earlier request. It does after
                `attempts` attempts at one request, after as many requests in a row that it refused,
                and at once when no later one would be answered (a key refused, a bill not paid).
            NoAnswer: This request cannot be answered, e.g. because it is too long; others may.
        """
        assert self._answers is not None, "asked outside of a phase"
        if self._preface:
            request = replace(request, system=f"{self._preface}\n\n{system_text(request)}".strip())
        for attempt in itertools.count(1):
            if self.away is not None:
                raise ReflectionAway(f"the reflection LM stays away: {self.away}")
            try:
                answer = self._answers.complete(request)
            except NoAnswer as err:
                failure = err
            except Exception as err:  # our bug: an optimizer would swallow it
                self._bug, self.away = self._bug or err, self.away or f"{SELF}: {err}"
                raise
            else:
                self._count(answer)
                return answer.response
            self._note(failure, attempt)
            if failure.remedy != "again" and self.away is None:
                raise failure
            self._is_away.wait(self._pause(attempt, failure.wait_s))
        raise AssertionError("it ends with an answer or an error")

    def leave(self) -> None:
        """Have whoever still asks in this phase get no answer: the run stops."""
        self.away = self.away or "the run was stopped"
        self._is_away.set()

    def figures(self) -> dict[str, float]:
        """The account by name, without unknown figures."""
        figures = {
            "reflection_calls": self.calls,
            "reflection_failures": self.failures,
            "reflection_prompt_tokens": self.prompt_tokens,
            "reflection_completion_tokens": self.completion_tokens,
            "reflection_cost_usd": self.cost_usd,
            "reflection_away": self.away is not None,
        }
        return {name: float(value) for name, value in figures.items() if value is not None}

    def _start(self, policy: Policy, seed: int, preface: str) -> None:
        self.calls = self.failures = self.prompt_tokens = self.completion_tokens = 0
        self.cost_usd, self.away, self._refused, self._bug = 0.0, None, 0, None
        self._is_away.clear()
        self._preface = preface
        self._jitter = named_random(seed, "reflection", "back-off")
        self._answers = OwnBase(policy, seed) if self._endpoint is None else self._endpoint

    def _count(self, answer: Answer) -> None:
        usage = answer.response.usage
        with self._lock:
            self._refused = 0
            self.calls += 1
            self.prompt_tokens = _sum(self.prompt_tokens, usage.input_tokens)
            self.completion_tokens = _sum(self.completion_tokens, usage.output_tokens)
            self.cost_usd = _sum(self.cost_usd, answer.cost_usd)
        self._note_answer(self.calls)

    def _note(self, failure: NoAnswer, attempt: int) -> None:
        """Count an attempt without an answer; the last one allowed makes the model away."""
        with self._lock:
            self.failures += 1
            self._refused += failure.remedy == "another"
            if failure.remedy == "none" or max(attempt, self._refused) >= self.settings.attempts:
                times = "" if self.failures == 1 else f" ({self.failures} failed attempts)"
                self.away = self.away or f"{self.settings.model}: {failure}{times}"
                self._is_away.set()

    def _pause(self, attempt: int, least_s: float) -> float:
        """Seconds until the next attempt: doubling, times a random factor in [0.5, 1], capped."""
        with self._lock:
            share = 0.5 + 0.5 * self._jitter.random()
        wait_s = self.settings.wait_s * 2.0 ** (attempt - 1) * share
        return min(max(wait_s, least_s), LONGEST_WAIT_S)


def _sum(total: Any, more: Any) -> Any:
    """Their sum; None when either is unknown."""
    return None if total is None or more is None else total + more
