"""`compare`: runs against a first one, example by example."""

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastslow.results.compare.data import QUANTITIES, RunComparison

if TYPE_CHECKING:
    from pandas import DataFrame


def compare(
    *runs: str | PathLike[str], out: str | PathLike[str] | None = None
) -> "ComparisonResult":
    """Compare run folders with the first, which is the baseline; needs no model.

    Runs that differ in nothing but their seed count as one arm. `out` is a folder to write
    compare.html, .md and .json, scores.csv and figures/ to.

    Examples:
        >>> result = fastslow.compare("runs/reference/demo", "runs/reference/demo-shrink")
        >>> sorted(result.differences.query("quantity == 'final'").name)
        ['country_continent', 'word_language', 'word_valence']

    Raises:
        ConfigError: Fewer than two folders, or one given twice.
        CheckpointError: One is not a run folder or is damaged, or they are on different data.
    """
    from fastslow.results.compare.build import compare_runs
    from fastslow.results.compare.write import write_comparison

    comparison = compare_runs([Path(run) for run in runs])
    written = () if out is None else write_comparison(comparison, Path(out))
    return ComparisonResult(comparison, written)


@dataclass(frozen=True)
class ComparisonResult:
    """A comparison of runs."""

    comparison: RunComparison
    """All of it, as plain data."""
    written: tuple[Path, ...]
    """The files that were asked for."""

    @property
    def verdict(self) -> tuple[str, ...]:
        """A sentence for every arm but the baseline."""
        from fastslow.results.compare.tables import verdicts

        return verdicts(self.comparison)

    @property
    def differences(self) -> "DataFrame":
        """Every figure of every arm, a line each.

        `arm`; `quantity`: `final`, `learned` or `change` score by task, `metrics`, `drift` in nats
        per token, or `costs`; `name` of task, metric or cost; `baseline` and `value`, means over
        runs; `difference`, value - baseline, with its 95 % interval `low`, `high`; `n` examples
        behind it; `p_value`, `p_holm`, and the other fields of `Contrast`.
        """
        import pandas

        return pandas.DataFrame.from_records(list(self._rows()))

    def show(self) -> None:
        """Print the comparison, as `fastslow compare` does."""
        from rich.console import Console

        from fastslow.results.compare.tables import comparison_tables
        from fastslow.results.report.terminal import render_tables

        tables = comparison_tables(self.comparison)
        Console(highlight=False, force_jupyter=False).print(render_tables(self.verdict, tables))

    def _rows(self) -> Iterator[dict[str, Any]]:
        from fastslow.results.compare.data import comparison_json

        for arm in comparison_json(self.comparison, ())["comparisons"]:  # type: ignore[attr-defined]  # plain data
            for quantity in (*QUANTITIES, "metrics", "drift", "costs"):
                for name, figures in arm[quantity].items():
                    yield {"arm": arm["arm"], "quantity": quantity, "name": name, **figures}
