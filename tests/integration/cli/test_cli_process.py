"""The command line as a process: how fast it answers, and how it ends when interrupted."""

import fcntl
import os
import resource
import signal
import statistics
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

FASTSLOW = [sys.executable, "-m", "fastslow"]


HEAVY = "import torch, dspy; from trl import GRPOTrainer"
"""What a run imports."""


def test_it_answers_at_once() -> None:
    """Long before what a run imports could have been; `check` builds tasks with word lists.

    In processor seconds side by side, so that neither a slow machine nor a busy one matters.
    """
    heavy = processor_seconds(["-W", "ignore", "-c", HEAVY], times=1)
    assert processor_seconds(["-m", "fastslow", "--help"]) < 0.1 * heavy
    check = ["-m", "fastslow", "check", "configs/experiments/demo.yaml"]
    assert processor_seconds(check) < 0.4 * heavy


def processor_seconds(words: list[str], times: int = 3) -> float:
    """The median over some runs of Python under these words."""
    seconds = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(seconds)


def test_an_interrupt_ends_with_code_130_and_one_line(model_cache: Path) -> None:
    models = model_cache / "models"
    models.mkdir(parents=True)
    with (models / ".smollm2-135m-instruct.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [*FASTSLOW, "models", "fetch", "smollm2-135m-instruct"],
            cwd=ROOT,
            env=os.environ | {"FASTSLOW_HOME": str(model_cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # a shell that started the tests in the background has them ignore it
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert process.stdout is not None
        assert "waiting for it" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "Interrupted.\n"


def test_output_that_nobody_reads_is_no_error() -> None:
    command = f"{sys.executable} -m fastslow check --keys | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "# Configuration keys\n"
    assert "Traceback" not in done.stderr
