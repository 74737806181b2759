"""The policy as DSPy sees it: an LM engine, an adapter that uses our renderer, a one-step program.

Everything DSPy means differently from us stays in this file: its "adapter" formats messages, its
"program" is a module with a signature and demonstrations, its scores are percentages.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.lm15 import Message as LmMessage
from dspy.lm15 import Request, Response, Usage

from fastslow.channels.fast.completion_cache import CompletionCache
from fastslow.channels.fast.demo_order import Order, as_found
from fastslow.channels.fast.feedback import feedback
from fastslow.core.errors import ChannelError
from fastslow.core.prompts import Demonstration, PromptProgram
from fastslow.core.seeds import derive_seed
from fastslow.core.types import Completion, Example, Sampling, TokenIds
from fastslow.policy.engine.interface import Sampler
from fastslow.policy.render import Message, Renderer, chat_messages
from fastslow.task.definition import Task

GATHER_SECONDS = 0.02
"""A batch that is not full is drawn when no further request came for this long."""
MAX_GATHERED = 64
"""Requests sampled together, at most."""
EMPTY = "\u2205"
"""Stands for an empty text inside DSPy, which replaces empty instructions and completions."""


@dataclass(frozen=True)
class _Waiting:
    """A request without an answer so far."""

    prompt: TokenIds
    sampling: Sampling
    seed: int
    answer: Future[Completion]


class PolicyEngine:
    """Answers DSPy's requests with the policy; concurrent requests become one batch.

    Use as a context manager: a worker thread lives as long as it does. The first error of the
    sampler is kept and raised on exit, because DSPy turns it into a score of 0. No caller waits
    for ever: those that still do when the block ends, in any way, or when the worker dies, get an
    error.

    A completion depends on its prompt, decoding and seed alone, not on other requests. A request's
    own temperature and limit come before those of `sampling`, and its own seed is mixed in. A batch
    is complete when `threads` requests wait.
    """

    def __init__(
        self,
        sampler: CompletionCache | Sampler,
        renderer: Renderer,
        sampling: Sampling,
        seed: int = 0,
        threads: int = MAX_GATHERED,
    ) -> None:
        self.sampler = sampler
        self.renderer = renderer
        self.sampling = sampling
        self.seed = seed
        self.most = min(threads, MAX_GATHERED)
        self.failure: BaseException | None = None
        self._waiting: list[_Waiting] = []
        self._changed = threading.Condition()
        self._open = False
        self._worker = threading.Thread(target=self._serve, name="policy-engine", daemon=True)

    def __enter__(self) -> "PolicyEngine":
        """Start the worker."""
        self._open = True
        self._worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Stop the worker, after the batch it is drawing; raise its first error.

        Raises:
            ChannelError: The sampler failed on a request.
        """
        self.cancel()
        self._worker.join()
        is_ours = kind is None or issubclass(kind, Exception)  # Ctrl-C passes through
        if self.failure is not None and is_ours:
            raise ChannelError(
                f"fast: the policy could not answer a request: {self.failure}"
            ) from self.failure

    def __deepcopy__(self, memo: dict[int, Any]) -> "PolicyEngine":
        """DSPy copies programs with their LM; the weights must not be copied along."""
        return self

    def complete(self, request: Request) -> Response:
        """Answer one request; blocks until its batch is done.

        Raises:
            ChannelError: The engine is not open, or was closed before the answer came.
        """
        prompt = self.renderer.message_ids(request_messages(request))
        sampling, seed = self._decoding(request.config, prompt)
        waiting = _Waiting(prompt, sampling, seed, Future())
        with self._changed:
            if not self._open:
                raise ChannelError("fast: a request came after the policy's last answer.")
            self._waiting.append(waiting)
            self._changed.notify()
        completion = waiting.answer.result()
        return Response(
            id=None,
            model=request.model,
            message=LmMessage.assistant(completion.text or EMPTY),
            finish_reason="stop" if completion.finish == "stop" else "length",
            usage=Usage(),
        )

    def cancel(self) -> None:
        """Take no more requests; those that wait get an error, a batch being drawn its answers."""
        with self._changed:
            self._open = False
            dropped, self._waiting = self._waiting, []
            self._changed.notify()
        for waiting in dropped:
            waiting.answer.set_exception(ChannelError("fast: the phase ended before the answer."))

    def _decoding(self, config: Any, prompt: TokenIds) -> tuple[Sampling, int]:
        """How to draw an answer; above temperature 0 each prompt has a stream of its own."""
        usual = self.sampling
        temperature = usual.temperature if config.temperature is None else config.temperature
        limit = usual.max_tokens if config.max_tokens is None else config.max_tokens
        if temperature == 0:
            return Sampling(limit), 0
        seed = derive_seed(self.seed, "request", config.seed or 0, *prompt)
        return Sampling(limit, temperature), seed

    def _serve(self) -> None:
        """Answer batches until the engine is closed; in any case nobody is left waiting."""
        try:
            while isinstance(self.failure, Exception | None) and (batch := self._gather()):
                self._answer(batch)
        finally:
            self.cancel()

    def _gather(self) -> list[_Waiting]:
        """As many requests as may be in flight, or fewer when no more come; none once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._open)
            seen = 0
            while seen < len(self._waiting) < self.most:
                seen = len(self._waiting)
                self._changed.wait(GATHER_SECONDS)
            batch, self._waiting = self._waiting[: self.most], self._waiting[self.most :]
        return batch

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        """Draw the answers of a batch; requests with the same decoding together."""
        try:
            for sampling in dict.fromkeys(waiting.sampling for waiting in batch):
                alike = [waiting for waiting in batch if waiting.sampling == sampling]
                completions = self.sampler.sample(
                    [waiting.prompt for waiting in alike], sampling, [w.seed for w in alike]
                )
                for waiting, completion in zip(alike, completions, strict=True):
                    waiting.answer.set_result(completion)
        except BaseException as err:  # every waiting caller must get it
            self.failure = self.failure or err
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(err)


def request_messages(request: Request) -> list[Message]:
    """The chat messages of a DSPy request, as the renderer takes them."""
    messages = [{"role": m.role, "content": _text(m.parts)} for m in request.messages]
    system = [{"role": "system", "content": text}] if (text := system_text(request)) else []
    return [*system, *messages]


def system_text(request: Request) -> str:
    """The system text of a request, empty without one."""
    system = request.system or ""
    return system if isinstance(system, str) else _text(system)


def _text(pieces: Sequence[Any]) -> str:
    return "".join(str(getattr(piece, "text", "")) for piece in pieces)


class RendererAdapter(dspy.Adapter):  # type: ignore[misc]  # dspy is untyped
    """Formats a DSPy call exactly as `policy.render` does, the demonstrations in an order."""

    def __init__(self, order: Order = as_found) -> None:
        super().__init__()
        self.order = order

    def format(
        self, signature: Any, demos: list[Any], inputs: Mapping[str, Any]
    ) -> list[dict[str, str]]:
        """Chat messages of one call: system, demonstrations in turns, question."""
        program = program_of(signature.instructions, demos, self.order)
        return chat_messages(program, str(inputs["question"]))

    def parse(self, signature: Any, completion: str) -> dict[str, str]:
        """The whole completion is the answer."""
        return {"answer": "" if completion == EMPTY else completion}


class PromptModule(dspy.Module):  # type: ignore[misc]  # dspy is untyped
    """A prompt as a DSPy module: one predictor, question to answer.

    Demonstrations are shown in `order`, whichever optimizer puts them in.
    """

    def __init__(self, program: PromptProgram, order: Order = as_found) -> None:
        super().__init__()
        self.order = order
        signature = dspy.Signature("question -> answer", program.instruction or EMPTY)
        self.respond = dspy.Predict(signature)
        self.respond.demos = [
            dspy.Example(question=d.question, answer=d.answer) for d in program.demonstrations
        ]

    def forward(self, question: str) -> Any:
        """Ask the LM of the present context, rendered by `RendererAdapter`."""
        with dspy.context(adapter=RendererAdapter(self.order)):
            return self.respond(question=question)

    def program(self) -> PromptProgram:
        """The prompt this module holds now, without lineage."""
        return program_of(self.respond.signature.instructions, self.respond.demos, self.order)


def program_of(instruction: str, demos: Sequence[Any], order: Order = as_found) -> PromptProgram:
    """The prompt of DSPy's instruction and demonstrations, those in `order`."""
    return PromptProgram(
        instruction.removeprefix(EMPTY).lstrip(),
        order([Demonstration(str(d["question"]), str(d["answer"])) for d in demos]),
    )


