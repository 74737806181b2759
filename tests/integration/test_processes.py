"""One run in two processes, as torchrun starts them, against the same run in one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastslow.cli import main
from fastslow.errors import ConfigError
from fastslow.records import read_scores
from tests.integration.test_run import TOY, train

pytestmark = pytest.mark.network  # torchrun's processes meet on loopback
ROOT = Path(__file__).parents[2]


def test_two_processes_give_the_adapter_of_one(tmp_path: Path, tiny_folder: Path) -> None:
    (tmp_path / "toy.yaml").write_text(TOY)
    overrides = [f"model.name={tiny_folder}", "stages=[{task: first, cycles: 1}]", "slow.lr=0.001"]
    alone = train(tmp_path, [*overrides, f"runs_dir={tmp_path / 'one'}"])
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
    ]
    command += ["-m", "fastslow", "train", str(tmp_path / "toy.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *overrides, f"runs_dir={tmp_path / 'two'}"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Score matrix") == 1
    [both] = (tmp_path / "two").iterdir()
    adapters = [
        load_file(run / "stages" / "000-first" / "adapter_model.safetensors")
        for run in (alone, both)
    ]
    assert adapters[0].keys() == adapters[1].keys()
    for name, tensor in adapters[0].items():
        torch.testing.assert_close(adapters[1][name], tensor, atol=1e-5, rtol=0)
    rows = [
        [r.sample.completion for r in read_scores(run / "scores.jsonl")] for run in (alone, both)
    ]
    assert rows[0] == rows[1]


def test_rollouts_that_cannot_be_shared_out_are_refused(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    (tmp_path / "toy.yaml").write_text(TOY)
    with pytest.raises(ConfigError, match="8 rollouts of an update cannot be shared out"):
        train(tmp_path, [f"model.name={tiny_folder}", f"runs_dir={tmp_path / 'runs'}"])
    assert main(["--version"]) == 0
