"""Draws by transformers' own `generate`, for models whose mask or cache is not ours to set.

Whatever a family keeps from token to token (windows, states, convolutions, nothing), transformers
knows how to keep it; only the choice of the next token is ours. Prompts of one call are of one
length, or padded on the left where that is proven (`sharing.py`).
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fastslow.core.types import TokenIds
from fastslow.policy.engine.decoding import draw

PAD = 0
"""Stands under the mask, and after the end of a row."""


class Drawing:
    """A logits processor that draws each row's next token by its own generator and keeps it."""

    def __init__(
        self,
        temperature: float,
        generators: Sequence[torch.Generator],
        stop_ids: Collection[int],
    ) -> None:
        self.temperature = temperature
        self.generators = generators
        self.stop_ids = stop_ids
        self.tokens: list[list[int]] = [[] for _ in generators]
        self.logprobs: list[list[float]] = [[] for _ in generators]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leave only the drawn token of each row possible; scores are logits [rows, vocabulary]."""
        live = [i for i, row in enumerate(self.tokens) if not row or row[-1] not in self.stop_ids]
        logits = scores[live].float()
        tokens, scored = draw(logits, self.temperature, [self.generators[i] for i in live])
        chosen = torch.full((len(scores),), PAD)
        chosen[live] = tokens.cpu()
        for row, token, logprob in zip(live, tokens.tolist(), scored.tolist(), strict=True):
            self.tokens[row].append(token)
            self.logprobs[row].append(logprob)
        forced = torch.full_like(scores, float("-inf"))
        return forced.scatter_(1, chosen[:, None].to(scores.device), 0.0)


def generate_rows(
    model: Any, prompts: Sequence[TokenIds], max_tokens: int, drawing: Drawing, *, cache: bool
) -> None:
    """Continue every prompt by up to `max_tokens` tokens, which `drawing` chooses and keeps.

    Without `cache` every step reads the whole rows again.
    """
    from transformers import LogitsProcessorList

    width = max(map(len, prompts))
    ids = torch.tensor([[*[PAD] * (width - len(p)), *p] for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    with _nothing_configured(base, max_tokens, list(drawing.stop_ids)):
        base.generate(
            input_ids=ids,
            attention_mask=mask.to(model.device),
            logits_processor=LogitsProcessorList([drawing]),
            use_cache=cache,
        )


@torch.no_grad()
def next_logits(model: Any, prompts: Sequence[TokenIds], *, cache: bool) -> Tensor:
    """Logits [prompts, vocabulary] of the second token after each prompt, the first being greedy.

    So both the reading of the prompts and the step after their cache stand in them.
    """
    steps: list[Tensor] = []

    class Keeping(Drawing):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            steps.append(scores.float().cpu())
            return super().__call__(input_ids, scores)

    drawing = Keeping(0.0, [torch.Generator()] * len(prompts), ())
    generate_rows(model, prompts, 2, drawing, cache=cache)
    return steps[-1]


@contextmanager
def _nothing_configured(base: Any, max_tokens: int, stop_ids: list[int]) -> Iterator[None]:
    """Within it no generation setting of the model's own (penalties, lengths) reaches a draw."""
    from transformers import GenerationConfig

    configured = base.generation_config
    base.generation_config = GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=stop_ids or None,
        pad_token_id=PAD,
        bos_token_id=getattr(configured, "bos_token_id", None),
    )
    try:
        yield
    finally:
        base.generation_config = configured
