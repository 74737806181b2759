"""Processes to be killed: forks of one that has imported the libraries and done nothing else."""

import contextlib
import gc
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from fastslow.core.text import shorten


class Child:
    """`fastslow` with these words, in a fork of this process.

    Args:
        words: Of the command line.
        log: Where its output goes.
    """

    def __init__(self, words: Sequence[str], log: Path) -> None:
        assert threading.active_count() == 1, threading.enumerate()  # a fork takes one along
        self._status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _become(words, log)

    @property
    def is_alive(self) -> bool:
        """Whether it still works."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = status if pid else None
        return self._status is None

    @property
    def code(self) -> int:
        """The exit code, once it has ended; below 0 the signal that ended it."""
        assert self._status is not None
        return os.waitstatus_to_exitcode(self._status)

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        if self._status is None:
            self._status = os.waitpid(self.pid, 0)[1]
        return self.code

    def kill(self, *, with_children: bool = False) -> bool:
        """Kill it; whether it was this kill that ended it."""
        if self.is_alive:
            os.kill(self.pid, signal.SIGSTOP)  # else it would start another child meanwhile
            children = psutil.Process(self.pid).children(recursive=True) if with_children else []
            for pid in [*(child.pid for child in children), self.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.wait()
        return self.code < 0


def last_line(log: Path) -> str:
    """The last line that a command wrote, shortened."""
    return shorten((log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1], 300)


def _become(words: Sequence[str], log: Path) -> None:
    """Run the command line in this process and leave it."""
    from fastslow.cli.main import main

    code = 70
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        code = main(words)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def in_fork(function: Callable[[], Any]) -> Any:
    """What a function gives, as JSON has it, from a process of its own: it may start threads."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.write(writer, json.dumps(function()).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0, "a fork failed, see above"
    return json.loads(text)


def warm_up() -> None:
    """Import what runs and commands import, and nothing more: forks then start at once."""
    import alembic.command
    import datasets
    import dspy
    import fsspec.implementations.local
    import matplotlib.backends.backend_agg
    import matplotlib.backends.backend_pdf
    import matplotlib.backends.backend_svg
    import matplotlib.figure
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.tracking
    import torch
    import transformers.models.llama.modeling_llama
    import trl  # noqa: F401
    from trl import GRPOTrainer  # noqa: F401

    import fastslow.channels.fast.channel
    import fastslow.channels.fast.dspy_programs
    import fastslow.channels.fast.optimizers.demos
    import fastslow.channels.slow.channel
    import fastslow.channels.slow.sft
    import fastslow.loop.launch
    import fastslow.results.ablation.execute
    import fastslow.results.ablation.write
    import fastslow.results.deploy.export
    import fastslow.results.deploy.gate_file
    import fastslow.results.deploy.rollback
    import fastslow.results.render.paper
    import fastslow.results.report  # noqa: F401

    torch.set_num_threads(1)
    gc.freeze()
