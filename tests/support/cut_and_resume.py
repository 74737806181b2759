"""For torchrun: a run that is never stopped, one cut in its second stage, and that one resumed.

    torchrun ... tests/support/cut_and_resume.py CALL FILE OVERRIDE...

The second is interrupted when its slow channel has ended its phase number CALL, in every process.
"""

import sys
from itertools import count
from pathlib import Path
from typing import Any

from fastslow.channels.slow.channel import SlowChannel
from fastslow.cli.main import main
from fastslow.core.distributed import disconnect
from fastslow.loop import launch


def interrupted_after(number: int) -> Any:
    """`SlowChannel.adapt` that interrupts the process at the end of this call, from 1."""
    inner, calls = SlowChannel.adapt, count(1)

    def adapt(*args: Any) -> Any:
        result = inner(*args)
        if next(calls) == number:
            raise KeyboardInterrupt
        return result

    return adapt


def cut_and_resume(number: int, words: list[str]) -> None:
    """Leaves the run folders `whole` and `cut`, each in a folder of that name."""
    folder = Path(words[0]).parent
    setattr(launch, "disconnect", lambda: None)  # noqa: B010  # they cannot meet a second time
    assert main(["train", *words, f"runs_dir={folder / 'whole'}"]) == 0
    inner = SlowChannel.adapt
    SlowChannel.adapt = interrupted_after(number)  # type: ignore[method-assign]
    assert main(["train", *words, f"runs_dir={folder / 'cut'}"]) == 130
    SlowChannel.adapt = inner  # type: ignore[method-assign]
    [run] = (path.parent for path in (folder / "cut").glob("*/run.json"))
    assert main(["resume", str(run)]) == 0
    disconnect()


if __name__ == "__main__":
    cut_and_resume(int(sys.argv[1]), sys.argv[2:])
