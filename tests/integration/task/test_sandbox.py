"""Programs that try to get out, to stay, or to lie, run in the real room."""

import os
import site
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from fastslow.core.errors import ConfigError, TaskError
from fastslow.core.types import Example
from fastslow.task.registry import build_task, find_task
from fastslow.task.sandbox.grader import Case, program_grader
from fastslow.task.sandbox.run import Limits, ProgramResult, run_program, why_unavailable

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))
NETWORK = """
import socket
for family, address in ((socket.AF_INET, ("127.0.0.1", 22)), (socket.AF_INET6, ("::1", 22)),
                        (socket.AF_UNIX, "/run/docker.sock")):
    try:
        socket.socket(family).connect(address)
    except OSError as err:
        print(type(err).__name__)
"""
FILES = """
import os
for path in PATHS:
    try:
        with open(path) as file:
            print("read", path)
    except OSError as err:
        print(type(err).__name__)
for path in ("x", "/usr/lib/x", "/tmp/x", os.__file__):
    try:
        open(path, "w")
    except OSError as err:
        print(type(err).__name__)
"""
EVERYTHING = """
import os
for folder, _, names in os.walk("/"):
    for name in names:
        print(os.path.join(folder, name))
"""
KERNEL_MEMORY = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for name, arguments in {"shmget": (0, 1 << 30, 0o1600), "semget": (0, 32000, 0o1600),
                        "msgget": (0, 0o1600), "mq_open": (b"/x", 66, 0o600, None),
                        "memfd_create": (b"x", 0), "eventfd": (0, 0), "inotify_init": (),
                        "timerfd_create": (0, 0), "epoll_create1": (0,), "signalfd": (-1, None, 0),
                        "add_key": (b"user", b"x", b"x", 1, -4)}.items():
    made = getattr(libc, name, lambda *_: -1)(*arguments)
    print(name, made, ctypes.get_errno() if hasattr(libc, name) else 1)
"""
LOCKS = """
import fcntl, os, sys
for path in (os.__file__, sys.executable, "/program.py"):
    handle = os.open(path, os.O_RDONLY)
    for act in (lambda: fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_WRLCK),
                lambda: fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK),
                lambda: fcntl.fcntl(handle, fcntl.F_NOTIFY, fcntl.DN_ACCESS),
                lambda: fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB),
                lambda: fcntl.lockf(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)):
        try:
            act()
            print("locked", path)
        except PermissionError:
            print("refused")
