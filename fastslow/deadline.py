"""A time limit on a piece of Python, whichever thread it runs in.

In the main thread an alarm of the system's interrupts it, also within a regular expression. Other
threads get an exception between two of their instructions, so code that stays within one call of a
C library is not interrupted there.
"""

import contextlib
import ctypes
import signal
import threading
import time
from collections.abc import Callable, Iterator

AGAIN_S = 1.0
"""Code that catches the exception gets it again after so long."""


class OutOfTime(BaseException):
    """The limit is over. Not an `Exception`, so that code under the limit does not swallow it."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End what is within it after so long.

    Args:
        seconds: > 0.

    Raises:
        OutOfTime: It took longer.
    """
    is_main = threading.current_thread() is threading.main_thread()
    with _alarm(seconds) if is_main else _watched(seconds):
        yield


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """The system's timer, which other code may be using: it gets it back with what was left."""
    rung = []

    def ring(*_: object) -> None:
        rung.append(True)
        raise OutOfTime

    started = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        _surely(lambda: signal.setitimer(signal.ITIMER_REAL, 0))
        signal.signal(signal.SIGALRM, handler)
        if left:
            rest = max(left - (time.monotonic() - started), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, rest, interval)
    if rung:  # also where the code under the limit caught it
        raise OutOfTime


@contextlib.contextmanager
def _watched(seconds: float) -> Iterator[None]:
    """Another thread waits, and raises in this one."""
    watch = _Watch(threading.get_ident(), seconds)
    watch.start()
    try:
        yield
    finally:
        _surely(watch.end)
    if watch.has_rung:
        raise OutOfTime


def _surely(end: Callable[[], object]) -> None:
    """End a limit even where it rings while it is being ended."""
    while True:
        with contextlib.suppress(OutOfTime):
            end()
            return


class _Watch(threading.Thread):
    """Raises `OutOfTime` in a thread that takes too long.

    Args:
        target: Which thread.
        seconds: How long it may take.
    """

    def __init__(self, target: int, seconds: float) -> None:
        super().__init__(name="deadline", daemon=True)
        self._target, self._seconds = target, seconds
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self.has_rung = False

    def run(self) -> None:
        """Wait, then ring until the other thread says that it is over."""
        wait = self._seconds
        while not self._is_over.wait(wait):
            with self._lock:
                if not self._is_over.is_set():
                    self.has_rung = True
                    exception = ctypes.py_object(OutOfTime)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(self._target), exception
                    )
            wait = AGAIN_S

    def end(self) -> None:
        """Called by the other thread: once it returned, nothing is raised there any more."""
        with self._lock:
            self._is_over.set()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._target), None)
