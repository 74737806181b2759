"""`fastslow compare` and `fastslow ablate` answer one question with one estimator."""

import re
from collections import Counter
from pathlib import Path

import pytest

from fastslow.measure.scores.per_example import PER_EXAMPLE
from fastslow.results.ablation import tables as ablation_tables
from fastslow.results.ablation.records_file import read_records_file
from fastslow.results.ablation.result import make_result
from fastslow.results.compare.build import compare_runs
from fastslow.results.compare.tables import comparison_tables
from tests.support.rebuilt_runs import rebuild_run

KEPT = Path(__file__).parents[3] / "runs" / "reference" / "ablations"
FIRST = "fst"


@pytest.mark.parametrize(
    ("ablation", "arms"),
    [("channels-demo", ("slow-only", "fst-bare")), ("channels-text", ("slow-only", "fast-only"))],
)
def test_compare_and_ablate_print_the_same_interval_of_the_same_runs(
    ablation: str, arms: tuple[str, ...], tmp_path: Path
) -> None:
    result = read_records_file(KEPT / ablation / "records.jsonl")
    runs = {
        arm: [rebuild_run(run, tmp_path / arm, lr) for run in result.records if run.arm == arm]
        for lr, arm in enumerate((FIRST, *arms), start=1)
    }
    [of_ablate] = [t for t in ablation_tables.tables(result) if t.title.startswith("Paired")]
    printed_by_ablate = {
        (row[0].text, row[1].text): interval(row[2].text) for row in of_ablate.rows
    }
    for arm in arms:
        comparison = compare_runs([*runs[arm], *runs[FIRST]])
        [of_compare] = [t for t in comparison_tables(comparison) if t.title == "Metrics"]
        printed = {row[0].text: interval(row[4].text) for row in of_compare.rows}
        contrasts = {contrast.name: contrast for contrast in comparison.comparisons[0].metrics}
        for metric in PER_EXAMPLE:
            estimate = next(
                d.estimate for d in result.differences if (d.minus, d.metric) == (arm, metric)
            )
            assert not isinstance(estimate, str)
            contrast = contrasts[metric]
            assert contrast.difference == pytest.approx(estimate.mean)
            assert (contrast.low, contrast.high) == pytest.approx((estimate.low, estimate.high))
            assert contrast.covers == estimate.covers == "seeds and examples"
            assert printed[metric] == printed_by_ablate[arm, metric]
            assert re.fullmatch(r"\[[+-]\d\.\d\d, [+-]\d\.\d\d\]", printed[metric])


def test_of_one_seed_too_they_print_the_same_interval(tmp_path: Path) -> None:
    whole = read_records_file(KEPT / "channels-demo" / "records.jsonl")
    records = [run for run in whole.records if run.seed == 1 and run.arm in (FIRST, "fst-bare")]
    result = make_result(whole.config, records, Counter())
    base, first = (
        rebuild_run(next(run for run in records if run.arm == arm), tmp_path, lr)
        for lr, arm in enumerate(("fst-bare", FIRST), start=1)
    )
    comparison = compare_runs([base, first]).comparisons[0]
    contrasts = {contrast.name: contrast for contrast in comparison.metrics}
    for metric in PER_EXAMPLE:
        estimate = next(
            d.estimate for d in result.differences if (d.minus, d.metric) == ("fst-bare", metric)
        )
        assert not isinstance(estimate, str)
        contrast = contrasts[metric]
        assert (contrast.low, contrast.high) == pytest.approx((estimate.low, estimate.high))
        assert contrast.covers == estimate.covers == "examples"


def interval(text: str) -> str:
    """The interval of a printed difference; empty where it has none."""
    brackets = re.search(r"\[.*\]", text)
    return brackets[0] if brackets else ""
