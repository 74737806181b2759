"""Are the numbers right: log-probabilities, gradients, draws, KL and random states?"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from benchmarks.card.section import (
    Section,
    build,
    engine_of,
    gradient,
    loss_of,
    padded_batch,
    rows_of,
    stock_logprobs,
)
from fastslow.core.seeds import load_generators, save_generators, seed_generators
from fastslow.core.types import Sampling, TokenIds
from fastslow.policy.adapter.parts import start_fresh, trainable_weights
from fastslow.policy.engine import torch_engine
from fastslow.policy.engine.layouts import Layout, score_completions
from fastslow.policy.engine.sharing import why_not_shared

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
FLOAT32_ERROR = 1e-4
"""Of a gradient in float32, as a share of its norm."""
TIMES_STOCK = 3.0
"""In bfloat16 our error is at most so many times that of plain padded rows in bfloat16."""


def layouts(section: Section) -> None:
    """Every layout against float64, row by row; at real size against padded rows."""
    shape = (37, 3, 4, 13, 7)
    for dtype in ("float32", "bfloat16"):
        model = build("tiny", dtype, section.device)
        exact = copy.deepcopy(model).double()
        reason = why_not_shared(model)
        section.check(f"{dtype}/shares", reason is None, reason or "rows share their tokens")
        for kind, prompts, ragged in (("even", 1, False), ("ragged", 2, True)):
            rows = rows_of(shape, 1024, prompts=prompts, ragged=ragged, seed=3)
            expected = _pass(exact, partial(_reference, exact, *rows))
            errors = {
                name: _errors(_pass(model, work), expected)
                for name, work in _sides(model, rows, section.device).items()
            }
            stock = errors.pop("stock")
            for name, (nats, share) in errors.items():
                allowed = FLOAT32_ERROR if dtype == "float32" else TIMES_STOCK * max(stock[1], 1e-3)
                section.check(
                    f"{dtype}/{kind}/{name}",
                    share < allowed,
                    f"log-probabilities off by {nats:.1e} nats, the gradient by {share:.1e} of its "
                    f"norm; plain padded rows by {stock[0]:.1e} and {stock[1]:.1e}",
                    nats=nats,
                    gradient=share,
                    stock_gradient=stock[1],
                )
    if not section.is_tiny:
        _at_real_size(section)


def _at_real_size(section: Section) -> None:
    for dtype, allowed in (("float32", 1e-3), ("bfloat16", 0.1)):
        model = build("135m", dtype, section.device)
        vocab = model.config.vocab_size
        rows = rows_of((280, 4, 4, 55, 12), vocab, prompts=2, ragged=True)
        sides = _sides(model, rows, section.device)
        padded = _pass(model, sides["padded"])
        for name in ("packed", "tree"):
            nats, share = _errors(_pass(model, sides[name]), padded)
            section.check(
                f"135m/{dtype}/{name}",
                share < allowed,
                f"against padded: {nats:.1e} nats, gradient {share:.1e} of its norm",
                nats=nats,
                gradient=share,
            )


Rows = tuple[Sequence[TokenIds], Sequence[TokenIds]]
Pass = tuple[Tensor, Tensor]
"""All log-probabilities in one line, and the adapter's gradient."""


def _pass(model: Any, work: Callable[[], list[Tensor]]) -> Pass:
    model.zero_grad()
    logprobs = work()
    torch.autograd.backward(loss_of(logprobs))
    flat = torch.cat([row.detach().double().cpu() for row in logprobs])
    return flat, gradient(model)


def _errors(found: Pass, expected: Pass) -> tuple[float, float]:
    """Largest difference in nats, and that of the gradients as a share of the norm."""
    nats = float((found[0] - expected[0]).abs().max())
    return nats, float((found[1] - expected[1]).norm() / expected[1].norm())


