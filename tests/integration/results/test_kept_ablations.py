"""What docs/results.md and the README say of an ablation that was kept."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import ablations
from fastslow.results.ablation.records import RunRecord
from fastslow.results.ablation.result import Result, make_result
from fastslow.results.ablation.rollouts_to_best import MISSED
from fastslow.results.ablation.write import write_result
from tests.support.made_ablation import both_and_slow, config, record


def result_of(records: list[RunRecord]) -> Result:
    return make_result(config(), records, Counter({"fst": 3, "slow-only": 3}))


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ablation's folder with a run's environment in it; what is kept goes beside."""
    folder = tmp_path / "channels-text"
    write_result(result_of(both_and_slow()), folder)
    (folder / "runs.csv").write_text(
        "arm,seed,order,config_hash,status,folder,seconds\nfst,0,,0,missing,,\n"
        "fst,1,,0,finished,one,90.0\n"
    )
    (folder / "one").mkdir()
    packages = '{"torch": "1", "transformers": "2", "trl": "3", "dspy": "4"}'
    (folder / "one" / "environment.json").write_text(
        f'{{"cpus": 2, "machine": "x86_64", "python": "3.11", "packages": {packages}}}'
    )
    monkeypatch.setattr(ablations, "ABLATIONS", tmp_path / "kept")
    monkeypatch.setattr(ablations, "ROOT", tmp_path)
    return folder


def test_a_kept_ablation_is_shown_with_goals_tables_and_a_figure_per_claim(finished: Path) -> None:
    assert ablations.ablation_lines() == []
    assert ablations.headline("channels-text") == []
    home = ablations.keep_ablation(finished)
    lines = "\n".join(ablations.ablation_lines())
    assert "6 of 2 runs, seeds 0, 1, 2; 2 minutes of runs" in lines
    assert (
        "| final average score above slow only's by 0.30 or more, the interval above zero | 0.58 ["
        in lines
    )
    assert "### Claims of Fast-Slow Training" in lines
    assert not (home / "figures").exists()  # showing writes nothing
    ablations.draw_figures()
    figures = sorted(path.stem for path in (home / "figures").iterdir())
    assert len(figures) == 5
    assert all(f"(../kept/channels-text/figures/{figure}.svg)" in lines for figure in figures)
    first, _, figure, _ = ablations.headline("channels-text")
    assert "Average accuracy of fst minus slow-only: +0.58" in first
    assert "Backward transfer of fst: -0.05 [" in first
    assert "(kept/channels-text/figures/claim-higher-score.svg)" in figure


def test_what_cannot_be_kept_leaves_what_was_kept_before(finished: Path) -> None:
    home = ablations.keep_ablation(finished)
    (finished / "records.jsonl").unlink()
    with pytest.raises(FileNotFoundError):
        ablations.keep_ablation(finished)
    assert (home / "records.jsonl").is_file()


def test_a_slow_channel_that_never_left_the_base_decides_the_goal_that_says_so() -> None:
    goals = ablations.GOALS["channels-text"]
    flat = [(0.0, 0.0)] * 3
    records = [run for run in both_and_slow() if run.arm == "fst"]
    stays = result_of([*records, *(record("slow-only", seed, flat) for seed in range(3))])
    rows = ablations.goal_lines(goals, stays)
    assert "| no value: slow only never rose above the base | yes |" in rows[4]
    assert "| no value: slow only never rose above the base | - |" in rows[3]
    moves = ablations.goal_lines(goals, result_of(both_and_slow()))
    assert not any("never rose" in row for row in moves)


def test_a_goal_wants_its_interval_above_zero_where_it_says_so() -> None:
    goal = ablations.GOALS["channels-text"][0]
    [claim] = [c for c in result_of(both_and_slow()).claims if c.name == "higher_score"]
    assert goal.is_met(claim)
    assert not goal.is_met(replace(claim, low=-0.01))
    assert not goal.is_met(replace(claim, low=None))


def test_a_target_that_was_missed_is_a_goal_not_met() -> None:
    goals = ablations.GOALS["channels-text"]
    result = result_of(both_and_slow())
    missed = replace(result.claims[0], effect=None, reason=MISSED)
    rows = ablations.goal_lines(goals, replace(result, claims=(missed, *result.claims[1:])))
    assert rows[3].endswith(f"| no value: {MISSED} | no |")
