"""How fast: an update against stock TRL, draws against `generate`, both as a share of the card."""

import gc
import json
import subprocess
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.card.section import (
    Section,
    Shape,
    build,
    engine_of,
    loss_of,
    padded_batch,
    rows_of,
)
from fastslow.core.types import Sampling, TokenIds
from fastslow.policy.engine.layouts import cheapest, score_completions
from fastslow.policy.engine.states import pack_inputs

PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
}
"""Dense bfloat16 operations per second by the name of the card, the first that fits. Source:
NVIDIA's data sheets, halved where they count with sparsity."""
SHAPES: tuple[Shape, ...] = ((280, 4, 8, 55, 6), (1000, 8, 8, 60, 128), (40, 8, 8, 60, 256))
TINY_SHAPES: tuple[Shape, ...] = ((60, 2, 4, 11, 6),)


def card_peak(name: str) -> float | None:
    """Of a card by its name; None for one that is not in the table."""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def gemm_rate(section: Section, dtype: str) -> float:
    """Operations per second of a large product: what the machine gives here."""
    size = 8192 if section.on_card else 512
    factors = [
        torch.randn(size, size, device=section.device, dtype=getattr(torch, dtype))
        for _ in range(2)
    ]
    return 2.0 * size**3 / section.seconds(lambda: torch.mm(*factors), repeats=10)


def speed(section: Section) -> None:
    """Forward and backward of an update, ours against TRL's padded rows."""
    peak = card_peak(torch.cuda.get_device_name()) if section.on_card else None
    for size in ("tiny",) if section.is_tiny else ("0.5b", "135m"):
        for dtype in ("float32",) if section.is_tiny else ("bfloat16", "float32"):
            rate = gemm_rate(section, dtype)
            section.note(f"{dtype}/GEMM", f"{rate / 1e12:.2f} TFLOP/s", rate=rate)
            model = build(size, dtype, section.device)
            model.train()
            trainer = _trl(model)
            for shape in TINY_SHAPES if section.is_tiny else SHAPES:
                if section.is_late:
                    section.note(f"{size}/{dtype}/{shape}", "left out, no time")
                    continue
                what = f"{size}/{dtype}/{','.join(map(str, shape))}"
                own_peak = peak if dtype == "bfloat16" else None
                _compare(section, (model, trainer), what, shape, (rate, own_peak))
            del model, trainer
            gc.collect()


def _trl(model: Any) -> Any:
    """TRL's own trainer around the model, for its log-prob function alone."""
    from benchmarks.slow_step import stock_trainer  # imports trl
    from tests.support.tiny import tiny_tokenizer

    policy: Any = SimpleNamespace(model=model, tokenizer=tiny_tokenizer())
    return stock_trainer(policy, 2, 2, 8, lambda completions, **_: [0.0] * len(completions))


def _compare(
    section: Section,
    sides: tuple[Any, Any],
    what: str,
    shape: Shape,
    rates: tuple[float, float | None],
) -> None:
    """One shape with the model and TRL's trainer; the rates are the GEMM's and the card's."""
    from benchmarks.slow_step import operations

    (model, trainer), (rate, peak) = sides, rates
    prompts, completions = rows_of(shape, model.config.vocab_size)
    batch = padded_batch(prompts, completions, section.device)

    def ours() -> None:
        model.zero_grad()
        torch.autograd.backward(loss_of(score_completions(model, prompts, completions).logprobs))

    def stock(rows: int) -> None:
        model.zero_grad()
        ids, mask, keep = batch
        for start in range(0, len(ids), rows):
            part = slice(start, start + rows)
            scored = trainer._get_per_token_logps_and_entropies(
                model, ids[part], mask[part], keep, compute_entropy=True
            )
            torch.autograd.backward(loss_of(scored[0]))

    rows = largest_that_fits(stock, len(prompts))
    seconds, stock_s = section.seconds(ours), section.seconds(partial(stock, rows))
    unique = len(pack_inputs(prompts, completions).tokens)
    effective = sum(map(len, prompts)) + sum(map(len, completions))
    done = operations(model, shape) / seconds
    figures = {
        "seconds": seconds,
        "stock_seconds": stock_s,
        "stock_rows": rows,
        "speedup": stock_s / seconds,
        "layout": cheapest(model, prompts, completions),
        "unique_tokens_per_s": unique / seconds,
        "effective_tokens_per_s": effective / seconds,
        "gemm_share": done / rate,
        "mfu": done / peak if peak else None,
        "mib": section.peak_mib(ours),
        "stock_mib": section.peak_mib(partial(stock, rows)),
    }
    words = (
        f"{seconds * 1e3:.0f} ms, {stock_s / seconds:.1f} times as fast as TRL; "
        f"{unique / seconds:,.0f} unique and {effective / seconds:,.0f} row tokens a second; "
        f"{done / rate:.0%} of the GEMM rate over unique tokens"
    )
    if section.on_card:
        section.check(what, stock_s >= seconds, words, **figures)
    else:
        section.note(what, words, **figures)


