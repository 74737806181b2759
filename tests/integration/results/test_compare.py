"""`fastslow compare`: what is paired, what it gives, and what it says of the rest."""

import csv
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import t

from fastslow.cli.main import main
from fastslow.core.errors import ConfigError
from fastslow.measure.stats.intervals import wilson
from fastslow.measure.stats.significance import holm
from fastslow.records.events import DriftEvent
from fastslow.records.run_folder import RunDir
from fastslow.results.compare.build import compare_runs
from fastslow.results.compare.data import ArmComparison, Contrast, Quantity, RunComparison
from fastslow.results.compare.tables import comparison_tables, verdicts
from fastslow.results.compare.write import json_text, markdown, page, scores_csv, write_comparison
from tests.support.hostile_folder import TASK, write_hostile_run
from tests.support.run_folder import OUTCOMES, name_clusters, without_seal, write_run

KEPT = (*OUTCOMES[:3], {**OUTCOMES[3], "alpha": "11110000"})
"""As `OUTCOMES`, but three more of alpha's eight examples are still right at the end."""


def edit(run: Path, changes: Mapping[str, Any]) -> Path:
    """Change keys of a run's config.json, dotted."""
    path = without_seal(run) / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        *parents, last = key.split(".")
        inner = config
        for name in parents:
            inner = inner[name]
        inner[last] = value
    path.write_text(json.dumps(config))
    return run


def two(tmp_path: Path) -> tuple[Path, Path]:
    return write_run(tmp_path / "a"), edit(write_run(tmp_path / "b", KEPT), {"slow.lr": 1e-9})


def contrast(result: RunComparison, quantity: Quantity, task: str) -> Contrast:
    [comparison] = result.comparisons
    return next(c for c in comparison.tasks[quantity] if c.name == task)


def metric(comparison: ArmComparison, name: str) -> Contrast:
    return next(c for c in (*comparison.metrics, *comparison.costs) if c.name == name)


def test_every_number_of_a_small_comparison_is_as_worked_by_hand(tmp_path: Path) -> None:
    result = compare_runs(two(tmp_path))
    alpha = contrast(result, "final", "alpha")
    assert (alpha.baseline, alpha.value, alpha.difference, alpha.n) == (0.125, 0.5, 0.375, 8)
    # three of eight from wrong to right: p = 2 / 2^3; sd = sqrt(8/7 * 3/8 * 5/8) = 0.517549
    assert (alpha.p_value, alpha.test) == (0.25, "exact McNemar")
    assert alpha.low == pytest.approx(0.375 - 1.96 * 0.517549 / 8**0.5, abs=1e-6)
    assert alpha.high == pytest.approx(0.375 + 1.96 * 0.517549 / 8**0.5, abs=1e-6)
    assert alpha.smallest_detectable == pytest.approx(2.80 * 0.517549 / 8**0.5, abs=1e-6)
    beta = contrast(result, "final", "beta")
    assert (beta.difference, beta.low, beta.reason) == (0.0, None, "no example changed")
    plain = {c.name: c.p_value for c in result.comparisons[0].tasks["final"]}
    assert plain == {"alpha": 0.25, "beta": 1.0, "gamma": 1.0}
    adjusted = {c.name: c.p_holm for c in result.comparisons[0].tasks["final"]}
    assert adjusted == holm({"alpha": 0.25, "beta": 1.0, "gamma": 1.0}) != plain


