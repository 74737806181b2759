"""The policy's base as a language model that answers DSPy's requests, one at a time."""

import hashlib
import threading

from dspy.lm15 import Message, Request, Response, Usage

from fastslow.channels.fast.dspy_bridge import request_messages
from fastslow.channels.fast.reflection.endpoint import Answer, NoAnswer, no_answer
from fastslow.core.seeds import derive_seed
from fastslow.core.types import Sampling
from fastslow.policy.policy import Policy


class OwnBase:
    """The policy's base as a language model: the adapter is off while it answers.

    Its draws are not rollouts of a task: the engine does not count them, `Reflection` does. A
    request drawn again under the same seed gets another answer.
    """

    def __init__(self, policy: Policy, seed: int) -> None:
        self._policy = policy
        self._seed = seed
        self._asked: dict[str, int] = {}
        self._lock = threading.Lock()

    def complete(self, request: Request) -> Answer:
        """Draw one answer.

        Raises:
            NoAnswer: The request and its answer are too long for the model or the memory.
        """
        ids = self._policy.renderer.message_ids(request_messages(request))
        digest = hashlib.sha256(repr(ids).encode()).hexdigest()
        with self._lock:
            number = self._asked[digest] = self._asked.get(digest, 0) + 1
        limit = request.config.max_tokens
        assert limit is not None, "the reflection LM always states one"
        sampling = Sampling(limit, request.config.temperature or 0.0)
        window = self._policy.context_length
        if window is not None and len(ids) + limit > window:
            raise NoAnswer(
                f"{len(ids)} tokens of request and {limit} of answer do not fit into the model's "
                f"{window}. Lower fast.reflection.max_tokens, or ask a model that reads more.",
                "another",
            )
        draws = derive_seed(self._seed, "reflection", digest, number)
        try:
            [completion] = self._policy.sampler.sample([ids], sampling, [draws], adapter=False)
        except (RuntimeError, MemoryError) as err:  # too long for the memory, for example
            raise no_answer(err, []) from err
        response = Response(
            id=None,
            model=request.model,
            message=Message.assistant(completion.text or " "),  # DSPy refuses an empty one
            finish_reason="stop" if completion.finish == "stop" else "length",
            usage=Usage(input_tokens=len(ids), output_tokens=len(completion.token_ids)),
        )
        return Answer(response, None)
