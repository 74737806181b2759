"""The plasticity probe: fresh runs from the base and from a stage's weights, kept and reported."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fastslow.channels.slow.channel import SlowChannel
from fastslow.core.errors import CheckpointError, ConfigError
from fastslow.loop import launch
from fastslow.results.report import build_report, recompute_report, write_report
from fastslow.results.report.sections.plasticity import Plasticity
from tests.integration.loop.test_evaluation import train

PROBE = "probe={task: held_out, updates: 3, score_every: 2, lr: 0.05}"
FAST = ("fast=null", "stages.0.cycles=1", "evaluation.kl_examples=0", "evaluation.proxies=false")


def curves(run: Path) -> dict[str, dict[str, Any]]:
    files = sorted((run / "probe" / "held_out").iterdir())
    return {path.name: json.loads(path.read_text()) for path in files}


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    return train(tmp_path_factory.mktemp("probed"), tiny_folder, *FAST, PROBE)


def without_seconds(run: Path) -> dict[str, dict[str, Any]]:
    return {name: {**curve, "seconds": None} for name, curve in curves(run).items()}


def test_both_starts_meet_the_same_data_from_their_own_weights(probed: Path) -> None:
    found = curves(probed)
    assert list(found) == ["row-000-seed-0.json", "row-002-seed-0.json"]
    base, tuned = found.values()
    assert base["at"] == tuned["at"] == [0, 2, 3]
    assert base["examples"] == tuned["examples"]
    assert len(base["examples"]) == 4
    assert base["weights"] != tuned["weights"]
    assert all(0 <= score <= 1 for row in tuned["scores"] for score in row)
    assert base["rollouts"] == 3 * 4  # gold answers draw nothing: three validations
    write_report(probed)
    report = json.loads((probed / "report.json").read_text())
    assert "held_out" not in report["tasks"]
    [probe] = report["probes"]
    assert (probe["task"], probe["row"], probe["at"]) == ("held_out", 2, [0, 2, 3])
    assert probe["figures"]["probe_end_difference"]["value"] is not None
    assert report["evaluation"]["parts"]["probe"]["rollouts"] == 24
    assert "Plasticity probe on held_out, weights of row 2" in (probed / "report.md").read_text()


def test_a_copy_of_a_whole_run_is_recomputed_to_the_same_bytes(
    probed: Path, tmp_path: Path
) -> None:
    write_report(probed)
    copy = tmp_path / "copy"
    shutil.copytree(probed, copy, ignore=shutil.ignore_patterns("stages", "resume"))
    assert recompute_report(copy) == ()


def test_the_base_start_computes_as_the_base_and_learns(probed: Path, tiny_folder: Path) -> None:
    base, tuned = curves(probed).values()
    kept = build_report(probed).section(Plasticity).probes[0].probe
    assert kept.base[0].means()[0] == sum(base["scores"][0]) / 4
    assert base["scores"][-1] != base["scores"][0]  # at this rate three updates change something
    assert tuned["seed"] == base["seed"] == 0


def test_probing_leaves_what_the_run_kept_as_it_was(
    probed: Path, tmp_path: Path, tiny_folder: Path
) -> None:
    plain = train(tmp_path, tiny_folder, *FAST, "probe=null")
    for name in ("adapter_model.safetensors", "texts.json"):
        kept = [run / "stages" / "001-second" / name for run in (probed, plain)]
        assert kept[0].read_bytes() == kept[1].read_bytes()
        last = [sorted((r / "resume").iterdir())[-1] / "policy" / name for r in (probed, plain)]
        assert last[0].read_bytes() == last[1].read_bytes()


@pytest.mark.parametrize("how", ["continue", "merge-then-new"])
def test_a_probe_cut_off_goes_on_with_the_curve_that_is_missing(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    overrides = (*FAST, PROBE, f"slow.adapter_policy={how}")
    whole = train(tmp_path / "whole", tiny_folder, *overrides)
    inner, calls = SlowChannel.adapt, iter(range(99))

    def cut_in_the_second_curve(*args: Any) -> Any:
        if next(calls) == 5:  # two stages, two pieces of the first curve, one of the second
            raise KeyboardInterrupt
        return inner(*args)

    with monkeypatch.context() as patch:
        patch.setattr(SlowChannel, "adapt", cut_in_the_second_curve)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut", tiny_folder, *overrides)
    [broken] = (tmp_path / "cut" / "runs").iterdir()
    [first] = curves(broken).values()
    launch.resume(broken, lambda path: ())
    assert curves(broken)["row-000-seed-0.json"] == first  # not made again
    assert without_seconds(broken) == without_seconds(whole)


def test_a_run_that_has_ended_can_be_probed_on_any_task_it_never_visits(
    tmp_path: Path, tiny_folder: Path
) -> None:
    run = train(tmp_path, tiny_folder, *FAST)
    launch.probe(run, "held_out", stage=1)
    assert list(curves(run)) == ["row-000-seed-0.json", "row-001-seed-0.json"]
    launch.probe(run, "held_out")
    assert [(p.task, p.row) for p in build_report(run).section(Plasticity).probes] == [
        ("held_out", 1),
        ("held_out", 2),
    ]
    with pytest.raises(ConfigError, match="a stage of this run trains on it"):
        launch.probe(run, "first")
    with pytest.raises(ConfigError, match="expected 1 to 2, got 3"):
        launch.probe(run, "held_out", stage=3)
    (run / "probe" / "held_out" / "row-001-seed-0.json").write_text("{")
    with pytest.raises(CheckpointError, match="not a curve of a probe"):
        build_report(run)
