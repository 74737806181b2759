"""The fuzzer of `benchmarks.hostile`, briefly, and what it found once."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fuzzing.judging import unsafe
from benchmarks.fuzzing.running import BAD
from benchmarks.hostile import OTHERS
from fastslow.cli.main import main
from fastslow.core.errors import CheckpointError, ModelError
from fastslow.policy.model_store import resolve
from fastslow.policy.policy import load_policy
from tests.support.paths import ROOT
from tests.support.run_folder import write_run


def test_hostile_input_is_accepted_or_a_typed_error_and_never_anything_else(tmp_path: Path) -> None:
    words = ["--configs", "150", "--data", "200", "--folders", "10", "--seed", "11"]
    words += ["--limit", "60"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.hostile", *words, "--json", tmp_path / "out.json"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["bad"] == dict.fromkeys(BAD, 0)
    assert found["changed_outside"] == 0
    assert set(found["outcomes"]) == {"configs", *OTHERS, "folders"}
    mixed = {name: counts for name, counts in found["outcomes"].items() if name != "names"}
    assert all(counts.get("accepted") for counts in mixed.values())
    assert all(len(counts) > 1 for name, counts in mixed.items() if name != "graders")


def test_the_fuzzer_sees_what_it_is_there_to_see(tmp_path: Path) -> None:
    """Without this a watch that sees nothing would pass everything."""
    script = """
import os, pickle, random, socket, subprocess, sys, time
from pathlib import Path
from benchmarks.fuzzing.judging import OUTSIDE, SECRET
from benchmarks.fuzzing.running import Exit, run_section
from torch._inductor.runtime.cache_dir_utils import cache_dir
def through_a_link(folder):
    Path("link").symlink_to(folder)
    (Path("link") / "kept.txt").write_text("owned")
def write(name, text):
    Path("case", name).write_text(text)
ACTS = [
    lambda: 1 / 0,
    lambda: time.sleep(60),
    lambda: os._exit(3),
    lambda: open(sys.argv[1] + "/elsewhere", "w").close(),
    lambda: subprocess.run(["true"]),
    lambda: socket.getaddrinfo("localhost", 1),
    lambda: pickle.loads(pickle.dumps(Path)),
    lambda: print("\\x1b[2J"),
    lambda: os.mkdir("../aside"),
    lambda: through_a_link(Path(OUTSIDE, "folder").absolute()),
    lambda: os.posix_spawn("/bin/touch", ["touch", OUTSIDE + "/secret.txt"], {}) and time.sleep(2),
    lambda: print(Path(OUTSIDE, "secret.txt").read_text()),
    lambda: print(os.environ["MLFLOW_TRACKING_TOKEN"]),
    lambda: write("record.json", "x" + SECRET),
    lambda: write("sent", os.environ["HF_TOKEN"]),
    lambda: write("scores.csv", "name\\n-2+3+cmd|' /C calc'!A0\\n"),
    lambda: write("report.md", "\\u202eabc"),
    lambda: Exit(-9),
    lambda: Exit(0, is_refusal=True),
    lambda: Exit(3),
    lambda: write("scores.csv", "name,change\\n'=1,+0.5 [-1, +2]!\\n"),
    lambda: cache_dir(),
]
scratch = Path(sys.argv[1]) / "scratch"
scratch.mkdir()
numbers = iter(range(100))
def case(draw, folder):
    act = ACTS[int((scratch / "next").read_text())]
    (scratch / "next").write_text(str(int((scratch / "next").read_text()) + 1))
    return act
(scratch / "next").write_text("0")
print([r.outcome for r in run_section("seen", case, len(ACTS), 0, scratch, limit_s=3)])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "of-torch")},
        capture_output=True,
        text=True,
        check=True,
    )
    outcomes = ast.literal_eval(done.stdout)
    assert outcomes == [
        *("traceback", "hang", "died", "outside", "program", "socket", "pickle", "unsafe text"),
        *("outside", "outside", "program", "leak", "leak", "leak", "leak"),
        *("unsafe file", "unsafe file", "exit code", "not refused", "exit 3", "accepted"),
        "accepted",
    ]  # fmt: skip
    assert {*BAD} <= {*outcomes}


