"""Children that end with the process that started them."""

import subprocess
import sys
import time

import pytest

from fastslow.core.processes import ends_with_us, start_of

PARENT = """
import subprocess, sys, time
from fastslow.core.processes import ends_with_us
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
print(subprocess.Popen(sleep, preexec_fn=ends_with_us()).pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_child_ends_when_its_parent_is_killed() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert start_of(child) is not None
        parent.kill()
    while start_of(child) is not None:  # the suite's own limit ends this where it never comes
        time.sleep(0.05)


def test_elsewhere_nothing_is_asked_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert ends_with_us() is None