def test_forgetting_is_a_difference_of_differences_of_the_same_examples(tmp_path: Path) -> None:
    result = compare_runs(two(tmp_path))
    alpha = contrast(result, "change", "alpha")
    assert (alpha.baseline, alpha.value, alpha.difference) == (-0.875, -0.5, 0.375)
    assert alpha.test == "normal"
    gamma = contrast(result, "change", "gamma")
    assert gamma.difference is None
    assert gamma.reason is not None
    assert gamma.reason.endswith("learned in the last stage: nothing came after")
    bwt = metric(result.comparisons[0], "bwt_gem")
    assert (bwt.baseline, bwt.value, bwt.difference) == (-0.4375, -0.25, 0.1875)
    assert alpha.low is not None
    # the estimator of an ablation: Student's t, 7 + 7 degrees of freedom for two tasks
    se = (0.375 - alpha.low) / 1.96 / 2
    assert bwt.low == pytest.approx(0.1875 - t.ppf(0.975, 14) * se)
    assert (bwt.covers, bwt.test, bwt.seed_differences) == ("examples", "Student's t", ())
    forgetting = metric(result.comparisons[0], "forgetting_chaudhry")
    assert (forgetting.difference, forgetting.low) == (-0.1875, None)
    assert forgetting.reason == "no plain mean of paired differences: no interval"


def test_a_mean_over_tasks_is_as_uncertain_as_its_tasks_whose_intervals_are_cut_at_1(
    tmp_path: Path,
) -> None:
    better = ({**OUTCOMES[3], "alpha": "11111110"},)
    first = write_run(tmp_path / "a")
    second = edit(write_run(tmp_path / "b", (*OUTCOMES[:3], *better)), {"slow.lr": 1e-9})
    result = compare_runs((first, second))
    alpha = contrast(result, "final", "alpha")
    assert (alpha.difference, alpha.high) == (0.75, 1.0)
    mean = metric(result.comparisons[0], "average_accuracy")
    # six of eight became right: sd = sqrt(8/7 * 6/8 * 2/8) = 0.46291; beta, gamma have no spread
    half = t.ppf(0.975, 21) * 0.46291 / 8**0.5 / 3
    assert mean.low == pytest.approx(0.25 - half, abs=1e-6)
    assert mean.high == pytest.approx(0.25 + half, abs=1e-6)


def test_a_difference_that_may_be_none_says_what_could_have_been_found(tmp_path: Path) -> None:
    result = compare_runs(two(tmp_path))
    alpha = contrast(result, "final", "alpha")
    assert alpha.power is not None
    assert 0 < alpha.power < 0.2  # eight examples
    assert alpha.power_text == ""  # its interval is above 0
    bwt = metric(result.comparisons[0], "bwt_gem")
    assert bwt.power_text == f" (power {bwt.power:.2f} for +0.05)"
    [table] = [table for table in comparison_tables(result) if table.title == "Metrics"]
    [row] = [row for row in table.rows if row[0].text == "bwt_gem"]
    assert row[4].text.endswith(bwt.power_text)
    assert json.loads(json_text(result))["comparisons"][0]["metrics"]["bwt_gem"]["power"]


def test_examples_of_one_source_count_once(tmp_path: Path) -> None:
    paths = two(tmp_path)
    alone = contrast(compare_runs(paths), "final", "alpha")
    for path in paths:
        name_clusters(path, ("e0", "e1", "e2", "e3"))  # which change alike
    shared = contrast(compare_runs(paths), "final", "alpha")
    assert shared.difference == alone.difference
    assert shared.low is not None
    assert alone.low is not None
    assert shared.low < alone.low
    assert (shared.test, alone.test) == ("normal", "exact McNemar")


def test_costs_are_counted_and_have_no_interval(tmp_path: Path) -> None:
    fast = metric(compare_runs(two(tmp_path)).comparisons[0], "rollouts, fast + slow")
    assert (fast.baseline, fast.value, fast.difference, fast.low) == (312.0, 312.0, 0.0, None)


def test_drift_is_not_paired_and_takes_both_standard_errors(tmp_path: Path) -> None:
    runs = two(tmp_path)
    for run, value, error in zip(runs, (0.5, 0.25), (0.03, 0.04), strict=True):
        with RunDir.open(run) as run_dir:
            run_dir.events.append(
                DriftEvent(3, "alpha", "kl_fst", value, None, 8, "t", "with_text", error)
            )
    [comparison] = compare_runs(runs).comparisons
    drift = {c.name: c for c in comparison.drift}
    alpha, beta = drift["kl_fst, alpha"], drift["kl_fst, beta"]
    assert (alpha.difference, alpha.n) == (-0.25, 0)
    assert alpha.low == pytest.approx(-0.25 - 1.96 * 0.05)
    assert (beta.difference, beta.low, beta.reason) == (0.0, None, "no standard error was recorded")


