"""A program of its own: builds a closed room out of Linux namespaces and runs one program in it.

Started by `run.py` as `python -I -S jail.py SETTINGS`; standard input holds the program,
a NUL byte, and what the program may read. Imports the standard library alone. Leaves with the exit
code of the program, or 128 + the signal that ended it. The word READY goes to the file descriptor
`ready` of the settings right before the program starts: without it nothing was run.
"""

import ctypes
import json
import os
import signal
import struct
import sys
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

READY = b"ready"
_NEW = {"user": 0x10000000, "mount": 0x20000, "net": 0x40000000, "pid": 0x20000000,
        "ipc": 0x8000000, "uts": 0x4000000}  # fmt: skip
"""Flags of unshare(2), by kind of namespace."""
_BIND, _RECURSIVE, _PRIVATE, _NOSUID, _NODEV = 0x1000, 0x4000, 0x40000, 2, 4
"""Flags of mount(2)."""
_MOUNT_SETATTR, _AT_RECURSIVE, _READ_ONLY = 442, 0x8000, 1
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 1, 38, 22, 2
_DENIED = {
    # clone fork vfork clone3 socket socketpair ptrace unshare setns mount umount2 pivot_root bpf
    # perf_event_open add_key request_key keyctl userfaultfd io_uring_setup process_vm_readv/writev
    "x86_64": (0xC000003E, (56, 57, 58, 435, 41, 53, 101, 272, 308, 165, 166, 155, 321, 298, 248,
                            249, 250, 323, 425, 310, 311)),
    "aarch64": (0xC00000B7, (220, 435, 198, 199, 117, 97, 268, 40, 39, 41, 280, 241, 217, 218, 219,
                             282, 425, 270, 271)),
}  # fmt: skip
"""By machine: its number in audit.h, and the system calls that fail inside. A limit on processes
does not bind root, so no second one can be started."""
_INSIDE_ID = 1000
"""User and group within the room; not 0, so that starting the program drops every capability."""


def main() -> NoReturn:
    """Build the room, run the program in it, and leave as it left."""
    settings = json.loads(sys.argv[1])
    program, _, stdin = sys.stdin.buffer.read().partition(b"\0")
    try:
        _die_with_parent()
        user, group = os.geteuid(), os.getegid()
        _call("unshare", sum(_NEW.values()))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{_INSIDE_ID} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{_INSIDE_ID} {group} 1")
        _build_root(settings)
        (Path("/work") / "program.py").write_bytes(program)
        (Path("/work") / "given").write_bytes(stdin)
    except OSError as err:
        sys.stderr.write(f"{err}\n")
        os._exit(1)
    _leave_as(_in_child(lambda: _first_process(settings)))


def _build_root(settings: dict[str, Any]) -> None:
    """An empty root with the interpreter in it, read-only, and a small folder to write in."""
    root = settings["root"]
    _call("mount", b"none", b"/", None, _RECURSIVE | _PRIVATE, None)
    _call("mount", b"none", root.encode(), b"tmpfs", _NOSUID | _NODEV, b"size=1m,mode=755")
    (Path(root) / "work").mkdir()
    for path in settings["visible"]:
        inside = Path(root + path)
        inside.parent.mkdir(parents=True, exist_ok=True)
        if Path(path).is_symlink():
            inside.symlink_to(Path(path).readlink())
        elif not inside.exists():
            inside.mkdir() if Path(path).is_dir() else inside.touch()
            _call("mount", path.encode(), str(inside).encode(), None, _BIND | _RECURSIVE, None)
    attributes = struct.pack("QQQQ", _READ_ONLY | _NOSUID | _NODEV, 0, 0, 0)
    arguments = (-100, root.encode(), _AT_RECURSIVE, attributes, len(attributes))
    _call("syscall", _MOUNT_SETATTR, *arguments)
    size = f"size={settings['file_bytes']},nr_inodes=64,mode=700".encode()
    _call("mount", b"none", f"{root}/work".encode(), b"tmpfs", _NOSUID | _NODEV, size)
    os.chroot(root)
    os.chdir("/work")


def _first_process(settings: dict[str, Any]) -> None:
    """Process 1 of the room: when it ends, the kernel ends every other one in there."""
    _die_with_parent()
    _leave_as(_in_child(lambda: _run(settings)))


def _run(settings: dict[str, Any]) -> None:
    """Become the program."""
    import resource  # Windows, which imports this module for its path alone, has none

    _die_with_parent()
    os.dup2(os.open("given", os.O_RDONLY), 0)
    ready = settings["ready"]
    for name, limit in settings["limits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _deny_system_calls()
    os.write(ready, READY)
    os.closerange(3, 256)
    python = settings["python"]
    os.execve(python, [python, "-I", "-S", "-B", "-X", "utf8", "program.py"], {})


def _deny_system_calls() -> None:
    """Make the calls in `_DENIED` fail with EPERM, for this process and whatever it becomes.

    Raises:
        OSError: The machine is not in the table.
    """
    machine = os.uname().machine
    if machine not in _DENIED:
        raise OSError(0, f"no list of system calls for {machine}, only for {', '.join(_DENIED)}")
    number, denied = _DENIED[machine]
    load, equals, at_least, answer = 0x20, 0x15, 0x35, 0x06  # of the BPF language
    allow, refuse, kill = 0x7FFF0000, 0x00050001, 0x80000000
    lines = [(load, 0, 0, 4), (equals, 1, 0, number), (answer, 0, 0, kill), (load, 0, 0, 0)]
    lines += [(at_least, 0, 1, 0x40000000), (answer, 0, 0, kill)]  # another set of numbers
    for call in denied:
        lines += [(equals, 0, 1, call), (answer, 0, 0, refuse)]
    lines.append((answer, 0, 0, allow))
    body = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    program = struct.pack("HxxxxxxP", len(lines), ctypes.addressof(body))
    _call("prctl", _PR_SET_SECCOMP, _FILTER, program, 0, 0)


def _in_child(act: Any) -> int:
    """Do something in a child process; its status."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except OSError as err:
            sys.stderr.write(f"{err}\n")
            sys.stderr.flush()
        os._exit(1)
    return os.waitpid(pid, 0)[1]


def _leave_as(status: int) -> NoReturn:
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _die_with_parent() -> None:
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: Any) -> None:
    """A function of the C library.

    Raises:
        OSError: It failed.
    """
    function = getattr(_libc(), name)
    function.restype = ctypes.c_long
    longs = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if function(*longs) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    main()
