"""What docs/results.md and the README say of an ablation that was kept."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import geometric_mean

import pytest

from benchmarks import ablations, arenas
from fastslow.measure.scores.guessing import Guess
from fastslow.results.ablation.records import RunRecord
from fastslow.results.ablation.result import Result, make_result
from fastslow.results.ablation.rollouts_to_best import MISSED
from fastslow.results.ablation.write import write_result
from fastslow.results.render.layout import Text
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
    return folder


def test_a_kept_ablation_is_shown_with_goals_tables_and_a_figure_per_claim(finished: Path) -> None:
    assert arenas.arena_lines() == []
    home = ablations.keep_ablation(finished)
    lines = "\n".join(arenas.arena_lines())
    assert "6 of 2 runs, seeds 0, 1, 2; 2 minutes of runs" in lines
    assert (
        "| final average score above slow only's by 0.30 or more, the interval above zero | 0.58 ["
        in lines
    )
    assert "### Claims of Fast-Slow Training" in lines
    assert not (home / "figures").exists()  # showing writes nothing
    ablations.write_details()
    drawn = {path.stem for path in (home / "figures").iterdir()}
    assert len(drawn) == 7
    for figure in ("differences", "tradeoff"):
        assert figure in drawn
        assert f"(../runs/reference/kept/channels-text/figures/{figure}.svg)" in lines
    assert "(../runs/reference/kept/channels-text/ablation.md)" in lines
    assert all(f"(figures/{figure}.svg)" in (home / "ablation.md").read_text() for figure in drawn)
    formats = [path.suffix for path in sorted((home / "tables").iterdir())]
    assert formats == [".csv", ".tex"] * (len(formats) // 2)
    assert "| **fst** | 3/3 |" in lines


def test_the_first_table_says_when_two_channels_beat_a_simpler_way(finished: Path) -> None:
    assert not arenas.payoff({"channels-text": "texts"}).rows
    ablations.keep_ablation(finished)
    table = arenas.payoff({"channels-text": "texts", "orders": "not kept"})
    [row] = table.rows
    cells = dict(zip(table.header, row, strict=True))
    assert (cells["arena"].text, cells["seeds"].text) == ("texts", "3")
    assert cells["minus weights alone"].text.startswith("+0.58 [")
    assert cells["minus weights alone"].style == "strong"  # its interval is above zero
    assert cells["minus all tasks in rotation"].text == "-"
    assert "within 0 % of that of two channels" in (table.note or "")


def test_the_first_table_says_how_far_budgets_are_apart_and_how_many_seeds_a_cell_has(
    finished: Path,
) -> None:
    more = {"fast": 0, "slow": 33}  # where the other arm has 30
    records = [
        replace(run, rollouts=more if run.arm == "slow-only" else run.rollouts)
        for run in both_and_slow()
        if (run.arm, run.seed) != ("slow-only", 2)
    ]
    write_result(result_of(records), finished)
    ablations.keep_ablation(finished)
    table = arenas.payoff({"channels-text": "texts"})
    [row] = table.rows
    cells = dict(zip(table.header, row, strict=True))
    assert cells["seeds"].text == "3"
    assert cells["minus weights alone"].text.endswith("], 2 seeds")
    assert "within 10 % of that of two channels" in (table.note or "")


@pytest.mark.parametrize(("score", "mark"), [(0.0, ""), (0.9, " (g)")])
def test_the_first_table_marks_a_way_that_only_guesses(
    finished: Path, score: float, mark: str
) -> None:
    chance = Guess("a", {"1": score}, None, "no other", 1, 1)
    records = [replace(r, guesses=dict.fromkeys(r.stages, chance)) for r in both_and_slow()]
    write_result(result_of(records), finished)
    ablations.keep_ablation(finished)
    table = arenas.payoff({"channels-text": "texts"})
    cells = dict(zip(table.header, table.rows[0], strict=True))
    assert cells["minus weights alone"].text.partition("]")[2] == mark
    assert ("guessing, or below it: weights alone" in "".join(arenas.arena_lines())) == bool(mark)


def test_the_first_table_has_the_kl_at_equal_score(finished: Path) -> None:
    def cell(runs: list[RunRecord]) -> Text:
        write_result(result_of(runs), finished)
        ablations.keep_ablation(finished)
        return arenas.payoff({"channels-text": "texts"}).rows[0][-1]

    # 0.02 of 0.1 on the first task, 0.02 of 0.2 on the second, but 0.025 under one of three seeds
    ratio = geometric_mean([0.2] * 3 + [0.1, 0.125, 0.1])
    assert cell(both_and_slow()).text.startswith(f"x {ratio:.2g} [")
    assert cell(both_and_slow()).style == "strong"  # its interval is below one
    assert cell([run for run in both_and_slow() if run.seed == 0]).text == "-"  # no interval


def test_being_above_the_base_alone_advises_nothing() -> None:
    arms: dict[str, dict[str, object]] = {"fst": {}, "slow-only": {}, "base": {}}
    runs = [run for run in both_and_slow() if run.arm == "fst"]
    runs += [record("base", seed, [(0.0, 0.0)] * 3) for seed in range(3)]
    settings = config(arms=arms)
    [text, _] = arenas.advice(make_result(settings, runs, Counter(dict.fromkeys(arms, 3))))
    assert text.endswith("better than the base. Nothing follows for tasks like these.")


def with_scores(fst: float, slow: float) -> Result:
    """Six runs that end at these scores, seeds a little apart."""
    return result_of(
        [
            record(arm, seed, [(0.0, 0.0), (score, 0.0), (score + (seed - 1) / 20, score)])
            for arm, score in (("fst", fst), ("slow-only", slow))
            for seed in range(3)
        ]
    )


@pytest.mark.parametrize(
    ("fst", "slow", "words"),
    [
        (0.9, 0.3, "better than weights alone. On tasks like these, let the channels take turns."),
        (
            0.3,
            0.9,
            "worse than weights alone. On tasks like these, try weights alone first, which scored",
        ),
        (
            0.5,
            0.5,
            "not told apart from weights alone. Differences of up to 1.00 are not excluded",
        ),
    ],
)
def test_the_advice_follows_the_interval(fst: float, slow: float, words: str) -> None:
    [text, _] = arenas.advice(with_scores(fst, slow))
    assert words in text


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
