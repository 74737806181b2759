"""What a loaded model can do, asked of its configuration first and then proven on a few tokens.

Families differ in windows, states, positions and masks, and new ones appear every month. No list of
them is kept: a way of reading rows together is used where it gives what a row gives by itself.
Each answer is found once and kept with the model.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastslow.core.types import TokenIds
from fastslow.policy.engine import block_attention
from fastslow.policy.engine.decoding import BranchedRows, SharedRows, read_trunk
from fastslow.policy.engine.head import evaluating, plain_head
from fastslow.policy.engine.prefixes import PrefixGroup
from fastslow.policy.engine.states import packed_states, padded_states
from fastslow.policy.engine.tree import tree_states

WINDOWS = ("sliding_window", "attention_chunk_size", "attention_window_size", "window_size")
"""Names under which configurations keep how far back attention reaches."""
TOLERANCE = 1e-3
"""Largest difference in float32, as a share of the largest value, that counts as rounding."""
COARSE_TOLERANCE = 5e-2
"""As `TOLERANCE`, in number formats of fewer digits."""

logger = logging.getLogger(__name__)


def why_not_shared(model: Any) -> str | None:
    """Why rows of this model cannot share tokens, in log-probabilities or draws; None if they can.

    Sharing needs attention whose mask is ours to give: full attention in every layer, no state
    carried from token to token, no image or audio parts; and a head that is a plain linear layer.
    """
    reason: str | None = _kept(model, "no_mask", lambda: _no_mask(model))
    if reason is None and plain_head(model) is None:
        reason = f"the head of {_family(model)} is not a plain frozen linear layer"
    if reason is None:
        reason = _kept(model, "unequal", lambda: _unequal(model))
    return _told(model, reason)


def why_unusable(model: Any) -> str | None:
    """Why no completion of this model can be scored at all; None if it can.

    Proven on two rows of which one begins with the other: what comes later must not be seen.
    """
    short, long = _rows(model, (7, 12))
    try:
        with torch.no_grad(), evaluating(model):
            alone = model(input_ids=_batch(model, [short]), use_cache=False).logits[0]
            longer = model(input_ids=_batch(model, [long]), use_cache=False).logits[0]
    except Exception as error:  # any model of the user's runs here for the first time
        return f"it does not read plain token ids, {type(error).__name__}: {error}"
    if not bool(torch.isfinite(longer).all()):
        return "its logits are not finite numbers"
    if not _equal(model, alone, longer[: len(short)]):
        return (
            "a token's logits depend on tokens that come after it, so it is not a causal language "
            "model as configured"
        )
    return None


def pads_left(model: Any) -> bool:
    """Whether prompts of different lengths, padded on the left, are continued as each by itself.

    True of most attention, whatever its window; where chunks are counted from the first column,
    padding would move them.
    """
    return bool(_kept(model, "pads_left", lambda: _continues_padded(model)))


def _no_mask(model: Any) -> str | None:
    """A reason that the configuration gives."""
    config = model.config.get_text_config()
    family = _family(model)
    if getattr(model.config, "is_encoder_decoder", False) or hasattr(model.config, "vision_config"):
        return f"{family} is not a plain decoder"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        return f"the layers of {family} are of kinds {', '.join(sorted(kinds))}"
    if getattr(config, "use_sliding_window", True) and any(
        getattr(config, name, None) for name in WINDOWS
    ):
        return f"{family} attends within a window"
    if model.config._attn_implementation not in ("sdpa", block_attention.ATTENTION):
        return f"the attention of {family} cannot be exchanged for ours"
    return None


@torch.no_grad()
def _unequal(model: Any) -> str | None:
    """A reason that two ragged rows give: they do not come out as each does by itself."""
    # a trunk of nine tokens, tails of three and six, completions of three and two
    row = _rows(model, (23,))[0]
    trunk, tails, completions = row[:9], (row[9:12], row[12:18]), (row[18:21], row[21:23])
    prompts = [trunk + tail for tail in tails]
    with evaluating(model):
        try:
            rows = list(zip(prompts, completions, strict=True))
            alone = torch.cat([padded_states(model, [p], [c])[0] for p, c in rows])
            for states_of in (packed_states, tree_states):
                states, nodes = states_of(model, prompts, completions)
                if not _equal(model, alone, states[[node for path in nodes for node in path]]):
                    return f"{_family(model)} does not read rows together as it reads one"
            firsts = torch.tensor([completion[0] for completion in completions])
            expected = torch.stack([_next_logits(model, p + c[:1]) for p, c in rows])
            for state in _decoders(model, prompts, trunk):
                state.start()
                if not _equal(model, expected, state.advance(firsts)):
                    return f"{_family(model)} does not continue rows together as it continues one"
        except Exception as error:  # a family may refuse a mask or a cache in any way
            return (
                f"{_family(model)} takes no mask or cache of ours "
                f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
            )
    return None


def _decoders(
    model: Any, prompts: list[TokenIds], trunk: TokenIds
) -> tuple[SharedRows, BranchedRows]:
    def cache(tokens: TokenIds) -> Any:
        return read_trunk(model, tokens)

    group = PrefixGroup(trunk, tuple(range(len(prompts))))
    return SharedRows(model, prompts, [group], cache), BranchedRows(model, prompts, trunk, cache)


def _continues_padded(model: Any) -> bool:
    from fastslow.policy.engine.generating import next_logits

    config = model.config.get_text_config()
    if getattr(config, "attention_chunk_size", None):
        return False
    rows = _rows(model, (3, 8))
    try:
        with evaluating(model):
            together = next_logits(model, rows)
            alone = torch.cat([next_logits(model, [row]) for row in rows])
    except Exception:  # a family may refuse a mask in any way; then lengths are kept apart
        return False
    return _equal(model, alone, together)


def _kept(model: Any, name: str, find: Callable[[], Any]) -> Any:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    answers = base.__dict__.setdefault("_fastslow_answers", {})
    if name not in answers:
        answers[name] = find()
    return answers[name]


def _told(model: Any, reason: str | None) -> str | None:
    """The reason, logged once per model."""
    if reason is not None:
        _kept(model, "told", lambda: logger.warning("Prompts are not shared: %s.", reason))
    return reason


def _next_logits(model: Any, row: TokenIds) -> Tensor:
    logits: Tensor = model(input_ids=_batch(model, [row]), use_cache=False).logits[0, -1]
    return logits.float().cpu()


def _batch(model: Any, rows: list[TokenIds]) -> Tensor:
    return torch.tensor(rows, device=model.device)


def _rows(model: Any, lengths: tuple[int, ...]) -> list[TokenIds]:
    """Rows of these lengths, of varied tokens; all begin alike where one is as long as another."""
    vocabulary = model.config.get_text_config().vocab_size
    return [tuple((11 + 7 * i * i + 3 * i) % vocabulary for i in range(n)) for n in lengths]


def _equal(model: Any, expected: Tensor, got: Tensor) -> bool:
    expected, got = expected.float().cpu(), got.float().cpu()
    share = TOLERANCE if model.dtype == torch.float32 else COARSE_TOLERANCE
    limit = share * float(expected.abs().max().clamp(min=1e-3))
    return bool((expected - got).abs().max() <= limit)


def _family(model: Any) -> str:
    return str(model.config.model_type)