def test_drift_of_several_seeds_is_as_uncertain_as_its_seeds(tmp_path: Path) -> None:
    runs = [
        edit(write_run(tmp_path / f"{arm}{seed}"), {"seed": seed, "slow.lr": lr})
        for arm, lr in (("a", 1e-4), ("b", 1e-3))
        for seed in (0, 1)
    ]
    for run, value in zip(runs, (0.5, 0.5, 0.25, 0.375), strict=True):
        with RunDir.open(run) as run_dir:
            run_dir.events.append(
                DriftEvent(3, "alpha", "kl_fst", value, None, 8, "t", "with_text", 0.01)
            )
    drift = {c.name: c for c in compare_runs(runs).comparisons[0].drift}
    alpha, beta = drift["kl_fst, alpha"], drift["kl_fst, beta"]
    assert (alpha.difference, alpha.covers) == (-0.1875, "seeds")
    # differences of -.25 and -.125: se = .0625, t(.975, 1) = 12.7062
    assert alpha.low == pytest.approx(-0.1875 - 12.7062 * 0.0625, abs=1e-5)
    assert (beta.difference, beta.reason) == (0.0, "every seed gave the same")


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("scores.jsonl", "alpha@1", "alpha@2", "other versions of the task: alpha@1, alpha@2"),
        ("scores.jsonl", '"e7"', '"e9"', "other examples: 7 shared of 8 and 8"),
        (
            "config.json",
            '"alpha": {"use": "made-up", "params": {}}',
            '"alpha": {"use": "made-up", "params": {"max_tokens": 9}}',
            "asked otherwise: tasks.alpha.params.max_tokens is null, 9",
        ),
    ],
)
def test_a_task_that_was_not_asked_alike_is_not_paired_and_says_why(
    tmp_path: Path, file: str, old: str, new: str, reason: str
) -> None:
    runs = two(tmp_path)
    path = runs[1] / file
    text = path.read_text()
    if file == "config.json":
        text = json.dumps(json.loads(text))
    lines = [
        line.replace(old, new) if '"alpha"' in line else line for line in text.splitlines(True)
    ]
    assert "".join(lines) != text
    path.write_text("".join(lines))
    result = compare_runs(runs)
    alpha = contrast(result, "final", "alpha")
    assert (alpha.difference, alpha.low, alpha.p_holm, alpha.n) == (None, None, None, 0)
    assert alpha.reason == reason
    assert (alpha.baseline, alpha.value) == (0.125, 0.5)
    assert contrast(result, "final", "beta").difference == 0.0
    assert metric(result.comparisons[0], "average_accuracy").reason == (
        "not every task is paired: no interval"
    )


def test_a_run_that_is_not_done_gives_no_value_and_a_reason(tmp_path: Path) -> None:
    short = write_run(tmp_path / "b", OUTCOMES[:3])
    result = compare_runs([write_run(tmp_path / "a"), short])
    alpha = contrast(result, "final", "alpha")
    assert (alpha.difference, alpha.value) == (None, None)
    assert str(alpha.reason).endswith(f"{short.name}: not measured")
    assert contrast(result, "learned", "alpha").difference == 0.0
    assert "cannot be compared" in verdicts(result)[0]
    assert metric(result.comparisons[0], "average_accuracy").difference is None


