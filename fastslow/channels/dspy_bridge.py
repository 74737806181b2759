"""The policy as DSPy sees it: an LM engine, an adapter that uses our renderer, a one-step program.

Everything DSPy means differently from us stays in this file: its "adapter" formats messages, its
"program" is a module with a signature and demonstrations, its scores are percentages.
"""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import dspy
from dspy.lm15 import Message as LmMessage
from dspy.lm15 import Request, Response, Usage

from fastslow.errors import ChannelError
from fastslow.policy.engine import Engine
from fastslow.policy.render import Renderer, chat_messages
from fastslow.prompts import Demonstration, PromptProgram
from fastslow.seeds import derive_seed
from fastslow.task import Task
from fastslow.types import Completion, Example, Sampling, TokenIds

GATHER_SECONDS = 0.02
"""How long the engine waits for further concurrent requests before it samples a batch."""
MAX_GATHERED = 64
"""Requests sampled together."""
EMPTY = "\u2205"
"""Stands for an empty text inside DSPy, which replaces empty instructions and completions."""


class Draw(NamedTuple):
    """What a completion depends on, the weights aside."""

    prompt: TokenIds
    temperature: float
    seed: int


Asked: TypeAlias = tuple[Draw, Future[Completion]]


class PolicyEngine:
    """Answers DSPy's requests with the policy; concurrent requests become one batch.

    Use as a context manager: a worker thread lives as long as it does, and so does what was
    answered, since the weights are frozen meanwhile: a request that comes again draws no rollout.
    The first error of the engine is kept and raised on exit, because DSPy turns it into a score of
    0; requests after it fail at once.

    Args:
        engine: The policy's engine.
        renderer: The policy's renderer.
        sampling: How completions are drawn; of DSPy's own settings, only temperature
            and seed are heeded.
        seed: Of the draws, when the temperature is above 0.
    """

    def __init__(
        self, engine: Engine, renderer: Renderer, sampling: Sampling, seed: int = 0
    ) -> None:
        self.engine = engine
        self.renderer = renderer
        self.sampling = sampling
        self.seed = seed
        self.failure: Exception | None = None
        self._requests: queue.Queue[Asked | None] = queue.Queue()
        self._answers: dict[Draw, Future[Completion]] = {}
        self._lock = threading.Lock()
        self._worker = threading.Thread(target=self._serve, name="policy-engine", daemon=True)

    def __enter__(self) -> "PolicyEngine":
        """Start the worker."""
        self._worker.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the worker; raise what went wrong in it.

        Raises:
            ChannelError: A request failed for a reason of the engine's.
        """
        self._requests.put(None)
        self._worker.join()
        if self.failure is not None:
            raise ChannelError(
                f"fast: the policy could not answer a request: {self.failure}"
            ) from self.failure

    def __deepcopy__(self, memo: dict[int, Any]) -> "PolicyEngine":
        """DSPy copies programs with their LM; the weights must not be copied along."""
        return self

    def complete(self, request: Request) -> Response:
        """Answer one request; blocks until its batch is done."""
        messages = [{"role": m.role, "content": _text(m)} for m in request.messages]
        if request.system:
            messages.insert(0, {"role": "system", "content": str(request.system)})
        temperature = float(request.config.temperature or 0.0)
        seed = derive_seed(self.seed, request.config.seed or 0) if temperature else self.seed
        draw = Draw(self.renderer.message_ids(messages), temperature, seed)
        with self._lock:
            if self.failure is not None:
                raise self.failure
            if (answer := self._answers.get(draw)) is None:
                answer = self._answers[draw] = Future()
                self._requests.put((draw, answer))
        completion = answer.result()
        return Response(
            id=None,
            model=request.model,
            message=LmMessage.assistant(completion.text or EMPTY),
            finish_reason="stop" if completion.finish == "stop" else "length",
            usage=Usage(),
        )

    def _serve(self) -> None:
        """Gather requests until none comes for a moment, sample them, hand the answers out."""
        while (first := self._requests.get()) is not None:
            batch = [first]
            while len(batch) < MAX_GATHERED:
                try:
                    item = self._requests.get(timeout=GATHER_SECONDS)
                except queue.Empty:
                    break
                if item is None:
                    self._requests.put(None)
                    break
                batch.append(item)
            self._answer(batch)

    def _answer(self, batch: Sequence[Asked]) -> None:
        for temperature in sorted({draw.temperature for draw, _ in batch}):
            asked = [(draw, answer) for draw, answer in batch if draw.temperature == temperature]
            sampling = replace(self.sampling, temperature=temperature)
            try:
                completions = self.engine.sample(
                    [draw.prompt for draw, _ in asked], sampling, [draw.seed for draw, _ in asked]
                )
            except Exception as err:  # the worker must live, and DSPy would swallow the error
                self.failure = self.failure or err
                for _, answer in asked:
                    answer.set_exception(err)
                continue
            for (_, answer), completion in zip(asked, completions, strict=True):
                answer.set_result(completion)


def _text(message: Any) -> str:
    return "".join(getattr(part, "text", "") for part in message.parts)


class RendererAdapter(dspy.Adapter):  # type: ignore[misc]  # dspy is untyped
    """Formats a DSPy call exactly as `policy.render` formats a prompt program."""

    def format(
        self, signature: Any, demos: list[Any], inputs: Mapping[str, Any]
    ) -> list[dict[str, str]]:
        """Chat messages of one call: system, demonstrations in turns, question."""
        return chat_messages(program_of(signature.instructions, demos), str(inputs["question"]))

    def parse(self, signature: Any, completion: str) -> dict[str, str]:
        """The whole completion is the answer."""
        return {"answer": "" if completion == EMPTY else completion}


class PromptModule(dspy.Module):  # type: ignore[misc]  # dspy is untyped
    """A prompt program as a DSPy module: one predictor, question to answer.

    Args:
        program: The text it starts from.
    """

    def __init__(self, program: PromptProgram) -> None:
        super().__init__()
        signature = dspy.Signature("question -> answer", program.instruction or EMPTY)
        self.respond = dspy.Predict(signature)
        self.respond.demos = [
            dspy.Example(question=d.question, answer=d.answer) for d in program.demonstrations
        ]

    def forward(self, question: str) -> Any:
        """Ask the LM of the present context, rendered by `RendererAdapter`."""
        with dspy.context(adapter=RendererAdapter()):
            return self.respond(question=question)

    def program(self) -> PromptProgram:
        """The prompt program this module holds now, without lineage."""
        return program_of(self.respond.signature.instructions, self.respond.demos)


def program_of(instruction: str, demos: Sequence[Any]) -> PromptProgram:
    """The prompt program of DSPy's instruction and demonstrations."""
    return PromptProgram(
        instruction.removeprefix(EMPTY).lstrip(),
        tuple(Demonstration(str(d["question"]), str(d["answer"])) for d in demos),
    )


