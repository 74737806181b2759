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
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # it ships no types

from fastslow.core.types import Example, Grade
from fastslow.task.time_limit import Watch

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
        request = ("load", grader.key, grader.content, grader.paths)
        failure: str | None = next(self._answers_to(request, 1, START_S))
        if failure is None:
            self._graders.add(grader.key)
        return failure

    def grades(
        self, grader: SentGrader, answers: Sequence[tuple[Example, str]], limit_s: float
    ) -> Iterator[tuple[Grade | str, str]]:
        """The grade of each completion, or why there is none; and the end of what was printed.

        All are sent at once, since on a busy machine a process is waited for longer than most
        graders take.

        Raises:
            TimeOut: The next one took longer than `limit_s` seconds.
            Crashed: The process ended.
        """
        return self._answers_to(("grade", grader.key, answers, limit_s), len(answers), limit_s)

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

    def _answers_to(self, request: object, num: int, limit_s: float) -> Iterator[Any]:
        """So many answers to a request; the process is ended where one is not there in time."""
        content = pickle.dumps(request)
        for place in range(num):
            with _watch.limited(limit_s, self._kill) as limit:
                try:
                    if place == 0:
                        self._requests.write(content)
                        self._requests.flush()
                    answer = pickle.load(self._answers)
                except (OSError, EOFError, pickle.UnpicklingError) as error:
                    raise (TimeOut if limit.is_over else Crashed) from error
            if limit.is_over:
                raise TimeOut
            yield answer


_watch = Watch()
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
    os.register_at_fork(after_in_child=_watch.start_anew)