def test_runs_that_differ_in_their_seed_alone_are_an_arm_paired_by_seed(tmp_path: Path) -> None:
    runs = [
        edit(write_run(tmp_path / f"{arm}{seed}", outcomes), {"seed": seed, "slow.lr": lr})
        for arm, outcomes, lr in (("a", OUTCOMES, 1e-4), ("b", KEPT, 1e-3))
        for seed in (0, 1)
    ]
    extra = edit(write_run(tmp_path / "b2", KEPT), {"seed": 2, "slow.lr": 1e-3})
    result = compare_runs([*runs, extra])
    assert [[run.seed for run in arm.runs] for arm in result.arms] == [
        [0, 1],
        [0, 1, 2],
    ]
    [comparison] = result.comparisons
    assert len(comparison.pairs) == 2
    assert comparison.notes == ("1 runs have no partner with the same seed and are left out.",)
    alpha = contrast(result, "final", "alpha")
    assert (alpha.difference, alpha.n, alpha.test) == (0.375, 8, "Student's t")
    # both seeds say the same, which leaves the spread of eight examples: t(.975, 7) = 2.364624
    assert alpha.low == pytest.approx(0.375 - 2.364624 * 0.517549 / 8**0.5, abs=1e-6)
    assert alpha.covers == "seeds and examples"
    beta = contrast(result, "final", "beta")
    assert (beta.low, beta.reason) == (None, "every seed gave the same")
    assert beta.smallest_detectable == pytest.approx(wilson(0, 8).high)
    assert alpha.seed_differences == (0.375, 0.375)
    assert alpha.sign_flip_p == 0.5
    assert alpha.sign_flip_note is not None
    assert "2 seeds cannot give p below 0.5" in alpha.sign_flip_note
    assert result.settings == {"slow.lr": (1e-4, 1e-3)}
    assert verdicts(result)[0].endswith("; 2 seeds: intervals over seeds and examples.")
    notes = {table.title: table.note for table in comparison_tables(result)}
    assert notes["Metrics"].startswith("2 seeds: intervals over seeds and examples. ")


def test_arms_without_a_seed_in_common_are_not_paired(tmp_path: Path) -> None:
    runs = [
        edit(write_run(tmp_path / f"r{seed}"), {"seed": seed, "slow.lr": 1e-4 if seed < 2 else 1})
        for seed in range(4)
    ]
    result = compare_runs(runs)
    assert contrast(result, "final", "alpha").reason == "no seed in common: [0, 1], [2, 3]"
    assert verdicts(result)[0].endswith("no seed in common: [0, 1], [2, 3].")


def test_two_runs_that_differ_in_their_seed_alone_are_compared_with_a_word_on_it(
    tmp_path: Path,
) -> None:
    runs = [edit(write_run(tmp_path / f"r{seed}"), {"seed": seed}) for seed in (0, 5)]
    [comparison] = compare_runs(runs).comparisons
    assert comparison.notes[0].startswith("Their seeds differ (0, 5)")
    assert comparison.tasks["final"][0].difference == 0.0


def test_what_is_no_comparison_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    with pytest.raises(ConfigError, match="needs two run folders at least, got 1"):
        compare_runs([run])
    with pytest.raises(ConfigError, match="a run folder is given twice"):
        compare_runs([run, run / ".." / run.name])
    second = write_run(tmp_path / "b", KEPT)
    with pytest.raises(ConfigError, match=r"--out .*: a run folder, got run\.json in it"):
        write_comparison(compare_runs([run, second]), second)
    assert not (second / "compare.json").exists()


def test_folders_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    second = second.rename(tmp_path / "b" / first.name)
    result = compare_runs([first, second])
    assert [arm.name for arm in result.arms] == [f"a/{first.name}", f"b/{first.name}"]


