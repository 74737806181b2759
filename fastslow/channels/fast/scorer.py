"""A fast phase's access to the policy: scores, DSPy's language model, and the account."""

import contextlib
import io
import logging
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import dspy

from fastslow.channels.fast.completion_cache import CompletionCache, score_programs
from fastslow.channels.fast.dspy_bridge import (
    FeedbackMetric,
    Metric,
    PolicyEngine,
    language_model,
    to_dspy,
)
from fastslow.channels.fast.settings import FastSettings
from fastslow.channels.fast.text_guards import Guard
from fastslow.core.prompts import PromptProgram
from fastslow.core.types import Anchor, Example, Sampling
from fastslow.policy.policy import Policy
from fastslow.policy.signals import Signal
from fastslow.task.definition import Task

LEAVE_S = 5.0
"""How long a phase that is stopped at once is waited for."""


class TextScorer:
    """A fast phase's access to the policy; DSPy gets answers while its `engine` is open.

    Prompts are scored on the anchor's examples; optimizers may show those of its pool. `seed` is
    that of draws at a temperature above 0.
    """

    def __init__(
        self, policy: Policy, task: Task, anchor: Anchor, settings: FastSettings, seed: int = 0
    ) -> None:
        examples = (*anchor.examples, *anchor.pool)
        self.anchor = anchor
        self.threads = settings.threads
        self.limit = settings.metric_calls
        self.anchor_set = [to_dspy(example) for example in anchor.examples]
        self.pool = [to_dspy(example) for example in anchor.pool]
        self.metric = Metric(task, examples)
        self.feedback = FeedbackMetric(task, examples)
        self.cache = CompletionCache(policy)
        sampling = Sampling(task.max_tokens)
        self.engine = PolicyEngine(self.cache, policy.renderer, sampling, seed, settings.threads)
        self._policy, self.task = policy, task
        self._before = policy.sampler.num_rollouts
        self._tokens_before = policy.sampler.num_tokens

    @property
    def spent(self) -> int:
        """Rollouts drawn in this phase."""
        return self._policy.sampler.num_rollouts - self._before

    @property
    def tokens(self) -> int:
        """Tokens of those rollouts."""
        return self._policy.sampler.num_tokens - self._tokens_before

    @property
    def remaining(self) -> int:
        """Rollouts that may still be drawn."""
        return self.limit - self.spent

    def score(
        self, *programs: PromptProgram, examples: Sequence[Example] | None = None
    ) -> list[dict[str, float]]:
        """Score of each prompt on each anchor example, or others, by id; none is drawn twice."""
        examples = self.anchor.examples if examples is None else examples
        return score_programs(self._policy, self.task, programs, examples, self.cache)

    def read(
        self, program: PromptProgram, examples: Sequence[Example], signal: Signal
    ) -> dict[str, float | None]:
        """A signal of each example under a prompt, by id; costs no rollout."""
        readings = self._policy.read_prompts(program, examples)
        return {reading.example: signal(reading) for reading in readings}

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Within it DSPy's programs ask the policy, silently; see `isolated`."""
        with isolated(), dspy.context(lm=language_model(self.engine)):
            yield


def build_guard(policy: Policy, task: Task, anchor: Anchor, settings: FastSettings) -> Guard:
    """The limits of new prompts for this model, task and anchor set."""
    everything = (*task.train, *task.validation, *task.test)  # lengths alone; nothing is learned
    longest = max((example.question for example in everything), key=len)

    def count_tokens(program: PromptProgram) -> int:
        return len(policy.renderer.prompt_ids(program, longest)) + task.max_tokens

    limits = [n for n in (settings.max_prompt_tokens, policy.context_length) if n is not None]
    return Guard(
        max_instruction_chars=settings.max_instruction_chars,
        max_prompt_tokens=min(limits, default=None),
        count_tokens=count_tokens,
        scored_on=anchor.examples,
    )


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Keep DSPy's prints to itself and Python's global random stream as it was."""
    logger = logging.getLogger("dspy")
    level, state = logger.level, random.getstate()
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        random.setstate(state)


def in_a_thread(work: Callable[[], None], cancel: Callable[[], None]) -> None:
    """Do DSPy's work outside the main thread, where its executor leaves signals to the run.

    In the main thread it takes Ctrl-C for itself and ends the phase with an error. Where a signal
    stops the run at once, `cancel` is to have the work end soon; a request to a service may go on,
    and nothing waits for its answer.
    """
    outcome: Future[None] = Future()

    def answer() -> None:
        try:
            work()
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    streams = sys.stdout, sys.stderr
    thread = threading.Thread(target=answer, name="fast-phase", daemon=True)
    thread.start()
    try:
        outcome.result()
    except KeyboardInterrupt:
        cancel()
        thread.join(LEAVE_S)
        sys.stdout, sys.stderr = streams  # it may have them caught still
        raise


def scores_by_id(examples: list[Any], scores: list[Any]) -> dict[str, float]:
    """DSPy's scores in the order of `examples`, by example id."""
    return {example.id: float(s) for example, s in zip(examples, scores, strict=True)}
