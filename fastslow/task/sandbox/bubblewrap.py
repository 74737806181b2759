"""The closed room that programs run in: what bubblewrap is told, and the system calls allowed.

In it are a Python interpreter, its standard library and the shared libraries that these need,
read-only, and nothing else: no installed package, no folder to write in, no device, no /proc. It
has no network and Linux namespaces of its own. A system call that is not in `_ALLOWED` fails with
EPERM. bubblewrap (`bwrap`) comes with the system, libseccomp's binding with `fastslow[programs]`.
"""

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_ALLOWED = """
    access alarm arch_prctl brk chdir clock_getres clock_gettime clock_nanosleep close
    close_range dup dup2 dup3 execve exit exit_group faccessat faccessat2 fchdir fstat fstatfs
    futex getcwd getdents64 getegid geteuid getgid getitimer getpgrp getpid getppid getrandom
    getresgid getresuid getrlimit getrusage getsid gettid gettimeofday getuid lseek lstat
    madvise mmap mprotect mremap munmap nanosleep newfstatat open openat pause pipe pipe2 poll
    ppoll pread64 preadv prlimit64 pselect6 pwrite64 read readlink readlinkat readv
    restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn rt_sigsuspend
    rt_sigtimedwait sched_getaffinity sched_yield select set_robust_list set_tid_address
    setitimer sigaltstack stat statfs statx sysinfo tgkill time times umask uname wait4 write
    writev
"""
"""What an interpreter needs to compute, read and print. Not among them, on purpose: whatever makes
a process, a thread, a socket, a file or a lock; shared memory and queues, which no limit of a
process counts; io_uring, keys, tracing and mounting. What is new in a kernel is refused."""
_FCNTL = ("F_DUPFD", "F_GETFD", "F_SETFD", "F_GETFL", "F_SETFL", "F_DUPFD_CLOEXEC")
"""What fcntl may do: no lease and no lock, which would hold up whoever opens the file outside."""
_IOCTL = ("TCGETS", "FIOCLEX")
"""What ioctl may do: ask whether a file is a terminal, and close it at execve."""


def why_missing() -> str | None:
    """What has to be installed before there can be a room; None if nothing."""
    if not sys.platform.startswith("linux"):
        return f"programs run in bubblewrap, which is for Linux; this is {sys.platform}"
    if shutil.which("bwrap") is None:
        return (
            "programs run in bubblewrap, which is not installed. Install it with the system's "
            "package manager, for example: apt-get install bubblewrap"
        )
    try:
        import pyseccomp  # noqa: F401
    except (ImportError, RuntimeError, OSError) as err:  # it loads the system's libseccomp
        return f"programs need pip install 'fastslow[programs]' and libseccomp: {err}"
    return None


class Room:
    """A room for one program; leaving it ends whatever is in there.

    Start `words` with the descriptors `inherited`, then call `begin`; once that process has ended,
    `exit_code` is how the program did.

    Args:
        source: A Python program.
    """

    def __init__(self, source: bytes) -> None:
        status, to_status = os.pipe()
        wait, self._begin = os.pipe()
        self.inherited = [_in_memory(source), _in_memory(_filter()), to_status, wait]
        self.words = _words(*self.inherited)
        self._status = os.fdopen(status)
        self._first_process: int | None = None

    def __enter__(self) -> "Room":
        return self

    def begin(self, limits: Mapping[int, int]) -> None:
        """Let the program begin, if there is a room for it.

        Args:
            limits: By the number that `resource` has for them.

        Raises:
            OSError: They cannot be set; the program has not begun.
        """
        import resource  # Windows has none

        self._let_go()
        if first := self._status.readline():
            number = json.loads(first)["child-pid"]
            self._first_process = os.pidfd_open(number)
            for name, limit in limits.items():
                resource.prlimit(number, name, (limit, limit))
            os.write(self._begin, b"now")

    def clear(self) -> None:
        """End all in the room: its first process, so that bubblewrap is there to reap it."""
        if self._first_process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first_process, signal.SIGKILL)

    @property
    def exit_code(self) -> int | None:
        """128 + the number of a signal that ended the program; None if it was never started."""
        codes = [json.loads(line).get("exit-code") for line in self._status]
        return codes[-1] if codes else None

    def __exit__(self, *_: object) -> None:
        self.clear()
        self._let_go()
        self._status.close()
        for handle in (self._begin, self._first_process):
            if handle is not None:
                os.close(handle)

    def _let_go(self) -> None:
        while self.inherited:
            os.close(self.inherited.pop())  # bubblewrap has its own


