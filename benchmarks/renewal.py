"""Whether renewing an adapter keeps it able to learn through ten stages.

    fastslow ablate configs/ablations/renewal.yaml
    python -m benchmarks.renewal         # reads its runs, keeps runs/reference/renewal.json

The table in docs/results.md is made from the kept file by `python -m benchmarks.results`.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from benchmarks.keeping import REFERENCE, ROOT, keep_figures
from fastslow.measure.stats.over_seeds import SeedEstimate, over_seeds_alone
from fastslow.results.report import build_report
from fastslow.results.report.sections.plasticity import Plasticity

FILE = REFERENCE / "renewal.json"
CONFIG = "configs/ablations/renewal.yaml"
WITHOUT = "without"
FIGURES = ("probe_gain", "probe_gain_base", "probe_gain_ratio")


Runs: TypeAlias = Mapping[str, Mapping[str, float | None]]
"""Seed to the figures of its run."""


def read_run(run: Path) -> dict[str, float | None]:
    """The figures of one finished run."""
    [probe] = build_report(run).section(Plasticity).probes
    return {name: probe.metrics[name].value for name in FIGURES}


def renewal_lines() -> list[str]:
    """The part of docs/results.md, as far as there are figures."""
    if not FILE.is_file():
        return []
    data = json.loads(FILE.read_text())
    arms: dict[str, Runs] = data["arms"]
    lines = [
        "## Ten short stages: does renewal keep an adapter able to learn?",
        "",
        f"Made by `{data['command']}`, then `python -m benchmarks.renewal`. Three tasks in turn,",
        "gold answers; then a fourth is learned from the final weights and from the base. Gain is",
        "the rise of its validation score, the ratio that of both gains. Means over seeds with",
        "95 % intervals over seeds alone, single seeds in brackets.",
        "",
        "| arm | gain, final weights | gain, base | ratio | ratio minus that of `without` |",
        "| --- | --- | --- | --- | --- |",
    ]
    for arm, runs in arms.items():
        columns = [
            _cell({int(seed): run[name] for seed, run in runs.items()}) for name in FIGURES[:3]
        ]
        columns.append("-" if arm == WITHOUT else _cell(_differences(runs, arms[WITHOUT])))
        lines.append(f"| {arm} | {' | '.join(columns)} |")
    return [*lines, ""]


def _differences(runs: Runs, without: Runs) -> dict[int, float | None]:
    """Of the ratio, seed by seed; None where one of both is undefined."""
    differences: dict[int, float | None] = {}
    for seed, run in runs.items():
        ratio, other = run["probe_gain_ratio"], without[seed]["probe_gain_ratio"]
        differences[int(seed)] = None if ratio is None or other is None else ratio - other
    return differences


def _cell(per_seed: Mapping[int, float | None]) -> str:
    """Mean, interval and single values; seeds without a value are left out and said."""
    values = {seed: value for seed, value in per_seed.items() if value is not None}
    if not values:
        return "undefined"
    estimate: SeedEstimate = over_seeds_alone(values)
    low, high = estimate.low, estimate.high
    interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    listed = ("undefined" if value is None else f"{value:.2f}" for value in per_seed.values())
    return f"{estimate.mean:.2f}{interval} ({', '.join(listed)})"


def main() -> None:
    """Keep the figures of the ablation's runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    runs = ROOT / "runs" / "renewal"
    parser.add_argument("folder", nargs="?", type=Path, default=runs, help="of the ablation's runs")
    folder = parser.parse_args().folder
    keep_figures(folder, FILE, f"fastslow ablate {CONFIG}", read_run)


if __name__ == "__main__":
    main()
