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

from fastslow.core.text import shorten
from fastslow.core.types import TokenIds
from fastslow.policy.engine import block_attention
from fastslow.policy.engine.decoding import BranchedRows, SharedRows, read_trunk
from fastslow.policy.engine.generating import next_logits
from fastslow.policy.engine.head import evaluating, plain_head
from fastslow.policy.engine.prefixes import PrefixGroup
from fastslow.policy.engine.states import packed_states, padded_states
from fastslow.policy.engine.tree import tree_states

WINDOWS = ("sliding_window", "attention_chunk_size", "attention_window_size", "window_size")
"""Names under which configurations keep how far back attention reaches."""
TOLERANCE = 1e-3
"""Largest difference in float32, as a share of a row's length, that counts as rounding."""
PROOF_TOKENS = 24
"""Length of the rows that a model is tried on."""
COARSE_TOLERANCE = 5e-2
"""As `TOLERANCE`, in number formats of fewer digits."""

logger = logging.getLogger(__name__)


def why_not_shared(model: Any) -> str | None:
    """Why rows of this model cannot share tokens, in log-probabilities or draws; None if they can.

    Sharing needs attention whose mask is ours to give: full attention in every layer, no state
    carried from token to token, no image or audio parts; and a head that is a plain linear layer.
    """
    reason: str | None = keep(model, "no_mask", lambda: _no_mask(model))
    if reason is None and plain_head(model) is None:
        reason = f"the head of {_family(model)} is not a plain frozen linear layer"
    if reason is None:
        reason = keep(model, "unequal", lambda: _proven(model))
    return _told(model, reason)


def why_unusable(model: Any) -> str | None:
    """Why no completion of this model can be drawn or scored; None if it can."""
    reason: str | None = keep(model, "unusable", lambda: _misread(model))
    return reason


def _misread(model: Any) -> str | None:
    """A reason that three rows give, one of them the beginning of another; else None.

    A batch padded on the right must give what each row gives by itself, what comes later must not
    be seen, and drawing must give what reading does. Whether the model's cache does is kept.
    """
    long = _rows(model, (PROOF_TOKENS,))[0]
    short, mirrored = long[: PROOF_TOKENS // 2], tuple(reversed(long))
    padded = short + (short[-1],) * (len(long) - len(short))
    try:
        with torch.no_grad(), evaluating(model):
            alone = [_logits(model, [row])[0] for row in (short, long, mirrored)]
            batch = _logits(model, [padded, long, mirrored])
            firsts = [int(logits[-1].argmax()) for logits in alone[1:]]
            read = [
                _logits(model, [(*r, t)])[0, -1]
                for r, t in zip((long, mirrored), firsts, strict=True)
            ]
            cached, uncached = [
                next_logits(model, [long, mirrored], cache=c) for c in (True, False)
            ]
    except Exception as error:  # any model of the user's runs here for the first time
        return f"it cannot be read or continued, {_first_line(error)}"
    if not all(bool(torch.isfinite(logits).all()) for logits in alone):
        return "its logits are not finite numbers"
    if not _equal(model, alone[0], alone[1][: len(short)]):
        return (
            "its logits at a token depend on tokens after it, so it is not a causal language model "
            "as configured"
        )
    together = torch.cat([batch[0, : len(short)], *batch[1:]])
    if not _equal(model, torch.cat(alone), together):
        return "its logits of a row depend on the rows next to it"
    if not _equal(model, torch.stack(read), uncached):
        return "what it generates is not drawn from the logits of its own forward pass"
    keep(model, "caches", lambda: _equal(model, torch.stack(read), cached))
    return None


def caches(model: Any) -> bool:
    """Whether the model's own cache gives what reading the whole row again gives."""
    why_unusable(model)  # finds the answer on its way, unless it is known
    return bool(keep(model, "caches", lambda: False))


def pads_left(model: Any) -> bool:
    """Whether prompts of different lengths, padded on the left, are continued as each by itself.

    True of most attention, whatever its window; where chunks are counted from the first column,
    padding would move them.
    """
    return bool(keep(model, "pads_left", lambda: _continues_padded(model)))


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


def _proven(model: Any) -> str | None:
    """A reason that two rows give; then the model's attention is what it was."""
    attention = model.config._attn_implementation
    reason = _unequal(model)
    if reason is not None:
        model.config._attn_implementation = attention
    return reason


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
            expected = torch.cat([_logits(model, [p + c[:1]])[:, -1] for p, c in rows])
            for state in _decoders(model, prompts, trunk):
                state.start()
                if not _equal(model, expected, state.advance(firsts)):
                    return f"{_family(model)} does not continue rows together as it continues one"
        except Exception as error:  # a family may refuse a mask or a cache in any way
            return f"{_family(model)} takes no mask or cache of ours ({_first_line(error)})"
    return None


def _decoders(
    model: Any, prompts: list[TokenIds], trunk: TokenIds
) -> tuple[SharedRows, BranchedRows]:
    def cache(tokens: TokenIds) -> Any:
        return read_trunk(model, tokens)

    group = PrefixGroup(trunk, tuple(range(len(prompts))))
    return SharedRows(model, prompts, [group], cache), BranchedRows(model, prompts, trunk, cache)


def _continues_padded(model: Any) -> bool:
    if getattr(model.config.get_text_config(), "attention_chunk_size", None):
        return False
    rows = _rows(model, (3, 8))
    try:
        with evaluating(model):
            cache = caches(model)
            together = next_logits(model, rows, cache=cache)
            alone = torch.cat([next_logits(model, [row], cache=cache) for row in rows])
    except Exception:  # a family may refuse a mask in any way; then lengths are kept apart
        return False
    return _equal(model, alone, together)


def keep(model: Any, name: str, find: Callable[[], Any]) -> Any:
    """What was found under this name for the model's base, found now if it never was."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    answers = base.__dict__.setdefault("_fastslow_answers", {})
    if name not in answers:
        answers[name] = find()
    return answers[name]


def _told(model: Any, reason: str | None) -> str | None:
    """The reason, logged once per model."""
    if reason is not None:
        keep(model, "told", lambda: logger.warning("Prompts are not shared: %s.", reason))
    return reason


def _logits(model: Any, rows: list[TokenIds]) -> Tensor:
    """Logits [rows, width, vocabulary] of rows of one length, without mask or cache."""
    ids = torch.tensor(rows, device=model.device)
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits.float().cpu()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {shorten(lines[0], 200) if lines else ''}"


def _rows(model: Any, lengths: tuple[int, ...]) -> list[TokenIds]:
    """Rows of these lengths, of varied tokens; all begin alike where one is as long as another."""
    vocabulary = model.config.get_text_config().vocab_size
    return [tuple((11 + 7 * i * i + 3 * i) % vocabulary for i in range(n)) for n in lengths]


def _equal(model: Any, expected: Tensor, got: Tensor) -> bool:
    expected, got = expected.float().cpu(), got.float().cpu()
    share = TOLERANCE if model.dtype == torch.float32 else COARSE_TOLERANCE
    # per row of the last axis, so that no row hides behind larger ones
    gap, size = (expected - got).norm(dim=-1), expected.norm(dim=-1)
    return bool((gap <= share * size.clamp(min=1e-3)).all())


def _family(model: Any) -> str:
    return str(model.config.model_type)
