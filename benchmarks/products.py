"""Who makes float32 products: torch's default against oneDNN, on the default model in one process.

    python -m benchmarks.products --json out.json

Reading is one pass over a text of 700 tokens; learning is the loss and gradient of 32 short answers
to four problems under two texts. Both sides take turns; ratios are medians over the turns. Where
oneDNN would round the factors, fastslow leaves products alone and there is nothing to measure.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.figures import write_figures
from fastslow.policy import model_store
from fastslow.policy.engine.layouts import score_completions
from fastslow.policy.engine.onednn import allow_onednn
from fastslow.policy.policy import Policy, load_policy, with_adapter

TOKENS = 700
"""Of the text that is read."""
SIDES = ("highest", "medium")
"""torch's names: MKL in float32; oneDNN, which `allow_onednn` checked to be float32 as well."""


def reading(policy: Policy) -> None:
    """One pass over a text, without gradients."""
    with torch.no_grad():
        policy.model(input_ids=torch.arange(TOKENS)[None] + 1000, logits_to_keep=1)


def learning(policy: Policy) -> None:
    """Loss and gradient of an update's rows."""
    texts = [tuple(range(start, start + 280)) for start in (1000, 2000)]
    prompts = [
        (*texts[row % 2], *range(3000 + 60 * (row // 8), 3055 + 60 * (row // 8)))
        for row in range(32)
    ]
    scored = score_completions(policy.model, prompts, [(5 + row, 6, 7) for row in range(32)])
    scored.logprobs.sum().backward()  # type: ignore[no-untyped-call]


def measure(work: Callable[[], None], repeats: int) -> dict[str, list[float]]:
    """Seconds of each side's turns, after one turn that does not count."""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for turn in range(repeats + 1):
        for side in SIDES:
            torch.set_float32_matmul_precision(side)
            start = time.perf_counter()
            work()
            if turn:
                seconds[side].append(time.perf_counter() - start)
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; with --json also write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    policy = with_adapter(
        load_policy(model_store.resolve(options.model).path_or_id),
        rank=8,
        alpha=16,
        target_modules="all-linear",
        seed=0,
    )
    if not allow_onednn():
        raise SystemExit("oneDNN rounds on this machine, or is not there; nothing to compare.")
    found: dict[str, dict[str, float]] = {}
    for work in (reading, learning):
        name, seconds = work.__name__, measure(partial(work, policy), options.repeats)
        default, ours = (statistics.median(seconds[side]) for side in SIDES)
        turns = zip(*(seconds[side] for side in SIDES), strict=True)
        ratio = statistics.median(slow / fast for slow, fast in turns)
        found[name] = {"default_seconds": default, "seconds": ours, "speedup": ratio}
        print(f"{name}: {default:.2f} s, with oneDNN {ours:.2f} s, {ratio:.2f} times as fast")
    if options.json:
        write_figures(options.json, found, "products", arguments)


if __name__ == "__main__":
    main()
