"""Processes that grade: started when the first answer is graded, ended with the program.

A grader runs in a process of its own, so that one that hangs, in whatever code, can be ended, and
what it prints or breaks stays there. A worker serves every task; each thread that grades has one to
itself for as long as a grade takes.
"""

import atexit
import contextlib
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # it ships no types

from fastslow.core.types import Example, Grade

START_S = 120.0
"""How long a worker may take to start, and to import what a grader needs."""
MAX_WORKERS = 8
"""Threads that grade at the same time; more wait."""
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from fastslow.task.grading_process import serve; serve()"
)


class TimeOut(Exception):
    """A grade took longer than it may."""


class Crashed(Exception):
    """The process ended under a grade."""


class SentGrader:
    """A grader as it is sent to a worker, with the path of each module not found by its name.

    Raises:
        Exception: It holds something that cannot be sent to another process.
    """

    def __init__(self, grade: Any, paths: Mapping[str, str]) -> None:
        self.content: bytes = cloudpickle.dumps(grade)
        self.key = hashlib.sha256(self.content).hexdigest()
        self.paths = dict(paths)


class Worker:
    """One process, for one thread at a time; with our `sys.path` it finds the modules we find."""

    def __init__(self, path: tuple[str, ...]) -> None:
        self.path = path
        self._graders: set[str] = set()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us alone, and what graders start ends with them
            env=os.environ | {"PYTHONHASHSEED": "0"},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._requests, self._answers = self.process.stdin, self.process.stdout

    def load(self, grader: SentGrader) -> str | None:
        """Take a grader in, once; returns what is wrong with it."""
        if grader.key in self._graders:
            return None
        failure: str | None = self._ask(("load", grader.key, grader.content, grader.paths), START_S)
        if failure is None:
            self._graders.add(grader.key)
        return failure

    def grade(
        self, grader: SentGrader, example: Example, text: str, limit_s: float
    ) -> tuple[Grade | str, str]:
        """The grade of a completion, or why there is none; and the end of what was printed.

        Raises:
            TimeOut: It took longer than `limit_s` seconds.
            Crashed: The process ended.
        """
        request = ("grade", grader.key, example, text, limit_s)
        answer: tuple[Grade | str, str] = self._ask(request, limit_s)
        return answer

    def end(self) -> None:
        """End the process, and where there are process groups what its graders started."""
        self._kill()
        self.process.wait()
        for stream in (self._requests, self._answers):
            with contextlib.suppress(OSError):
                stream.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()

    def _ask(self, request: object, limit_s: float) -> Any:
        """The answer to a request; the process is ended where there is none within the limit."""
        content, late = pickle.dumps(request), threading.Event()

        def stop() -> None:
            late.set()
            self._kill()  # which ends the wait for its answer

        timer = threading.Timer(limit_s, stop)
        timer.daemon = True
        timer.start()
        try:
            self._requests.write(content)
            self._requests.flush()
            answer = pickle.load(self._answers)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise (TimeOut if late.is_set() else Crashed) from error
        finally:
            timer.cancel()
            timer.join()
        if late.is_set():
            raise TimeOut
        return answer


_idle: list[Worker] = []
_lock = threading.Lock()
_slots = threading.BoundedSemaphore(MAX_WORKERS)


@contextlib.contextmanager
def borrowed() -> Iterator[Worker]:
    """A worker for this thread alone; it is ended if what is inside raises."""
    path = tuple(sys.path)
    with _slots:
        with _lock:
            old = [worker for worker in _idle if worker.path != path]
            _idle[:] = [worker for worker in _idle if worker.path == path]
            worker = _idle.pop() if _idle else None
        for stale in old:
            stale.end()
        if worker is None or worker.process.poll() is not None:
            worker = Worker(path)
        try:
            yield worker
        except BaseException:
            worker.end()
            raise
        with _lock:
            _idle.append(worker)


@atexit.register
def _end_all() -> None:
    for worker in _idle:
        worker.end()


if hasattr(os, "register_at_fork"):  # workers are their parent's alone
    os.register_at_fork(after_in_child=_idle.clear)
