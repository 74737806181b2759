"""Is the product right, repeatable and fast on a card? One script that judges itself.

    python -m benchmarks.gpu                      # on a GPU: 8 minutes at most
    python -m benchmarks.gpu --tiny               # small models; by itself where there is no GPU
    python -m benchmarks.gpu --only layouts,rng --budget 120
    python -m benchmarks.gpu --vllm-python /path/to/python    # draws of vLLM, in its environment

Sections: `layouts` and `engine` compare log-probabilities, gradients, draws and KL with float64 and
with plain padded rows, in float32 and bfloat16; `repeat` and `run` want the same bits again, in
another process and after a kill too; `rng` looks at random states; `speed` and `draws` measure.
Each is a process of its own, so that a crash costs one section. Models are random and built in
code. Lines say PASS, FAIL or INFO, the last line is JSON. Exit code 1 if anything failed. With a
GPU the figures are kept in runs/reference/gpu/gpu.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.card import correctness, repeatability, speed
from benchmarks.card.section import Section
from benchmarks.figures import write_figures
from benchmarks.keeping import REFERENCE
from fastslow.policy.placement import repeat_exactly

SECTIONS: Mapping[str, tuple[Callable[[Section], None], float]] = {
    "layouts": (correctness.layouts, 120.0),
    "engine": (correctness.engine, 150.0),
    "repeat": (repeatability.repeat, 150.0),
    "rng": (correctness.rng, 60.0),
    "run": (repeatability.run, 200.0),
    "speed": (speed.speed, 150.0),
    "draws": (speed.draws, 120.0),
}
"""Function and most seconds of each, in the order they run."""
MEASURED = ("speed", "draws")
"""These have the card to themselves; on a card the others run side by side before them."""
BUDGET_S = 480.0
CPU_PATIENCE = 4.0
"""A CPU only tries the script, and may take so many times the seconds."""
LEAST_S = 10.0
"""No section is begun with less."""
KEPT = REFERENCE / "gpu" / "gpu.json"


def run_section(name: str, options: argparse.Namespace, folder: Path, most: float) -> list[Any]:
    """Run a section in a process of its own; its records, and one more if it did not end well."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--section", name, "--folder", str(folder)]
    command += ["--device", options.device, "--budget", str(most)]
    command += ["--tiny"] if options.tiny else []
    command += ["--vllm-python", options.vllm_python] if options.vllm_python else []
    started, failure = time.monotonic(), None
    with (folder / f"{name}.log").open("w+") as log:
        process = subprocess.Popen(command, stdout=None, stderr=log, start_new_session=True)
        try:
            if code := process.wait(timeout=most):
                log.seek(0)
                failure = f"exit code {code}: {log.read().strip()[-600:]}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            failure = f"not done after {most:.0f} s"
    file = folder / f"{name}.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    records = [json.loads(line) for line in lines]
    if failure is not None:
        print(f"FAIL {name}: {failure}", flush=True)
        records.append({"kind": "FAIL", "name": name, "words": failure})
    elif not records:
        records.append({"kind": "FAIL", "name": name, "words": "it checked nothing"})
    print(f"     {name} took {time.monotonic() - started:.0f} s", flush=True)
    return records


def run_all(options: argparse.Namespace) -> list[Any]:
    """Every section that is asked for, as far as the budget goes."""
    on_card = options.device != "cpu"
    patience = 1.0 if on_card else CPU_PATIENCE
    until = time.monotonic() + options.budget * patience
    checks = [name for name in options.only if name not in MEASURED]
    measured = [name for name in options.only if name in MEASURED]
    records: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:

        def work(name: str) -> list[Any]:
            most = min(SECTIONS[name][1] * patience, until - time.monotonic())
            if most >= LEAST_S:
                return run_section(name, options, Path(folder), most)
            print(f"FAIL {name}: left out, no time in --budget", flush=True)
            return [{"kind": "FAIL", "name": name, "words": "left out, no time"}]

        for names, workers in ((checks, len(checks) if on_card else 1), (measured, 1)):
            with ThreadPoolExecutor(max(workers, 1)) as pool:
                for found in pool.map(work, names):
                    records += found
    return records


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections, print what they say, keep it where there is a GPU."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", help="by default the first card, else the CPU")
    parser.add_argument("--tiny", action="store_true", help="small models and shapes")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds for everything")
    parser.add_argument("--only", type=_names, default=list(SECTIONS), help="names, with commas")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--vllm-python", help="an interpreter that has vLLM")
    parser.add_argument("--section", choices=[*SECTIONS, "resume"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.device = options.device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    options.tiny = options.tiny or options.device == "cpu"
    if options.section:
        repeat_exactly(options.device)
        torch.set_float32_matmul_precision("highest")
        work = repeatability.resume if options.section == "resume" else SECTIONS[options.section][0]
        deadline = time.monotonic() + 0.8 * options.budget
        work(
            Section(
                options.section,
                options.device,
                options.tiny,
                options.folder,
                deadline,
                options.vllm_python,
            )
        )
        return 0
    records = run_all(options)
    failed = [record["name"] for record in records if record["kind"] == "FAIL"]
    checks = sum(record["kind"] != "INFO" for record in records)
    figures = {"device": options.device, "tiny": options.tiny, "checks": checks, "failed": failed}
    path = options.json or (KEPT if options.device != "cpu" and not options.tiny else None)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_figures(path, figures | {"records": records}, "gpu", arguments)
    print(json.dumps(figures | {"records": len(records)}))
    return 1 if failed else 0


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(f"no section {unknown[0]!r}, known: {', '.join(SECTIONS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
