"""How fast this machine runs a model: a few seconds of its real passes, kept for later.

Rates are kept in the cache folder, under everything they depend on: the model's files, number
format, device, threads, processor, library versions. `config/cost.py` turns them into minutes.
"""

import hashlib
import json
import os
import platform
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fastslow.core.decode import shaped
from fastslow.core.files import read_json, write_file
from fastslow.core.types import Sampling, TokenIds
from fastslow.policy.model_store import cache_home

if TYPE_CHECKING:
    from fastslow.policy.policy import Policy  # imports torch

T = TypeVar("T")

PREFILLED, DECODED, TRAINED = 8, 64, 16
"""Rows of the passes that are timed. 64 is a full batch of the engine."""
ENOUGH_S = 4.0
"""A pass that has taken so long is not repeated."""
LIMIT = 9
"""Tokens drawn per row at most: the first comes with the prompt's pass, each other is a step."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds that a model's work takes on one machine, and its memory."""

    load_s: float
    """Imports and loading the model."""
    prefill_s: float
    """One prompt token read, without gradient."""
    step_s: float
    """One decoding step, however many rows it has."""
    row_step_s: float
    """What each row adds to a decoding step."""
    trained_s: float
    """One token forward and backward, with the adapter's gradient."""
    loaded_gb: float
    """Peak memory of the process once the model is loaded, in 10^9 bytes."""

    def scaled(self, factor: float) -> "Rates":
        """Those of a model `factor` times as large, on the same machine."""
        names = ("prefill_s", "step_s", "row_step_s", "trained_s")
        return replace(self, **{name: getattr(self, name) * factor for name in names})


def measure_rates(policy: "Policy", load_s: float) -> Rates:
    """Time the passes of a loaded policy; weights and prompts stay as they are.

    Each pass runs up to three times and its fastest time counts: the first one also allocates, and
    other processes only add to it.
    """
    rng, tokenizer = random.Random(0), policy.tokenizer
    vocabulary = sorted(set(range(len(tokenizer))) - tokenizer.added_tokens_decoder.keys())

    def row(tokens: int) -> TokenIds:
        return tuple(rng.choices(vocabulary, k=tokens))

    def draw(rows: list[TokenIds], limit: int) -> tuple[float, int, int]:
        sampling, seeds = Sampling(limit, temperature=1.0), range(len(rows))
        seconds, completions = _timed(lambda: policy.sampler.sample(rows, sampling, seeds))
        steps = [len(completion.token_ids) - 1 for completion in completions]
        return seconds, max(steps), sum(steps)

    loaded_gb = peak_gb(policy.device)
    prompts, ends = ([row(size) for _ in range(PREFILLED)] for size in (90, 6))
    prefill_s = _timed(lambda: policy.scorer.logprobs(prompts, ends))[0] / (PREFILLED * 96)
    # seconds = tokens read * prefill_s + steps * step_s + rows in them * row_step_s
    seconds, steps, _ = draw([row(16)], LIMIT)
    per_step = max(0.0, seconds - 16 * prefill_s) / max(1, steps)  # of a single row
    trunk = row(16)
    seconds, steps, row_steps = draw([trunk + row(8) for _ in range(DECODED)], LIMIT)
    seconds -= (16 + 8 * DECODED) * prefill_s
    # a token drawn is read as well
    row_step_s = max(prefill_s, (seconds - steps * per_step) / max(1, row_steps - steps))
    step_s = max(0.0, per_step - row_step_s)
    return Rates(load_s, prefill_s, step_s, row_step_s, _trained_s(policy, row), loaded_gb)


def peak_gb(device: str) -> float:
    """Most memory that this process has had, on the device if that is an accelerator; 10^9 bytes.

    On the CPU the resident set, by the system's account.
    """
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated() / 1e9
    try:
        import resource
    except ImportError:  # Windows, whose account has the peak; another system's has today's
        import psutil

        memory = psutil.Process().memory_info()
        return float(getattr(memory, "peak_wset", memory.rss)) / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if platform.system() == "Darwin" else peak * 1024 / 1e9


def num_parameters(policy: "Policy") -> tuple[int, int]:
    """Parameters of the model with its adapter, and those of them that are trained."""
    weights = policy.adapters.trainable().values()
    total = sum(weight.numel() for weight in policy.model.parameters())
    return total, sum(weight.numel() for weight in weights)


def rates_file(model: Path, dtype: str, device: str) -> str:
    """Name of the cache's file of the rates of a model folder, here."""
    sizes = sorted((path.name, path.stat().st_size) for path in model.glob("*.safetensors"))
    affinity = getattr(os, "sched_getaffinity", None)
    identity = [
        (model / "config.json").read_text(encoding="utf-8"),
        *(sizes, dtype, device, os.environ.get("OMP_NUM_THREADS")),
        *(len(affinity(0)) if affinity else os.cpu_count(), platform.machine(), _processor()),
        *(version(package) for package in ("torch", "transformers", "fastslow")),
    ]
    return f"{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]}.json"


def read_rates(model: Path, dtype: str, device: str) -> Rates | None:
    """The rates that were measured here before; None without any, or if the file is damaged."""
    try:
        name = rates_file(model, dtype, device)
        return shaped(Rates, read_json(cache_home() / "rates" / name))
    except (OSError, ValueError, TypeError):
        return None


def write_rates(model: Path, dtype: str, device: str, rates: Rates) -> None:
    """Keep rates for `read_rates`; `OSError` where the cache cannot be written."""
    root = cache_home()
    root.mkdir(parents=True, exist_ok=True)
    write_file(root, f"rates/{rates_file(model, dtype, device)}", json.dumps(asdict(rates)))


def _trained_s(policy: "Policy", row: Callable[[int], TokenIds]) -> float:
    """Rows that share a prompt, as in an update; thrice a pass without gradient if none learns."""
    trunk = row(96)
    prompts, answers = [trunk + row(24) for _ in range(TRAINED)], [row(6) for _ in range(TRAINED)]
    weights = policy.adapters.trainable().values()

    def work() -> None:
        loss = policy.completion_logprobs(prompts, answers).sum()
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        for weight in weights:
            weight.grad = None

    return _timed(work)[0] * (1 if weights else 3) / (96 + TRAINED * 30)


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds of the fastest of up to three calls, and what the last gave."""
    import torch

    seconds: list[float] = []
    while len(seconds) < 3 and sum(seconds) < ENOUGH_S:
        started = time.perf_counter()
        result = work()
        if torch.cuda.is_available():  # a card is still at it when the call has returned
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds), result


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
