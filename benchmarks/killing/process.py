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
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from fastslow.core.text import shorten

IMPORTS = (
    *("alembic.command", "datasets", "dspy", "fsspec.implementations.local", "trl"),
    *("mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store", "trl.trainer.grpo_trainer"),
    *("transformers.models.llama.modeling_llama", "matplotlib.figure"),
    *(f"matplotlib.backends.backend_{kind}" for kind in ("agg", "pdf", "svg")),
    *("fastslow.channels.fast.channel", "fastslow.channels.fast.dspy_programs"),
    *("fastslow.channels.fast.optimizers.demos", "fastslow.channels.slow.channel"),
    *("fastslow.channels.slow.sft", "fastslow.loop.launch", "fastslow.results.ablation.execute"),
    *("fastslow.results.ablation.write", "fastslow.results.deploy.export"),
    *("fastslow.results.deploy.gate_file", "fastslow.results.deploy.rollback"),
    *("fastslow.results.render.paper", "fastslow.results.report"),
)
"""What runs and commands need that takes long to import."""


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
    for name in IMPORTS:
        import_module(name)
    import_module("torch").set_num_threads(1)
    gc.freeze()
