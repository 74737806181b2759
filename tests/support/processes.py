"""Runs of two processes, as `torchrun` starts them, and what their folders say."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from fastslow.records.events import CycleEvent, PopulationEvent, RemedyEvent
from fastslow.records.jsonl import read_events, read_scores
from tests.support.paths import ROOT

GUIDED = {
    "hints": ("hints, rungs: [0.2, 0.4]", ("hinted_groups", "rescued_at_0.2", "extra_rollouts")),
    "answer": ("answer", ("guided_groups", "loss", "gradient_share")),
}
"""Kinds of guidance, and figures that have to be the same."""

TOGETHER = {
    "continue": (
        "slow.remedies=[{kind: replay, target: start, rows: 4, keep: 8}, {kind: ewc, examples: 4}, "
        "{kind: l2}, {kind: movement}, {kind: kl_start}, {kind: renew}, "
        "{kind: renew, action: shrink_perturb}, {kind: renew, action: l2_init}]",
        "slow.kl_budget_earlier=1.0",
        "slow.difficulty.signal={kind: hoyer, trusted: true}",
        "slow.difficulty.train_bands=[unsolved, hard, medium]",
        "slow.guidance={kind: answer, signal: {kind: question_logprob, trusted: true}}",
    ),
    "merge-then-new": (
        "slow.adapter_policy=merge-then-new",
        "slow.remedies=[{kind: orthogonal}, {kind: core_rows, share: 0.2}, {kind: interpolate}, "
        "{kind: replay, rows: 4, keep: 40}]",
    ),
    "new-per-stage": (
        "slow.adapter_policy=new-per-stage",
        "slow.remedies=[{kind: merge, how: task_arithmetic}, {kind: replay, rows: 4, keep: 40}]",
    ),
    "distill": (
        "slow={kind: distill, group: 4, teacher: success, teacher_weights: ema, "
        "remedies: [{kind: replay, rows: 4, target: gold, keep: 8}]}",
    ),
}
"""Remedies that go together, and signals that decide something; one run each, since starting
processes takes most of the time. The teacher of the last has nothing to teach where a group has no
success: then one process is idle."""


def torchrun(*words: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Two processes, as a user starts them; seconds until they are given up."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.run(
        [sys.executable, *launcher, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=timeout,
    )


def adapter(run: Path, stage: str = "000-first") -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(
        run / "stages" / stage / "adapter_model.safetensors"
    )
    return tensors


def events(run: Path, *kinds: type) -> list[Any]:
    return [e for e in read_events(run / "events.jsonl") if isinstance(e, kinds)]


def in_two(folder: Path, overrides: Sequence[str]) -> Path:
    """The run of `folder / "toy.yaml"` in two processes."""
    words = [str(folder / "toy.yaml"), *overrides, f"runs_dir={folder / 'two'}"]
    done = torchrun("-m", "fastslow", "train", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Score matrix") == 1
    [card] = (folder / "two").glob("*/run.json")
    return card.parent


def require_alike(alone: Path, both: Path) -> None:
    """Two runs of one stage under a KL budget, shrunk after it, are the same up to rounding."""
    assert adapter(alone).keys() == adapter(both).keys()
    for name, tensor in adapter(alone).items():
        torch.testing.assert_close(adapter(both)[name], tensor, atol=1e-5, rtol=0)
    rows = [
        [r.sample.completion for r in read_scores(run / "scores.jsonl")] for run in (alone, both)
    ]
    assert rows[0] == rows[1]
    assert events(alone, PopulationEvent) == events(both, PopulationEvent)
    cycles = [events(run, CycleEvent) for run in (alone, both)]
    assert [e.rollouts for e in cycles[0]] == [e.rollouts for e in cycles[1]]
    assert [e.metrics.get("slow/kl_budget_hit") for e in cycles[1]] == [None, 1.0]
    [shrunk] = events(alone, RemedyEvent)
    assert [e.figures["factor"] for e in events(both, RemedyEvent)] == [shrunk.figures["factor"]]
