"""For torchrun: `fastslow` whose second process is killed at the end of a slow phase, from 1.

torchrun ... tests/support/killed_run.py CALL WORD...
"""

import os
import signal
import sys
from itertools import count
from typing import Any

from fastslow.channels.slow.channel import SlowChannel
from fastslow.cli.main import main
from fastslow.core.distributed import is_leader


def kill_after(number: int) -> None:
    """Have this process killed, unless it is the leader, when its call of this number has ended."""
    inner, calls = SlowChannel.adapt, count(1)

    def adapt(*args: Any) -> Any:
        result = inner(*args)
        if next(calls) == number and not is_leader():
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(SlowChannel, "adapt", adapt)  # noqa: B010  # mypy knows its signature


if __name__ == "__main__":
    kill_after(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