def to_dspy(example: Example) -> Any:
    """Our example as one of DSPy's, its id kept."""
    return dspy.Example(
        question=example.question, answer=example.answer, id=example.id
    ).with_inputs("question")


class GuardedModule(PromptModule):
    """A prompt that an optimizer changes by itself; one that `forbids` refuses asks no model."""

    def __init__(self, program: PromptProgram, forbids: Callable[[PromptProgram], object]) -> None:
        super().__init__(program)
        self._forbids = forbids

    def forward(self, question: str) -> Any:
        """Answer as `PromptModule` does, or nothing at all."""
        if self._forbids(self.program()):
            return dspy.Prediction(answer="")
        return super().forward(question)


class Metric:
    """A task's grader as a DSPy metric, for all `examples` that may be scored."""

    def __init__(self, task: Task, examples: Sequence[Example]) -> None:
        self.grade = task.grade
        self.examples = {example.id: example for example in examples}

    def __call__(self, example: Any, prediction: Any, trace: object = None) -> float:
        """Score in [0, 1] of one prediction."""
        return self.grade(self.examples[example.id], prediction.answer).score


class FeedbackMetric(Metric):
    """The same score with a sentence that says what was wrong, as GEPA needs it."""

    def __call__(
        self,
        example: Any,
        prediction: Any,
        trace: object = None,
        pred_name: object = None,
        pred_trace: object = None,
    ) -> Any:
        """Score in [0, 1] and feedback."""
        ours = self.examples[example.id]
        grade = self.grade(ours, prediction.answer)
        return dspy.Prediction(score=grade.score, feedback=feedback(ours, prediction.answer, grade))


class PolicyLM(dspy.LM):  # type: ignore[misc]  # dspy is untyped
    """A `dspy.LM` whose `rollout_id` reaches the engine, as the seed; DSPy itself strips it."""

    def copy(self, **changes: Any) -> "PolicyLM":
        """A copy with other settings; another `rollout_id` draws other completions."""
        if "rollout_id" in changes:
            changes["seed"] = changes["rollout_id"]
        copied: PolicyLM = super().copy(**changes)
        return copied


def language_model(engine: PolicyEngine) -> PolicyLM:
    """A `dspy.LM` over the policy; no cache of DSPy's, whose key does not know the weights."""
    return PolicyLM(
        "local/policy",
        engine=engine,
        cache=False,
        num_retries=0,
        temperature=engine.sampling.temperature,
        max_tokens=engine.sampling.max_tokens,
    )
