"""No library speaks to the network on its own; no key of the environment is written anywhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_socket import enable_socket

from fastslow.core.library_switches import SWITCHES
from tests.support.paths import ROOT
from tests.support.servers import FailingServer

WATCH = """
import os, socket, sys
_reached = socket.socket.connect
def note(what):
    with open(os.environ["ATTEMPTS"], "a") as log:
        log.write(f"{what}\\n")
def is_local(address):
    local = ("127.", "::1", "localhost")
    return not isinstance(address, tuple) or str(address[0]).startswith(local)
def connect(self, address):
    if not is_local(address):
        note(f"connect {address}")
        raise OSError("refused by the test")
    return _reached(self, address)
socket.socket.connect = connect
def hook(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        host = arguments[0] if event != "socket.sendto" else arguments[1]
        if not is_local((host,) if not isinstance(host, tuple) else host) and host is not None:
            note(f"{event} {host}")
            raise OSError("refused by the test")
    if event == "socket.connect" and not is_local(arguments[1]):
        note(f"{event} {arguments[1]}")
        raise OSError("refused by the test")
sys.addaudithook(hook)
"""
"""Python reads `sitecustomize` first of all: every process of the run is watched."""
SETTINGS = """
name: silent
stages: [{task: first, cycles: 1}]
tasks: {first: {use: "tests.support.toy_tasks:parity"}}
cycle: {optimizer_steps: 1, problems: 2}
slow: {kind: grpo, group: 4}
evaluation: {test_examples: 2, validation_examples: 2, kl_examples: 2}
"""
IMPORTS = "import fastslow, dspy, litellm, gepa, mlflow, trl, peft, transformers, datasets"
PLANTED = {
    "OPENAI_API_KEY": "sk-planted-AAAA1111bbbb2222CCCC",
    "ANTHROPIC_API_KEY": "planted_anthropic_0123456789",
    "HF_TOKEN": "hf_plantedPLANTED0123456789abcd",
    "MLFLOW_TRACKING_TOKEN": "planted-mlflow-token-0123",
    "AWS_SECRET_ACCESS_KEY": "plantedAwsSecret/0123+456789",
    "MY_REFLECTION_KEY": "custom planted key 42 of no known form",
}


def watched(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python with every socket that leaves this machine refused and noted, no switch set."""
    (folder / "watch").mkdir(exist_ok=True)
    (folder / "watch" / "sitecustomize.py").write_text(WATCH)
    kept = {k: v for k, v in os.environ.items() if k not in SWITCHES and "OFFLINE" not in k}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=kept
        | {"PYTHONPATH": os.pathsep.join((str(folder / "watch"), str(ROOT)))}
        | {"ATTEMPTS": str(folder / "attempts"), "HOME": str(folder / "home")}
        | {"OMP_NUM_THREADS": "1"}
        | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.network
def test_the_watch_sees_who_speaks(tmp_path: Path) -> None:
    script = "import urllib.request\nurllib.request.urlopen('http://example.com')"
    assert watched(tmp_path, "-c", script).returncode == 1
    assert "example.com" in (tmp_path / "attempts").read_text()


@pytest.mark.network
def test_what_a_run_imports_opens_no_socket(tmp_path: Path) -> None:
    done = watched(tmp_path, "-c", f"{IMPORTS}\nimport time\ntime.sleep(1)")
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (tmp_path / "attempts").exists(), (tmp_path / "attempts").read_text()


@pytest.fixture(scope="module")
def left(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that a tiny run leaves and says, tracker and all, with keys planted in its environment.

    Its endpoint answers, fails, and repeats the key in what it says, as services do.
    """
    enable_socket()  # for the server; this is made before a test's own leave counts
    folder = tmp_path_factory.mktemp("silent")
    key = PLANTED["MY_REFLECTION_KEY"]
    said = f"Incorrect API key provided: {key} ({PLANTED['OPENAI_API_KEY']})"
    with FailingServer([200, 500, 400, 429, 401], said, answer=f"echo {key}") as server:
        reflection = {
            "model": "openai/gpt-planted",
            "api_base": server.api_base,
            "api_key_env": "MY_REFLECTION_KEY",
            "attempts": 9,
            "wait_s": 0.01,
        }
        fast = {"kind": "gepa", "population": 2, "minibatch": 2, "metric_calls": 40}
        fast_text = json.dumps(fast | {"reflection": reflection})
        (folder / "run.yaml").write_text(f"{SETTINGS}fast: {fast_text}\n")
        words = ["-m", "fastslow", "train", "run.yaml", f"model.name={tiny_folder}"]
        done = watched(folder, *words, "--traceback", **PLANTED)
    assert done.returncode == 0, done.stderr[-3000:]
    assert any(key in sent for sent in server.keys)
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder


@pytest.mark.network
def test_a_tiny_run_with_its_tracker_opens_no_socket(left: Path) -> None:
    assert (left / "runs" / "mlflow.db").is_file()
    assert not (left / "attempts").exists(), (left / "attempts").read_text()


@pytest.mark.network
def test_a_key_of_the_environment_is_in_nothing_that_a_run_leaves_or_says(left: Path) -> None:
    files = [path for path in left.rglob("*") if path.is_file()]
    assert {"mlflow.db", "report.md", "scores.jsonl", "stderr"} <= {path.name for path in files}
    held = [
        (path.relative_to(left).as_posix(), name)
        for path in files
        for name, secret in PLANTED.items()
        if secret.encode() in path.read_bytes()
    ]
    assert held == []
    account = json.loads(next(left.rglob("report.json")).read_text())["reflection"]
    assert account["failures"] >= 2  # it was asked, and refused


@pytest.mark.network
def test_litellms_own_errors_are_repeated_without_the_key(tmp_path: Path) -> None:
    script = """
import sys
from fastslow.channels.fast.reflection.endpoint import Endpoint, NoAnswer
from dspy.lm15 import Message, Request
endpoint = Endpoint(sys.argv[1], sys.argv[2], sys.argv[3], 5.0)
try:
    endpoint.complete(Request(model="m", messages=(Message.user("hello"),)))
except NoAnswer as err:
    import traceback
    traceback.print_exception(err)
    print("asked:", err)
"""
    key = "planted key 42, of no form that is known"
    with FailingServer([401], f"no such key: {key}") as server:
        for model in ("openai/x", "hosted_vllm/x"):  # one by DSPy itself, one by LiteLLM
            done = watched(tmp_path, "-c", script, model, server.api_base, key)
            assert "asked:" in done.stdout, done.stderr[-2000:]
            assert key not in done.stdout + done.stderr


def test_every_switch_stands_before_a_library_is_imported(tmp_path: Path) -> None:
    script = (
        "import os, sys, json, fastslow\nprint(json.dumps([dict(os.environ), list(sys.modules)]))"
    )
    variables, modules = json.loads(watched(tmp_path, "-c", script).stdout)
    assert {name: variables.get(name) for name in SWITCHES} == SWITCHES
    heavy = {"mlflow", "litellm", "dspy", "huggingface_hub", "transformers", "torch"}
    assert not heavy & set(modules)
    own = watched(tmp_path, "-c", script, MLFLOW_DISABLE_TELEMETRY="false")
    assert json.loads(own.stdout)[0]["MLFLOW_DISABLE_TELEMETRY"] == "false"


def test_a_switch_is_named_in_one_place_only() -> None:
    pattern = re.compile("|".join(SWITCHES))
    named = [p for p in (ROOT / "fastslow").rglob("*.py") if pattern.search(p.read_text())]
    assert [path.name for path in named] == ["library_switches.py"]