def _in_memory(content: bytes) -> int:
    handle = os.memfd_create("room")
    os.write(handle, content)
    os.lseek(handle, 0, os.SEEK_SET)
    return handle


def _words(program: int, calls: int, status: int, wait: int) -> list[str]:
    python = _python()
    options = (
        "--unshare-all --unshare-user --die-with-parent --new-session --clearenv --cap-drop ALL "
        "--uid 1000 --gid 1000 --hostname room"
    )
    words = [shutil.which("bwrap") or "bwrap", *options.split()]
    for path in (python, *_libraries(), _standard_library()):
        words += ["--ro-bind", path, path]
    for path in _packages():
        words += ["--tmpfs", path, "--remount-ro", path]
    words += ["--file", str(program), "/program.py", "--remount-ro", "/"]
    words += ["--seccomp", str(calls), "--json-status-fd", str(status)]
    words += ["--block-fd", str(wait), "--chdir", "/", "--"]
    return [*words, python, "-I", "-S", "-B", "-X", "utf8", "/program.py"]


def _python() -> str:
    return os.path.realpath(sys.executable)


def _standard_library() -> str:
    return sysconfig.get_path("stdlib")  # of the interpreter, not of a virtual environment


@cache
def _packages() -> list[str]:
    """Folders of installed packages within the standard library, which are emptied."""
    library = Path(_standard_library())
    names = ("site-packages", "dist-packages")
    return [str(library / name) for name in names if (library / name).is_dir()]


@cache
def _libraries() -> list[str]:
    """The shared libraries of the interpreter and of its modules, as their loader finds them."""
    modules = sorted(Path(_standard_library(), "lib-dynload").glob("*.so"))
    listing = subprocess.run(
        ["ldd", _python(), *map(str, modules)], capture_output=True, text=True, check=False
    ).stdout
    paths = {word for line in listing.splitlines() for word in line.split() if word[0] == "/"}
    inside = f"{_standard_library()}{os.sep}"
    paths = {path.rstrip(":") for path in paths if not path.startswith(inside)} - {_python()}
    paths |= {"/etc/ld.so.cache"}  # where the loader looks up what is in no standard folder
    return sorted(path for path in paths if Path(path).is_file())


@cache
def _filter() -> bytes:
    """The filter of system calls in the language of the kernel, for this machine's processor."""
    import fcntl
    import termios

    from pyseccomp import ALLOW, ERRNO, MASKED_EQ, Arch, Arg, SyscallFilter, resolve_syscall

    calls = SyscallFilter(ERRNO(errno.EPERM))
    for name in _ALLOWED.split():
        if resolve_syscall(Arch.NATIVE, name) >= 0:  # else of other processors or newer kernels
            calls.add_rule(ALLOW, name)
    for call, module, names in (("fcntl", fcntl, _FCNTL), ("ioctl", termios, _IOCTL)):
        for name in names:  # the kernel looks at the lower half of this argument
            argument = Arg(1, MASKED_EQ, 0xFFFFFFFF, getattr(module, name))
            calls.add_rule(ALLOW, call, argument)
    with tempfile.TemporaryFile() as file:
        calls.export_bpf(file)
        file.seek(0)
        return file.read()
