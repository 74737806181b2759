"""Does the same work give the same bits: passes, updates, resuming, and whole runs?"""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.card.correctness import LAYOUTS, state_file
from benchmarks.card.section import Section, build, digest, loss_of, rows_of, trainable
from fastslow.policy.engine.layouts import score_completions
from fastslow.policy.engine.sharing import why_not_shared

RUN = """
name: card
stages: [{{task: first, cycles: 2}}, {{task: second, cycles: 1}}]
tasks:
  first: {{use: "tests.support.toy_tasks:letters"}}
  second: {{use: "tests.support.toy_tasks:letters", params: {{wanted: "mnopqrst"}}}}
model: {{name: {model}, device: {device}, dtype: {dtype}}}
runs_dir: {runs}
cycle: {{optimizer_steps: 2, problems: 2, pool: 8}}
fast: null
slow: {{kind: grpo, group: 4, lr: 0.02}}
evaluation: {{test_examples: 4, validation_examples: 2, kl_examples: 2, neutral: false}}
tracking: null
"""


def repeat(section: Section) -> None:
    """Passes and updates twice here, and the second half of the updates in another process."""
    size = "tiny" if section.is_tiny else "135m"
    shape = (40, 2, 4, 9, 5) if section.is_tiny else (280, 4, 8, 55, 12)
    for dtype in ("float32", "bfloat16"):
        model = build(size, dtype, section.device)
        why_not_shared(model)  # as before any pass of ours
        prompts, completions = rows_of(shape, model.config.vocab_size, prompts=2, ragged=True)
        for layout in LAYOUTS:
            digests = set()
            for _ in range(3):
                model.zero_grad()
                scored = score_completions(model, prompts, completions, layout=layout)
                torch.autograd.backward(loss_of(scored.logprobs))
                grads = [w.grad for w in trainable(model) if w.grad is not None]
                digests.add((digest([scored.logprobs]), digest(grads)))
            words = f"3 passes gave {len(digests)} different results"
            section.check(f"{dtype}/{layout}", len(digests) == 1, words)
    model, optimizer = _fresh(section, size)
    _updates(model, optimizer, range(2))
    moments = {
        f"{index}.{name}": value.clone().contiguous()
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    weights = {f"w{index}": w.detach().clone() for index, w in enumerate(trainable(model))}
    save_file(weights | moments, state_file(section.folder))
    _updates(model, optimizer, range(2, 4))
    end = digest(trainable(model))
    model, optimizer = _fresh(section, size)
    _updates(model, optimizer, range(4))
    section.check("four updates twice", digest(trainable(model)) == end, "bit for bit")
    options = ["--device", section.device, "--folder", str(section.folder)]
    command = [sys.executable, "-m", "benchmarks.gpu", "--section", "resume", *options]
    command += ["--tiny"] if section.is_tiny else []
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    resumed = output.strip().rpartition("\n")[2]
    section.check("resumed in another process", resumed == end, f"{resumed} against {end}")


def resume(section: Section) -> None:
    """The other process of `repeat`: prints the digest it ends with."""
    model, optimizer = _fresh(section, "tiny" if section.is_tiny else "135m")
    saved = load_file(state_file(section.folder), device=section.device)
    state: dict[int, dict[str, Any]] = {}
    with torch.no_grad():
        for index, weight in enumerate(trainable(model)):
            weight.copy_(saved.pop(f"w{index}"))
    for key, value in saved.items():
        index_text, _, name = key.partition(".")
        state.setdefault(int(index_text), {})[name] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    _updates(model, optimizer, range(2, 4))
    print(digest(trainable(model)))


def _fresh(section: Section, size: str) -> tuple[Any, torch.optim.AdamW]:
    model = build(size, "float32", section.device)
    return model, torch.optim.AdamW(trainable(model), lr=1e-3, weight_decay=0.01)


def _updates(model: Any, optimizer: torch.optim.AdamW, steps: range) -> None:
    for step in steps:
        rows = rows_of(
            (60, 3, 4, 12, 6), model.config.vocab_size, prompts=2, ragged=True, seed=step
        )
        torch.autograd.backward(loss_of(score_completions(model, *rows).logprobs))
        torch.nn.utils.clip_grad_norm_(trainable(model), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def run(section: Section) -> None:
    """The product itself: trained, trained again, killed and resumed, to one adapter."""
    from tests.support.tiny import save_tiny

    model = save_tiny(section.folder / "model")
    for dtype in ("float32",) if section.is_tiny else ("float32", "bfloat16"):
        names = ["whole", "killed"] if section.is_tiny else ["whole", "killed", "again"]
        with ThreadPoolExecutor(1 if section.is_tiny else len(names)) as pool:
            train = partial(_train, section, model, dtype)
            whole, *others = pool.map(train, names)
        for words, other in zip(("killed and resumed", "trained twice"), others, strict=False):
            is_same = whole is not None and other == whole
            section.check(f"{dtype}/{words}", is_same, f"{other} against {whole}")


def _train(section: Section, model: Path, dtype: str, name: str) -> str | None:
    """The digest of the adapter that a run of this name ends with; None where it failed."""
    runs, file = section.folder / f"{name}-{dtype}", section.folder / f"{name}-{dtype}.yaml"
    device = "cuda" if section.on_card else "cpu"
    file.write_text(RUN.format(model=model, device=device, dtype=dtype, runs=runs))
    places = [str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "fastslow", *words],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    process = start("train", str(file))
    if name == "killed":
        while process.poll() is None and not list(runs.glob("*/resume/000-001*")):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        [card] = runs.glob("*/run.json")
        process = start("resume", str(card.parent))
    _, errors = process.communicate()
    what = f"{dtype}/{name}"
    last = errors.strip().rpartition("\n")[2][:300]
    section.check(what, process.returncode == 0, f"exit code {process.returncode}. {last}")
    if process.returncode:
        return None
    [adapter] = runs.glob("*/stages/001-second/adapter_model.safetensors")
    tensors = load_file(adapter)
    return digest(tensors[key] for key in sorted(tensors))
