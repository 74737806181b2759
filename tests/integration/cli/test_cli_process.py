"""The command line as a process: how fast it answers, and how it ends when interrupted."""

import fcntl
import os
import resource
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FASTSLOW = [sys.executable, "-m", "fastslow"]


@pytest.mark.parametrize(
    ("words", "limit"), [(["--help"], 1.0), (["check", "configs/experiments/demo.yaml"], 2.0)]
)
def test_it_answers_at_once(words: list[str], limit: float) -> None:
    """Processor seconds: what it takes on an idle machine, whatever else runs beside this test.

    `check` builds the tasks, one of which loads word lists.
    """
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*FASTSLOW, *words], cwd=ROOT, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert 0 < statistics.median(seconds) < limit, seconds


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
