"""Programs that try to get out, to stay, or to lie, run in the real room."""

import os
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
for path in ("/x", "/usr/lib/x", "/etc/x", "/tmp/x"):
    try:
        open(path, "w")
    except OSError as err:
        print(type(err).__name__)
"""


def run(source: str, **limits: float) -> ProgramResult:
    return run_program(source, limits=Limits(**limits))  # type: ignore[arg-type]  # whole numbers


def test_a_program_gets_its_input_and_its_output_is_read() -> None:
    done = run_program("print(int(input()) * 2)\nprint(input())", "21\nmore\n")
    assert (done.ending, done.output) == ("done", "42\nmore\n")


def test_an_endless_loop_is_ended_and_so_is_endless_waiting() -> None:
    before = time.monotonic()
    assert run("while True: pass", cpu_s=1).ending == "too slow"
    waiting = "import os, time\nos.setsid()\nos.close(1)\nos.close(2)\ntime.sleep(60)"
    assert run(waiting, wall_s=1).ending == "too slow"
    assert time.monotonic() - before < 50


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import os\nwhile True: os.fork()", "PermissionError"),
        ("import threading\nwhile True: threading.Thread(target=input).start()", "RuntimeError"),
        ("import subprocess\nsubprocess.run(['/bin/sh'])", "PermissionError"),
        ("kept = []\nwhile True: kept.append('x' * 10**7)", "MemoryError"),
        ("open('f', 'wb').write(b'x' * 10**8)", "OSError: [Errno 28]"),
        ("for i in range(10**5): open(f'f{i}', 'wb').write(b'x' * 10**5)", "OSError: [Errno 28]"),
        ("kept = [open('program.py') for _ in range(10**4)]", "OSError: [Errno 24]"),
        ("import os\nos.kill(-1, 9)", "ProcessLookupError"),
        ("import os\nos.kill(PARENT, 9)", "ProcessLookupError"),
        ("import os\nos.mkdir('a')\nos.chroot('a')", "PermissionError"),
        ("import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0", "AssertionError"),
        ("import fastslow", "ModuleNotFoundError"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_what_a_program_may_not_do_fails_inside_and_harms_nothing(source: str, error: str) -> None:
    done = run(source.replace("PARENT", str(os.getpid())))
    assert done.ending == "ended by an error"
    assert done.complaint.startswith(error)


def test_there_is_no_network_and_no_socket_to_reach_it_by() -> None:
    assert run(NETWORK).output.split() == ["PermissionError"] * 3


def test_no_file_of_this_machine_can_be_read_and_none_outside_its_folder_written(
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
    run("open('kept', 'w').write('x')")
    run("while True: pass", wall_s=0.5)
    assert not list(tmp_path.iterdir())
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


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


def test_where_no_room_can_be_built_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "jail.py"
    source = Path(run_program.__globals__["jail"].__file__).read_text()
    broken.write_text(source.replace('_call("unshare", sum(_NEW.values()))', '_call("chroot", 0)'))
    monkeypatch.setattr("fastslow.task.sandbox.jail.__file__", str(broken))
    with pytest.raises(OSError, match="no closed room for programs can be built here"):
        run(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert not (tmp_path / "ran").exists()
