"""Runs whose phases do not take turns, and a run that adapts nothing."""

from pathlib import Path

from fastslow.config.cost import estimate_cost
from fastslow.config.loading.load import load_config
from fastslow.loop import launch
from fastslow.records.events import CycleEvent
from fastslow.records.jsonl import read_events, read_scores
from fastslow.results.report import build_report
from fastslow.results.report.sections.cost import Cost

FILE = """
name: toy
stages: [{task: first, cycles: 2}]
tasks: {first: {use: "tests.support.toy_tasks:parity"}}
cycle: {optimizer_steps: 2, problems: 2, pool: 8}
fast: {kind: demos, population: 2, demonstrations: 2, metric_calls: 24, threads: 4}
slow: {kind: grpo, group: 4, lr: 0.02}
evaluation: {test_examples: 8, validation_examples: 4, kl_examples: 2}
tracking: null
"""


def train(folder: Path, model: Path, *overrides: str) -> Path:
    (folder / "toy.yaml").write_text(FILE)
    given = [f"model.name={model}", f"runs_dir={folder / 'runs'}", *overrides]
    return launch.train(load_config([folder / "toy.yaml"], given), ["test"], lambda _: ())


def test_slow_first_does_every_update_under_the_seed_text(
    tmp_path: Path, tiny_folder: Path
) -> None:
    run = train(tmp_path, tiny_folder, "cycle.schedule=slow_first")
    cycles = [e for e in read_events(run / "events.jsonl") if isinstance(e, CycleEvent)]
    done = [(e.cycle, *e.rollouts) for e in cycles]
    assert done == [(0, "slow"), (1, "slow"), (2, "fast"), (3, "fast")]
    assert all(e.rollouts["slow"] == 2 * 2 * 4 for e in cycles[:2])
    within = {
        r.cycle: r.sample.text_hash
        for r in read_scores(run / "scores.jsonl")
        if r.cycle is not None
    }
    assert set(within) == {0, 1, 2}
    assert within[0] == within[1]


def test_without_channels_a_run_measures_the_base(tmp_path: Path, tiny_folder: Path) -> None:
    overrides = ["fast=null", "slow=null"]
    run = train(tmp_path, tiny_folder, *overrides)
    report = build_report(run)
    rollouts = report.section(Cost).rollouts
    assert {row.sample.weights for row in read_scores(run / "scores.jsonl")} == {"base"}
    assert (rollouts["fast"], rollouts["slow"]) == (0, 0)
    [before], [after] = report.cells
    assert before.score == after.score
    loaded = load_config([tmp_path / "toy.yaml"], overrides)
    assert estimate_cost(loaded.config).slow_rollouts == 0