def to_dspy(example: Example) -> Any:
    """Our example as one of DSPy's, its id kept."""
    return dspy.Example(
        question=example.question, answer=example.answer, id=example.id
    ).with_inputs("question")


class GuardedModule(PromptModule):
    """A prompt program that an optimizer changes by itself; a refused text asks no model.

    Args:
        program: The text it starts from.
        forbids: Whether a text may not be used.
    """

    def __init__(self, program: PromptProgram, forbids: Callable[[PromptProgram], object]) -> None:
        super().__init__(program)
        self._forbids = forbids

    def forward(self, question: str) -> Any:
        """Answer as `PromptModule` does, or nothing at all."""
        if self._forbids(self.program()):
            return dspy.Prediction(answer="")
        return super().forward(question)


class Metric:
    """A task's grader as a DSPy metric; remembers every score by example id.

    Args:
        task: Gives the grader.
        examples: Every example it may be asked about.
    """

    def __init__(self, task: Task, examples: Sequence[Example]) -> None:
        self.grade = task.grade
        self.examples = {example.id: example for example in examples}

    def __call__(self, example: Any, prediction: Any, trace: object = None) -> float:
        """Score in [0, 1] of one prediction."""
        return self.grade(self.examples[example.id], prediction.answer).score


class PolicyLM(dspy.LM):  # type: ignore[misc]  # dspy is untyped
    """A `dspy.LM` whose `rollout_id`, by which DSPy asks for another draw, reaches the engine."""

    def copy(self, **settings: Any) -> "PolicyLM":
        """See `dspy.LM.copy`; the rollout's number becomes the seed of the request."""
        if settings.get("rollout_id") is not None:
            settings["seed"] = settings["rollout_id"]
        copied: PolicyLM = super().copy(**settings)
        return copied


class FeedbackMetric(Metric):
    """The same score with a sentence that says what was wrong, as GEPA wants it."""

    def __call__(
        self,
        example: Any,
        prediction: Any,
        trace: object = None,
        pred_name: object = None,
        pred_trace: object = None,
    ) -> Any:
        """Score in [0, 1] and feedback."""
        grade = self.grade(self.examples[example.id], prediction.answer)
        return dspy.Prediction(score=grade.score, feedback=grade.reason)


def language_model(engine: PolicyEngine) -> PolicyLM:
    """A language model over the policy; no cache of DSPy's, whose key does not know the weights."""
    return PolicyLM(
        "local/policy",
        engine=engine,
        cache=False,
        num_retries=0,
        temperature=engine.sampling.temperature,
        max_tokens=engine.sampling.max_tokens,
    )
