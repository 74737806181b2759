"""Proof that a server draws with the weights that are trained, asked of every version it loads.

Three checks, after tinker-cookbook PR 928: what was asked for answers; it differs from the base
where the trainer's does; its log-probabilities are those of the trainer, as nearly as the base's
are. Asked by draws, as a run draws: a score of a prompt would pass by a stale cache.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from fastslow.core.errors import EngineError
from fastslow.core.seeds import derive_seed
from fastslow.core.types import Sampling, TokenIds
from fastslow.policy.engine.interface import Scorer
from fastslow.policy.engine.vllm.client import Draw

PROOF = Sampling(max_tokens=16, temperature=1.0)
"""A draw of a proof."""
ROWS = 4
"""Prompts of a proof, at most."""
NOISE = 1e-5
"""Mean distance of log-probabilities, in nats, that floating-point sums of 32 bits explain."""
FARTHEST = {"float32": 1e-2, "bfloat16": 0.15}
"""Mean distance of the bases' log-probabilities, in nats, by the trainer's number format, above
which they are two models, or computed in two formats."""

DrawAll = Callable[[Sequence[TokenIds], Sampling, Sequence[int]], list[Draw]]
"""Draws a completion per prompt and seed from one model of one server."""


@dataclass(frozen=True)
class Floor:
    """A server's base next to the trainer's."""

    nats: float
    """Mean distance of log-probabilities over the tokens of the draws."""
    draws: tuple[Draw, ...]
    """Of the base."""

    @property
    def bound(self) -> float:
        """Mean distance, in nats, that an adapter may have: twice that without one."""
        return 2 * max(self.nats, NOISE)


class Proofs:
    """Asks servers the same prompts every time.

    Args:
        scorer: The trainer.
        prompts: Real ones, some long enough to be cached; the first `ROWS` are asked.
        dtype: The trainer's number format.
    """

    def __init__(self, scorer: Scorer, prompts: Sequence[TokenIds], dtype: str) -> None:
        self._scorer = scorer
        self._prompts = prompts[:ROWS]
        self._farthest = FARTHEST[dtype]
        self._seeds = [derive_seed(0, "proof", row) for row in range(len(self._prompts))]

    def floor(self, server: str, draw: DrawAll) -> Floor:
        """How far a server's base is from the trainer's.

        Raises:
            EngineError: So far that it is another model.
        """
        draws = draw(self._prompts, PROOF, self._seeds)
        nats = _distance(_logprobs(draws), self._trainer(draws, adapter=False))
        if nats > self._farthest:
            raise EngineError(
                f"engine: the vLLM server {server} has another base than the run: without an "
                f"adapter its log-probabilities are {nats:.2g} nats from the trainer's, "
                f"{self._farthest:g} at most are rounding. Start it with the model of model.name "
                "and --dtype as model.dtype."
            )
        return Floor(nats, tuple(draws))

    def check(self, server: str, name: str, floor: Floor, draw: DrawAll) -> None:
        """Make sure that the adapter `name`, which `draw` asks, is the trainer's present one.

        Raises:
            EngineError: It is not; says what it is like.
        """
        draws = draw(self._prompts, PROOF, self._seeds)
        tuned, base = (self._trainer(draws, adapter=adapter) for adapter in (True, False))
        from_tuned, from_base = (_distance(_logprobs(draws), each) for each in (tuned, base))
        effect = _distance(tuned, base)
        if from_tuned <= floor.bound:
            # closer to the base than it can be told apart, or shown to differ from it
            if effect <= floor.bound or not _equal(draws, floor.draws):
                return
            reason = "it answers as the base does, token by token"
        elif from_base <= floor.bound:
            reason = (
                "it answers as the base does: the adapter is loaded but not applied. vLLM may not "
                "serve the modules it is on; see slow.lora.target_modules"
            )
        else:
            reason = (
                "it is neither the trainer's nor the base: an earlier version, a cache of one, or "
                "an adapter on modules of which vLLM serves some; see slow.lora.target_modules"
            )
        raise EngineError(
            f"engine: the vLLM server {server} does not draw with the adapter that was trained, "
            f"{name}: {reason}. Its log-probabilities are {from_tuned:.2g} nats from the trainer's "
            f"and {from_base:.2g} from the base's; {floor.bound:.2g} are allowed, twice the "
            "distance without an adapter."
        )

    def _trainer(self, draws: Sequence[Draw], *, adapter: bool) -> list[tuple[float, ...]]:
        """The trainer's log-probabilities of what was drawn."""
        tokens = [draw.token_ids for draw in draws]
        return self._scorer.logprobs(self._prompts, tokens, adapter=adapter)


def _logprobs(draws: Sequence[Draw]) -> list[tuple[float, ...]]:
    return [draw.logprobs for draw in draws]


def _distance(logprobs: Sequence[tuple[float, ...]], others: Sequence[tuple[float, ...]]) -> float:
    """Mean absolute difference over all tokens, in nats."""
    rows = zip(logprobs, others, strict=True)
    return fmean(abs(p - q) for pair in rows for p, q in zip(*pair, strict=True))


def _equal(draws: Sequence[Draw], others: Sequence[Draw]) -> bool:
    """Whether they are the same tokens with the same log-probabilities, up to noise."""
    same_tokens = all(a.token_ids == b.token_ids for a, b in zip(draws, others, strict=True))
    return same_tokens and _distance(_logprobs(draws), _logprobs(others)) <= NOISE
