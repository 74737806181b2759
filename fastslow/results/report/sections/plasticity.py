"""What the probes of a run say: their curves, and figures with bootstrap intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastslow.core.decode import shaped
from fastslow.core.errors import CheckpointError, EvaluationError
from fastslow.core.files import read_json
from fastslow.core.seeds import named_random
from fastslow.core.text import shorten
from fastslow.core.types import Json, Metric
from fastslow.measure.scores.curves import LearningCurve
from fastslow.measure.scores.plasticity import Probe, probe_estimates, probe_metrics
from fastslow.measure.stats.bootstrap import Estimate
from fastslow.results.render.layout import Table, Text, brackets
from fastslow.results.report.sections.curves import THRESHOLD

RESAMPLES = 400
"""Draws of a bootstrap interval. Source: ours, under a second a probe."""


@dataclass(frozen=True, slots=True)
class TaskProbe:
    """One probe: a task, and the row of the matrix whose weights were probed."""

    task: str
    row: int
    settings: Mapping[str, Json]
    """Of the fresh runs, as in the configuration."""
    probe: Probe
    metrics: Mapping[str, Metric]
    estimates: Mapping[str, Estimate]
    rollouts: int
    """Completions sampled for it, those from the base too."""
    seconds: float

    def to_json(self) -> dict[str, Json]:
        """Plain data, as docs/report-schema.md describes it."""
        return {
            "task": self.task,
            "row": self.row,
            "settings": self.settings,
            "seeds": len(self.probe.base),
            "at": list(self.probe.base[0].counts),
            "n": self.probe.base[0].num_examples,
            "tuned": [curve.means() for curve in self.probe.tuned],
            "base": [curve.means() for curve in self.probe.base],
            "figures": {name: self._figure(metric) for name, metric in self.metrics.items()},
            "rollouts": self.rollouts,
            "seconds": self.seconds,
        }

    def _figure(self, metric: Metric) -> dict[str, Json]:
        found = self.estimates.get(metric.name)
        interval = found.interval if found else None
        return {
            "value": metric.value,
            "reason": metric.reason,
            "formula": metric.formula,
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
        }


def read_probes(run_path: Path, noise_floor: float) -> tuple[TaskProbe, ...]:
    """Every probe whose curves from the base and from a stage are both there, by task and row.

    Args:
        run_path: A run folder; only read.
        noise_floor: As in `probe_metrics`.

    Raises:
        CheckpointError: A curve is damaged.
        EvaluationError: Both sides of a probe cannot be compared.
    """
    kept: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for path in sorted((run_path / "probe").glob("*/row-*.json")):
        curve = _read(path)
        kept.setdefault((curve["task"], curve["row"]), []).append(curve)
    made = []
    for (task, row), tuned in sorted(kept.items()):
        settings = [(curve["settings"], curve["seed"]) for curve in tuned]
        base = [c for c in kept.get((task, 0), ()) if (c["settings"], c["seed"]) in settings]
        if row > 0 and len(base) == len(tuned):
            made.append(_probe(task, row, tuned, base, noise_floor))
    return tuple(made)


def probe_cost(run_path: Path) -> tuple[int, float] | None:
    """Completions and seconds of every curve kept, each once; None where there is none.

    Probes of several stages share the curve of the base.

    Raises:
        CheckpointError: A curve is damaged.
    """
    curves = [_read(path) for path in sorted((run_path / "probe").glob("*/row-*.json"))]
    if not curves:
        return None
    seconds = float(sum(curve["seconds"] for curve in curves))
    return sum(curve["rollouts"] for curve in curves), seconds


def _probe(
    task: str,
    row: int,
    tuned: Sequence[Mapping[str, Any]],
    base: Sequence[Mapping[str, Any]],
    floor: float,
) -> TaskProbe:
    probe = Probe(
        tuple(map(_curve, tuned)), tuple(map(_curve, base)), tuned[0]["settings"]["adapter"]
    )
    generator = named_random(0, "report", "probe", task, row)
    return TaskProbe(
        task,
        row,
        tuned[0]["settings"],
        probe,
        probe_metrics(probe, noise_floor=floor, threshold=THRESHOLD),
        probe_estimates(probe, generator, noise_floor=floor, resamples=RESAMPLES),
        sum(curve["rollouts"] for curve in (*tuned, *base)),
        sum(curve["seconds"] for curve in (*tuned, *base)),
    )


@dataclass(frozen=True)
class _Settings:
    adapter: Literal["continue", "merge"]
    kind: str


@dataclass(frozen=True)
class _Kept:
    """What a file of a curve holds beside what only a probe reads back."""

    task: str
    row: int
    seed: int
    at: tuple[int, ...]
    scores: tuple[tuple[float, ...], ...]
    rollouts: int
    seconds: float


_KEPT, _SETTINGS = (tuple(kind.__dataclass_fields__) for kind in (_Kept, _Settings))


def _curve(kept: Mapping[str, Any]) -> LearningCurve:
    return LearningCurve("steps", tuple(kept["at"]), tuple(map(tuple, kept["scores"])))


def _read(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = read_json(path)
        kept = shaped(_Kept, {name: data[name] for name in _KEPT})
        shaped(_Settings, {name: data["settings"][name] for name in _SETTINGS})
        if not all(0 <= score <= 1 for row in kept.scores for score in row):
            raise ValueError("a score outside of [0, 1]")
        LearningCurve("steps", kept.at, kept.scores)
    except (OSError, ValueError, KeyError, TypeError, EvaluationError) as error:
        raise CheckpointError(
            f"{path}: no curve of a probe, got {shorten(repr(error), 200)}. Remove the file and "
            "probe again."
        ) from error
    return data


def probe_tables(probes: Sequence[TaskProbe]) -> list[Table]:
    """One table per probe; its note has both curves."""
    return [_table(probe) for probe in probes]


def _table(found: TaskProbe) -> Table:
    def drawn(curves: Sequence[LearningCurve]) -> str:
        return "; ".join(", ".join(f"{mean:.2f}" for mean in curve.means()) for curve in curves)

    rows = []
    for name, metric in found.metrics.items():
        estimate = found.estimates.get(name)
        interval = brackets(estimate.interval) if estimate else ""
        value = Text(metric.reason or "undefined", "dim")
        if metric.value is not None:
            value = Text(f"{metric.value:.3f}{interval}")
        rows.append((Text(name, is_code=True), value, Text(metric.formula, is_code=True)))
    curves = found.probe
    drawn_again = "examples" if len(curves.base) == 1 else "seeds and examples"
    return Table(
        f"Plasticity probe on {found.task}, weights of row {found.row}",
        ("figure", "value", "formula"),
        tuple(rows),
        f"Fresh runs ({found.settings['kind']}, {len(curves.base)} seed(s)) on a task of no stage; "
        f"validation score of {curves.base[0].num_examples} examples after "
        f"{', '.join(map(str, curves.base[0].counts))} updates from these weights: "
        f"{drawn(curves.tuned)}; from the base: {drawn(curves.base)}. A high start without a gain "
        f"is retention or transfer, not plasticity. 95 % bootstrap intervals over {drawn_again}.",
    )
