"""What a case may not do, noticed while it runs: writing elsewhere, programs, sockets, pickles.

Python's audit events say it before it happens, deleted files included; `snapshot` is the second
opinion, for code that opens files without Python.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

from fastslow.policy.engine.vllm.server import DEFAULT_PYTHON

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.rmdir": ((0, 1),),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "sqlite3.connect": ((0, None),),
}
"""Events that change the file system; which of their arguments is a path that changes, and which is
the open folder that it starts from."""
_FORBIDDEN = {
    "subprocess.Popen": "program",
    "os.system": "program",
    "os.exec": "program",
    "os.posix_spawn": "program",
    "os.fork": "program",
    "socket.connect": "socket",
    "socket.getaddrinfo": "socket",
    "socket.gethostbyname": "socket",
    "pickle.find_class": "pickle",
    "webbrowser.open": "program",
}
_GRADING = "fastslow.task.grading_process"
"""What fastslow's own program for graders imports."""
_ROOM = ("bwrap", "ldconfig", "ldd")
"""What a configuration that allows code has `check` ask whether there is a room for it."""
_GRADE = ("fastslow.core.types", "Grade")
"""What that answers with."""


class Watch:
    """The audit hook of this process; hooks cannot be removed, so there is one."""

    def __init__(self) -> None:
        self._allowed: tuple[str, ...] | None = None
        self.seen: list[str] = []
        """What the present case did that it may not, e.g. `outside: /etc/x`."""
        sys.addaudithook(self._hook)

    @contextmanager
    def inside(self, *folders: Path) -> Iterator[None]:
        """Watch what happens within; only `folders` may be written."""
        self.seen.clear()
        self._allowed = tuple(os.path.realpath(folder) for folder in folders)
        try:
            yield
        finally:
            self._allowed = None

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._allowed is None:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITING:
                self._judge(os.path.realpath(os.fsdecode(path)) if _is_path(path) else path)
        elif event in _PATHS:
            for path, start in _PATHS[event]:
                self._judge(arguments[path], -1 if start is None else arguments[start])
        elif event in _FORBIDDEN and not _is_ours(event, arguments):
            self.seen.append(f"{_FORBIDDEN[event]}: {event} {arguments!r:.200}")

    def _judge(self, path: object, start: int = -1) -> None:
        """Note a path that changes, itself and not what a link at its end leads to."""
        if not _is_path(path):
            return
        folder = os.getcwd() if start < 0 else f"/proc/self/fd/{start}"  # noqa: PTH109
        around, name = os.path.split(os.path.join(folder, os.fsdecode(path)))  # noqa: PTH118
        real = os.path.join(os.path.realpath(around), name)  # noqa: PTH118
        is_inside = any(f"{real}{os.sep}".startswith(f"{f}{os.sep}") for f in self._allowed or ())
        if real != os.devnull and not is_inside:
            self.seen.append(f"outside: {real}")


def _is_ours(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether fastslow grades in a process of its own, or looks for what starts programs."""
    if event == "subprocess.Popen":
        words = arguments[1]
        if words[:2] == [DEFAULT_PYTHON, "-c"] or os.path.basename(words[0]) in _ROOM:  # noqa: PTH119
            return True
        return words[:2] == [sys.executable, "-c"] and _GRADING in words[2]
    return event == "pickle.find_class" and arguments == _GRADE


def _is_path(given: object) -> TypeGuard[str | bytes | os.PathLike[str]]:
    return isinstance(given, str | bytes | os.PathLike)


def snapshot(*roots: Path, contents: bool) -> dict[str, tuple[int, int]]:
    """Every file and folder under `roots`, caches of Python and tools left out.

    Args:
        roots: Folders.
        contents: Whether size and time of change count; not where a person may be at work.
    """
    left_out = {"__pycache__", ".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
    found = {}
    for root in roots:
        for folder, names, files in os.walk(root):
            names[:] = [name for name in names if name not in left_out]
            for name in [*files, *names]:
                path = os.path.join(folder, name)  # noqa: PTH118  # a hundred thousand of them
                status = os.lstat(path)
                is_watched = contents and name in files
                found[path] = (status.st_size, status.st_mtime_ns) if is_watched else (0, 0)
    return found