"""


def run(source: str, **limits: float) -> ProgramResult:
    return run_program(source, limits=Limits(**limits))  # type: ignore[arg-type]  # whole numbers


def test_a_program_gets_its_input_and_its_output_is_read() -> None:
    done = run_program("print(int(input()) * 2)\nprint(input())", "21\nmore\n")
    assert (done.ending, done.output) == ("done", "42\nmore\n")


def test_an_endless_loop_is_ended_and_so_is_endless_waiting() -> None:
    before = time.monotonic()
    assert run("while True: pass", cpu_s=1).ending == "too slow"
    waiting = "import os, time\nos.close(1)\nos.close(2)\ntime.sleep(60)"
    assert run(waiting, wall_s=1).ending == "too slow"
    assert time.monotonic() - before < 50


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import os\nwhile True: os.fork()", "PermissionError"),
        ("import threading\nwhile True: threading.Thread(target=input).start()", "RuntimeError"),
        ("import subprocess\nsubprocess.run(['/bin/sh'])", "PermissionError"),
        ("kept = []\nwhile True: kept.append('x' * 10**7)", "MemoryError"),
        ("import mmap\nkept = [mmap.mmap(-1, 10**8) for _ in range(9)]", "OSError: [Errno 12]"),
        ("open('f', 'wb').write(b'x' * 10**8)", "OSError: [Errno 30]"),
        ("import tempfile\ntempfile.TemporaryFile()", "FileNotFoundError"),
        ("kept = [open('program.py') for _ in range(10**4)]", "OSError: [Errno 24]"),
        ("import os\nos.kill(-1, 9)", "PermissionError"),
        ("import os\nos.kill(PARENT, 9)", "PermissionError"),
        ("import os\nos.mkdir('a')", "PermissionError"),
        ("import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0", "AssertionError"),
        ("import resource as r\nr.setrlimit(r.RLIMIT_AS, (1 << 40, 1 << 40))", "ValueError"),
        ("import fastslow", "ModuleNotFoundError"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_what_a_program_may_not_do_fails_inside_and_harms_nothing(source: str, error: str) -> None:
    done = run(source.replace("PARENT", str(os.getpid())))
    assert done.ending == "ended by an error"
    assert done.complaint.startswith(error)


def test_it_makes_no_memory_that_its_limit_does_not_count() -> None:
    lines = run(KERNEL_MEMORY).output.splitlines()
    assert len(lines) == 11
    assert {line.partition(" ")[2] for line in lines} == {"-1 1"}  # EPERM


def test_it_holds_up_nobody_who_opens_a_file_that_it_can_read() -> None:
    assert run(LOCKS).output.split() == ["refused"] * 15


def test_it_sees_the_interpreter_and_no_package(tmp_path: Path) -> None:
    (tmp_path / "forger.py").write_text("print(42)")
    paths = [str(tmp_path), *site.getsitepackages(), sysconfig.get_path("purelib")]
    paths.append(str(Path(sysconfig.get_path("stdlib")) / "site-packages"))
    for package in ("forger", "pytest", "pip", "setuptools"):
        done = run(f"import sys\nsys.path += {paths}\nimport {package}")
        assert done.complaint == f"ModuleNotFoundError: No module named {package!r}"
    seen = run(EVERYTHING, output_bytes=1 << 22).output.splitlines()
    library, python = sysconfig.get_path("stdlib"), os.path.realpath(sys.executable)
    rest = {path for path in seen if not path.startswith(library) and ".so" not in path}
    assert rest == {"/program.py", python}
    assert not [path for path in seen if "-packages/" in path]
    assert "/usr/bin/env" not in seen


def test_there_is_no_network_and_no_socket_to_reach_it_by() -> None:
    assert run(NETWORK).output.split() == ["PermissionError"] * 3


def test_no_file_of_this_machine_can_be_read_and_none_written(
    tmp_path: Path,
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    paths = [str(secret), __file__, "/etc/passwd", "/proc/self/environ", "/dev/zero"]
    found = run(FILES.replace("PATHS", repr(paths))).output.split()
    assert len(found) == 9
    assert all(word.endswith("Error") for word in found)
    assert not Path("/tmp/x").exists()


def test_no_key_of_the_environment_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-1234567890")
    done = run("import os\nprint(dict(os.environ))\nprint(os.listdir('/'))")
    assert "planted" not in done.output
    assert "proc" not in done.output
    assert "home" not in done.output


def test_a_flood_of_output_is_cut_off() -> None:
    for stream in ("stdout", "stderr"):
        done = run(f"import sys\nwhile True: sys.{stream}.write('x' * 10**6)", output_bytes=1000)
        assert done.ending == "too talkative"
        assert len(done.output) <= 1000


def test_nothing_is_left_when_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    handles = len(list(Path("/proc/self/fd").iterdir()))
    run("print(1)")
    run("import time\ntime.sleep(60)", wall_s=0.5)
    assert not list(tmp_path.iterdir())
    assert len(list(Path("/proc/self/fd").iterdir())) == handles


def test_killed_programs_leave_no_zombie_where_this_is_process_1() -> None:
    """A process that takes in orphans, as the first one of a container does, has none after it."""
    done = python(
        "import ctypes, os",
        "from fastslow.task.sandbox.run import Limits, run_program",
        "ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER",
        "for _ in range(5):",
        "    run_program('while True: pass', limits=Limits(wall_s=0.2))",
        "    run_program('while True: print(1)', limits=Limits(output_bytes=100))",
        "try: print(os.waitpid(-1, os.WNOHANG))",
        "except ChildProcessError: print('no child')",
    )
    assert done.communicate()[0] == "no child\n"


def test_a_killed_caller_leaves_no_room_and_no_process(tmp_path: Path) -> None:
    waiting = python(
        f"import tempfile; tempfile.tempdir = {str(tmp_path)!r}",
        "from fastslow.task.sandbox.run import Limits, run_program",
        "run_program('import time; time.sleep(999)', limits=Limits(wall_s=999))",
    )
    while not (rooms := children(waiting.pid)):
        assert waiting.poll() is None
        time.sleep(0.01)
    [inside] = [one for room in rooms if (one := children(room))] or [[]]
    waiting.kill()
    waiting.communicate()
    while any(Path(f"/proc/{number}/exe").exists() for number in (*rooms, *inside)):
        time.sleep(0.01)
    assert not list(tmp_path.iterdir())


def python(*lines: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)], stdout=subprocess.PIPE, text=True
    )


def children(number: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{number}/task/{number}/children").read_text().split()]


def test_a_grade_cannot_be_forged_but_by_printing_what_is_right() -> None:
    grade = program_grader(lambda example: [Case("2\n", "4"), Case("3\n", "6")])
    example = Example("1", "Double n.", "print(int(input()) * 2)")
    assert grade(example, example.answer).score == 1
    assert grade(example, f"Here it is:\n```python\n{example.answer}\n```\nDone.").score == 1
    for forged in (
        "print(4)",
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "print('correct')\nprint('score 1.0')",
        "import os\nos.write(1, b'ready')",
        "import os\nfor f in range(3, 64):\n    try: os.write(f, b'ready1.0correct')\n"
        "    except OSError: pass\nprint(4)",
        "class A(str):\n    def __eq__(self, other): return True\nprint(A())",
        "raise SystemExit('4')",
        "",
        "```\n```",
        "x = 1\n" * 10_000,
        "(" * 19_000,
        "print('\x1b[2J\x00')",
    ):
        found = grade(example, forged)
        assert found.score == 0
        assert found.reason.isprintable()


def test_programs_are_run_only_where_the_task_asks_and_the_user_allows_it(tmp_path: Path) -> None:
    from fastslow.config.loading.load import load_config

    assert find_task("small_programs").runs_code
    with pytest.raises(TaskError, match=r"Set allow_code to true if you want that\."):
        build_task("p", "small_programs", None)
    words = ["name=run", "stages=[{task: small_programs}]"]
    with pytest.raises(ConfigError, match=r"stages\.0\.task: its grader runs programs"):
        load_config((), words)
    assert load_config((), [*words, "allow_code=true"]).config.allow_code
    assert build_task("p", "small_programs", None, allow_code=True).version == "small_programs@1"


@pytest.mark.parametrize(
    ("bwrap", "why"),
    [
        (None, "bubblewrap, which is not installed.*apt-get install bubblewrap"),
        ("echo 'bwrap: No permissions to create new namespace' >&2\nexit 1", "No permissions"),
        ("exit 0", "no room for programs can be built here"),
    ],
)
def test_where_no_room_can_be_built_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bwrap: str | None, why: str
) -> None:
    if bwrap is not None:
        (tmp_path / "bwrap").write_text(f"#!/bin/sh\n{bwrap}\n")
        (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match=why):
        run(f"open({str(tmp_path / 'ran')!r}, 'w')")
    why_unavailable.cache_clear()
    try:
        with pytest.raises(TaskError, match=f"cannot be run safely here: .*{why}"):
            build_task("p", "small_programs", None, allow_code=True)
    finally:
        why_unavailable.cache_clear()
    assert not (tmp_path / "ran").exists()
