"""What it takes to bring a new version of the adapter to a vLLM server: bytes, and seconds.

    python -m benchmarks.vllm_swap --url http://127.0.0.1:8000 --json out.json
    python -m benchmarks.vllm_swap --managed --json out.json

A swap is writing the version, loading it, and the proof, as a run makes them. The server is that of
the named model; a managed one is started for the benchmark.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import write_figures
from fastslow.core.types import Sampling, TokenIds
from fastslow.policy.engine.settings import VllmConfig
from fastslow.policy.engine.vllm.sampler import VllmSampler, vllm_sampler
from fastslow.policy.model_store import resolve
from fastslow.policy.policy import Policy, load_policy, with_adapter

PROMPTS: list[TokenIds] = [tuple(range(1000 + 100 * row, 1060 + 100 * row)) for row in range(8)]


def swaps(policy: Policy, sampler: VllmSampler, repeats: int) -> list[float]:
    """Seconds of swaps to ever new weights."""
    weights, seconds = policy.adapters.copied(), []
    for repeat in range(repeats):
        policy.adapters.put({n: w + 1e-4 * (repeat + 1) for n, w in weights.items()})
        before = sampler.swap_s
        sampler.sample(PROMPTS[:1], Sampling(1), [0])
        seconds.append(sampler.swap_s - before)
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; with --json write the figures too."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--url", help="a server that runs already")
    place.add_argument("--managed", action="store_true", help="start one")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)

    model = resolve(options.model).path_or_id
    lora = {"rank": options.rank, "alpha": 2 * options.rank, "target_modules": "all-linear"}
    policy = with_adapter(load_policy(model), **lora, seed=1)
    engine = VllmConfig(
        kind="vllm", urls=(options.url,) if options.url else (), managed=options.managed
    )
    trainable = policy.adapters.trainable().values()
    size = sum(weight.numel() * weight.element_size() for weight in trainable)
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        vllm_sampler(
            policy, engine, model=model, rank=options.rank, prompts=PROMPTS, run=Path(folder)
        ) as sampler,
    ):
        start_s = time.monotonic() - started
        seconds = swaps(policy, sampler, options.repeats)
    figures = {
        "model": options.model,
        "rank": options.rank,
        "bytes": size,
        "start_s": round(start_s, 1),
        "swap_s": [round(second, 3) for second in seconds],
        "median_swap_s": round(statistics.median(seconds), 3),
    }
    print(f"{size:,} bytes a swap, {figures['median_swap_s']} s (median of {options.repeats})")
    if options.json:
        write_figures(options.json, figures, "vllm_swap", arguments)


if __name__ == "__main__":
    main()
