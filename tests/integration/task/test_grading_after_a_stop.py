"""A process that stood still for longer than a grader may take, as after Ctrl-Z."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.paths import ROOT

LIMIT_S, STOPPED_S = 3, 6
SCRIPT = f"""
import time
from pathlib import Path
from fastslow.core.types import Example, Grade
from fastslow.task.guarded_grader import GuardedGrader

def grade(example, text):
    Path(text).touch()
    time.sleep(1)
    return Grade(1.0, "right")

guard = GuardedGrader("task", grade, {LIMIT_S}, 1.0)
guard(Example("1", "question", "answer"), "warm")
print(guard(Example("1", "question", "answer"), "begun").reason)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no process can be stopped here")
def test_a_grade_that_came_meanwhile_is_taken(tmp_path: Path) -> None:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{SCRIPT}"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED_S)
        process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        assert process.stdout.read() == "right\n"
    assert process.returncode == 0