def test_every_file_says_the_same_and_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    runs = two(tmp_path)
    result = compare_runs(runs)
    data = json.loads(json_text(result))
    assert data["comparisons"][0]["final"]["alpha"]["difference"] == 0.375
    assert data["comparisons"][0]["metrics"]["bwt_gem"]["value"] == -0.25
    assert data["settings"]["slow.lr"][1] == 1e-9
    assert data["verdict"] == list(verdicts(result))
    assert "+0.38 [+0.02, +0.73]" in markdown(result)
    rows = list(csv.DictReader(io.StringIO(scores_csv(result))))
    assert len(rows) == 2 * 3 * 3
    assert [r["score"] for r in rows if (r["task"], r["phase"]) == ("alpha", "final")] == [
        "0.125000",
        "0.500000",
    ]
    again = compare_runs(runs)
    assert json_text(again) == json_text(result)
    assert page(again, ()) == page(result, ())


def test_no_interval_hides_behind_a_claim_of_no_difference(tmp_path: Path) -> None:
    [verdict] = verdicts(compare_runs(two(tmp_path)))
    assert "final average accuracy +0.12 [" in verdict
    assert "no significant difference on alpha, beta, gamma, though one below 0.51 could" in verdict
    assert verdict.endswith("; one seed: intervals over examples only.")


def test_what_runs_were_made_with_is_named_where_it_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = two(tmp_path)
    assert compare_runs(runs).origins == {}
    torch: dict[str, str | None] = {"torch": "2.13", "trl": None}
    newer: dict[str, str | None] = {"torch": "2.14", "trl": "1.16"}
    for run, packages in zip(runs, (torch, newer), strict=True):
        environment = {"python": "3.11.7", "packages": packages, "git": {"commit": "a1"}}
        (run / "environment.json").write_text(json.dumps(environment))
    members = {"train": {"e9": "q1a1"}, "test": {"e1": "q2a2"}}
    for run, answer in zip(runs, ("a1", "a3"), strict=True):
        members["train"] = {"e9": f"q1{answer}"}
        data = {"schema_version": 1, "tasks": {"alpha": {**members, "validation": {}}}}
        (run / "data.json").write_text(json.dumps(data))
        edit(run, {"data": answer})  # two data sets that say so may be compared
    result = compare_runs(runs)
    assert result.origins["packages.torch"] == (("2.13",), ("2.14",))
    assert result.origins["packages.trl"] == (("not recorded",), ("1.16",))
    assert set(result.origins) == {"packages.torch", "packages.trl", "data.alpha.train"}
    assert json.loads(json_text(result))["origins"]["packages.torch"] == [["2.13"], ["2.14"]]
    table = next(t for t in comparison_tables(result) if t.title == "Made with")
    assert [cell.text for cell in table.rows[1]] == ["packages.torch", "2.13", "2.14"]
    assert main(["compare", *map(str, runs)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Not made with the same: data.alpha.train, packages.torch, packages.trl" in printed


def test_names_from_outside_are_shown_and_not_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [write_hostile_run(tmp_path / name) for name in ("a", "b")]
    edit(runs[1], {"slow.lr": "\x1b[31m<script>x</script>"})
    result = compare_runs(runs)
    for text in (page(result, ()), markdown(result)):
        assert all(c == "\n" or c.isprintable() for c in text)
        assert not re.search(r"<(script|img)", text)
    assert TASK.replace("<", "&lt;").replace(">", "&gt;") in page(result, ())
    assert main(["compare", *map(str, runs), "--full"]) == 0
    printed = capsys.readouterr().out
    assert "\\x1b[31m" in printed
    assert all(c == "\n" or c.isprintable() for c in printed)


def test_the_command_prints_and_writes_only_where_it_was_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(run) for run in two(tmp_path)]
    before = sorted(tmp_path.rglob("*"))
    assert main(["compare", *runs]) == 0
    assert "Score at the end" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    assert main(["compare", *runs, "--out", str(tmp_path / "out")]) == 0
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert {"compare.html", "compare.md", "compare.json", "scores.csv"} <= files
    assert {"figures/compare-scores.png", "figures/compare-differences-1.svg"} <= files
    assert "written:" in capsys.readouterr().out
    assert main(["compare", runs[0]]) == 2
    assert "needs two run folders" in capsys.readouterr().err
    assert main(["compare", *runs, str(tmp_path / "nothing")]) == 2