def test_a_pickled_model_is_refused_and_never_opened(tiny_folder: Path, tmp_path: Path) -> None:
    import pickle
    import shutil

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ModelError):
        load_policy(str(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"[]"),
        ("config.json", b'{"model_type": "llama", "hidden_size": "many"}'),
        ("model.safetensors", b"\x00" * 20),
        ("tokenizer.json", b'{"model": {"vocab": [1]}}'),
        ("chat_template.jinja", b"{% for x in y %}"),
        ("tokenizer_config.json", b'{"pad_token": ["x"]}'),
    ],
)
def test_a_damaged_model_folder_is_one_typed_error(
    tiny_folder: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match="cannot load"):
        load_policy(str(folder))


def test_a_model_folder_that_lacks_weights_is_refused_and_not_filled_up_at_random(
    tiny_folder: Path, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 3}
    config.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"weights are not in the files, e\.g\. model\.layers\.2"):
        load_policy(str(folder))


def test_a_resume_point_with_right_checksums_and_wrong_content_is_passed_over(
    tmp_path: Path,
) -> None:
    from fastslow.core.files import checksums
    from fastslow.records.run_folder import RunDir
    from fastslow.records.state import RunState

    path = write_run(tmp_path)
    with RunDir.open(path) as run_dir:
        for cycle in (0, 1):
            run_dir.save_state(RunState(0, cycle), lambda folder: None)
    newest = path / "resume" / "000-001"
    (newest / "state.json").write_text('{"next_stage": [], "positions": {"scores": -1}}')
    (newest / "checksums.json").write_text(json.dumps(checksums(newest)))
    with RunDir.open(path) as run_dir:
        found = run_dir.load_state()
        assert found is not None
        assert found[1].name == "000-000"
        assert "state.json is not usable" in run_dir.warnings[0]


@pytest.mark.parametrize("word", ["x" * 5000, "a=" + "b" * 5000, "\x1b[2J", "~nobody/x", "a\udc80"])
def test_words_that_are_no_paths_are_answered_and_what_is_printed_is_safe(
    capsys: pytest.CaptureFixture[str], word: str
) -> None:
    with pytest.raises(ModelError, match="there is no model called"):
        resolve(word)
    for command in (["check"], ["report"], ["resume"], ["tasks", "show"], ["models", "where"]):
        assert main([*command, word]) == 2
        assert unsafe("".join(capsys.readouterr())) is None


def test_a_record_of_another_type_or_place_is_a_typed_error(tmp_path: Path) -> None:
    from fastslow.results.report import build_report

    path = write_run(tmp_path)
    whole = (path / "events.jsonl").read_text()
    for line in (
        '{"event": "evaluation", "row": 0, "rollouts": {"a": 1}, "seconds": 1.0}',
        '{"event": "evaluation", "row": 9, "rollouts": 1, "seconds": 1.0}',
        '{"event": "evaluation", "row": -1, "rollouts": 1, "seconds": 1.0}',
        '{"event": "run", "state": "finished", "seconds": NaN}',
        '{"event": "run", "state": "finished", "seconds": 1e999}',
        '{"event": "run", "state": "finished", "seconds": ' + "9" * 5000 + "}",
        '{"event": "run", "state": "finished", "seconds": 1.0, "more": 1}',
        '{"event": ' + "[" * 100_000,
    ):
        (path / "events.jsonl").write_text(whole + line + "\n")
        with pytest.raises(CheckpointError):
            build_report(path)


@pytest.mark.parametrize("name", ["run.json", "events.jsonl", "scores.jsonl", "config.json"])
def test_a_pipe_in_the_place_of_a_file_is_an_error_and_no_hang(tmp_path: Path, name: str) -> None:
    from fastslow.results.report import build_report

    path = write_run(tmp_path)
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(CheckpointError, match="not a regular file"):
        build_report(path)