def _reference(
    model: Any, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
) -> list[Tensor]:
    logprobs = []
    for prompt, completion in zip(prompts, completions, strict=True):
        ids = torch.tensor([prompt + completion], device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        targets = ids[0, len(prompt) :, None]
        logprobs.append(torch.log_softmax(logits, -1).gather(-1, targets)[:, 0])
    return logprobs


def _sides(model: Any, rows: Rows, device: str) -> dict[str, Callable[[], list[Tensor]]]:
    prompts, completions = rows
    sizes = list(map(len, completions))

    def ours(layout: Layout) -> list[Tensor]:
        logprobs = score_completions(model, prompts, completions, layout=layout).logprobs
        return [row[:size] for row, size in zip(logprobs, sizes, strict=True)]

    def stock() -> list[Tensor]:
        ids, mask, keep = padded_batch(prompts, completions, device)
        logprobs = stock_logprobs(model, ids, mask, keep)
        return [row[:size] for row, size in zip(logprobs, sizes, strict=True)]

    return {"stock": stock} | {layout: partial(ours, layout) for layout in LAYOUTS}


def engine(section: Section) -> None:
    """Draws by seed, alone and together, in both forms; log-probabilities; KL; the base."""
    size = "tiny" if section.is_tiny else "135m"
    for dtype, close in (("float32", 2e-3), ("bfloat16", 0.5)):
        model = build(size, dtype, section.device)
        prompts, _ = rows_of((64, 6, 2, 13, 1), model.config.vocab_size, prompts=2, ragged=True)
        sampler, seeds, sampling = engine_of(model), range(len(prompts)), Sampling(12, 1.0)
        drawn = sampler.sample(prompts, sampling, seeds)
        section.check(f"{dtype}/again", sampler.sample(prompts, sampling, seeds) == drawn, "same")
        alone = [sampler.sample([p], sampling, [s])[0] for p, s in zip(prompts, seeds, strict=True)]
        greedy = sampler.sample(prompts, Sampling(12), seeds)
        shared, torch_engine.MAX_SHARED_TOKENS = torch_engine.MAX_SHARED_TOKENS, 0
        branched = sampler.sample(prompts, Sampling(12), seeds)
        torch_engine.MAX_SHARED_TOKENS = shared
        for what, one, other in (("alone", drawn, alone), ("branched", greedy, branched)):
            same = sum(a.token_ids == b.token_ids for a, b in zip(one, other, strict=True))
            words = f"{same} of {len(prompts)} rows alike"
            if dtype == "float32":  # rounding may turn a draw over, in one row
                section.check(f"{dtype}/{what}", same >= len(prompts) - 1, words, same=same)
            else:
                section.note(f"{dtype}/{what}", words, same=same)
        tokens = [completion.token_ids for completion in drawn]
        scored, base = (sampler.logprobs(prompts, tokens, adapter=on) for on in (True, False))
        kept = [completion.logprobs for completion in drawn]
        gap = _largest_gap(scored, kept)
        section.check(f"{dtype}/drawn against scored", gap < close, f"{gap:.1e} nats at most")
        gap = _largest_gap(scored, base)
        section.check(f"{dtype}/the adapter has an effect", gap > 1e-2, f"{gap:.1e} nats at most")
        values = [value for row in sampler.kl_to_base(prompts[:4], tokens[:4]) for value in row]
        holds = min(values) > -1e-4 and max(values) > 0
        section.check(f"{dtype}/kl", holds, f"{min(values):.1e} to {max(values):.1e} nats")


def _largest_gap(rows: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float:
    pairs = zip(rows, others, strict=True)
    return max(abs(a - b) for row, other in pairs for a, b in zip(row, other, strict=True))


def rng(section: Section) -> None:
    """Random states come back, and draws of our own leave no trace."""
    seed_generators(5)
    save_generators(section.folder)
    one = torch.rand(4, device=section.device).cpu(), torch.rand(4)
    load_generators(section.folder)
    two = torch.rand(4, device=section.device).cpu(), torch.rand(4)
    section.check("restored", all(map(torch.equal, one, two)), "the same numbers again")
    model = build("tiny", "float32", section.device)
    torch.manual_seed(1)
    expected = torch.rand(2, device=section.device)
    torch.manual_seed(1)
    start_fresh(model, 9)
    same = torch.equal(torch.rand(2, device=section.device), expected)
    section.check("no trace", same, "a fresh adapter leaves the stream as it was")
    other = build("tiny", "float32", "cpu")
    start_fresh(other, 9)
    pairs = zip(trainable_weights(model).values(), trainable_weights(other).values(), strict=True)
    section.check("as on the CPU", all(torch.equal(a.cpu(), b) for a, b in pairs), "one adapter")
    if section.on_card:
        cards = torch.cuda.device_count()
        used = sum(torch.cuda.memory_reserved(card) > 0 for card in range(cards))
        section.check("own card", used == 1, f"memory on {used} of {cards} cards")
    (section.folder / "random.json").unlink()


def state_file(folder: Path) -> Path:
    """Of the weights and moments that another process goes on from."""
    return folder / "point.safetensors"