def largest_that_fits(work: Callable[[int], None], rows: int) -> int:
    """Rows at a time that the memory takes, halved from all of them."""
    while rows > 1:
        try:
            work(rows)
        except torch.OutOfMemoryError:
            rows //= 2
            gc.collect()
            torch.cuda.empty_cache()
        else:
            return rows
    return rows


def draws(section: Section) -> None:
    """Tokens per second of the engine, of `generate`, and where it is given of vLLM."""
    for size in ("tiny",) if section.is_tiny else ("135m", "0.5b"):
        model = build(size, "float32" if section.is_tiny else "bfloat16", section.device)
        for rows, limit in ((8, 4),) if section.is_tiny else ((64, 16), (64, 128)):
            what = f"{size}/{rows} rows of {limit}"
            if section.is_late:
                section.note(what, "left out, no time")
                continue
            prompts, _ = rows_of((280, rows // 8, 8, 20, 1), model.config.vocab_size, prompts=2)
            _time_draws(section, model, what, prompts, limit)
        if section.vllm_python:
            _time_vllm(section, model, size)
        del model
        gc.collect()


def _time_draws(
    section: Section, model: Any, what: str, prompts: list[TokenIds], limit: int
) -> None:
    sampler = engine_of(model)
    sampler.stop_ids = frozenset()  # every row to its limit
    ids, mask, _ = padded_batch(prompts, [(5,)] * len(prompts), section.device)

    def generate() -> None:
        with torch.no_grad():
            model.get_base_model().generate(
                input_ids=ids[:, :-1],
                attention_mask=mask[:, :-1],
                do_sample=True,
                top_k=0,
                max_new_tokens=limit,
                min_new_tokens=limit,
                eos_token_id=None,
                pad_token_id=0,
            )

    seeds, sampling = range(len(prompts)), Sampling(limit, 1.0)
    seconds = section.seconds(lambda: sampler.sample(prompts, sampling, seeds), repeats=2)
    theirs = section.seconds(generate, repeats=2)
    tokens = len(prompts) * limit
    section.note(
        what,
        f"{tokens / seconds:,.0f} tokens a second, transformers' generate {tokens / theirs:,.0f}",
        tokens_per_s=tokens / seconds,
        generate_tokens_per_s=tokens / theirs,
    )


VLLM = """
import json, sys, time
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest
folder, adapter, rows, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
prompts = json.load(open(sys.argv[5]))
llm = LLM(folder, skip_tokenizer_init=True, dtype="bfloat16", enable_lora=True, max_lora_rank=8,
          enable_prefix_caching=True, gpu_memory_utilization=0.5)
params = SamplingParams(max_tokens=limit, temperature=1.0, ignore_eos=True, detokenize=False)
asked = [{"prompt_token_ids": prompt} for prompt in prompts]
for name in ("warm", "timed"):
    started = time.perf_counter()
    llm.generate(asked, params, lora_request=LoRARequest(name, 1, adapter), use_tqdm=False)
print(json.dumps(rows * limit / (time.perf_counter() - started)))
"""
"""Rollouts of a trainer that draws with vLLM, as TRL's does: the same rows, with the adapter."""


def _time_vllm(section: Section, model: Any, size: str) -> None:
    rows, limit = 64, 128
    prompts, _ = rows_of((280, 8, 8, 20, 1), model.config.vocab_size, prompts=2)
    base, adapter = section.folder / f"{size}-base", section.folder / f"{size}-adapter"
    rows_file = section.folder / f"{size}-rows.json"
    rows_file.write_text(json.dumps(prompts))
    model.save_pretrained(adapter)
    model.unload().save_pretrained(base)
    words = [str(section.vllm_python), "-c", VLLM, str(base), str(adapter), str(rows), str(limit)]
    result = subprocess.run(
        [*words, str(rows_file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=max(60.0, section.deadline - time.monotonic()),
    )
    last = (result.stdout or result.stderr).strip().rpartition("\n")[2]
    if result.returncode:
        section.note(f"{size}/vLLM", f"exit code {result.returncode}: {last[:200]}")
        return
    rate = float(last)
    section.note(f"{size}/vLLM", f"{rate:,.0f} tokens a second", tokens_per_s=rate)
