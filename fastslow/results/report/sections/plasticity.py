"""The probes of a run: whether fresh runs from its weights still learn, against the base."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
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
from fastslow.measure.stats.intervals import Interval
from fastslow.results.render import drawing
from fastslow.results.render.encoding import with_limits
from fastslow.results.render.layout import Table, figure_row, metric_text
from fastslow.results.report.section import Records, Section
from fastslow.results.report.sections.curves import THRESHOLD

RESAMPLES = 400
"""Draws of a bootstrap interval. Source: ours, under a second a probe."""
MAX_PROBES = 6
"""Probes drawn; the tables have all of them."""


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

    def interval(self, name: str) -> Interval | None:
        """The 95 % interval of a metric; None where it has none."""
        return self.estimates[name].interval if name in self.estimates else None


class Plasticity(Section):
    """Every probe, by task and row, and the cost of all their curves."""

    chapter = "plasticity"
    drawing_name = "plasticity"

    def __init__(self, records: Records) -> None:
        curves = read_curves(records.path)
        self.has_curves = bool(curves)
        # each once: probes of several stages share the curve of the base
        self.rollouts = sum(curve["rollouts"] for curve in curves)
        self.seconds = float(sum(curve["seconds"] for curve in curves))
        self.probes = probes_of(curves, records.noise_floor or 0.0)

    def to_json(self) -> Mapping[str, object]:
        return {"probes": [_probe_json(probe) for probe in self.probes]}

    def tables(self) -> Iterator[Table]:
        yield from map(_table, self.probes)

    def draw(self) -> drawing.Drawing | None:
        probes = self.probes[:MAX_PROBES]
        if not probes:
            return None
        columns = min(2, len(probes))
        lines = math.ceil(len(probes) / columns)

        def paint(figure: drawing.Figure) -> None:
            panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
            for number, (axes, probe) in enumerate(zip(panels.flat, probes, strict=False)):
                _paint_probe(axes, probe, is_first=number == 0)
            for axes in panels.flat[len(probes) :]:
                axes.set_visible(False)

        return drawing.draw(
            self.drawing_name,
            "Plasticity: fresh runs on a task of no stage",
            "Validation score after so many updates, from the weights of a stage and from the "
            "base, with the same settings, problems and seeds. Thin lines: single seeds. A high "
            "start without a gain is retention or transfer, not plasticity.",
            paint,
            height=0.5 + 2.3 * lines,
        )


def _paint_probe(axes: drawing.Axes, probe: TaskProbe, *, is_first: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    sides: tuple[tuple[str, Sequence[LearningCurve], str, str], ...] = (
        ("from the stage's weights", probe.probe.tuned, drawing.ACCENT, "o"),
        ("from the base", probe.probe.base, drawing.MUTED, "s"),
    )
    for name, curves, colour, marker in sides:
        means = [curve.means() for curve in curves]
        for values in means if len(means) > 1 else ():
            axes.plot(curves[0].counts, values, color=colour, lw=0.7, alpha=0.5)
        middle = [fmean(values) for values in zip(*means, strict=True)]
        legend_name = name if is_first else None
        axes.plot(curves[0].counts, middle, marker, ls="-", color=colour, label=legend_name)
    axes.set_title(
        f"{drawing.label(probe.task)}, after stage {probe.row}", pad=22 if is_first else 6
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("updates")
    drawing.score_axis(axes, "validation score")
    if is_first:
        drawing.legend(axes, 1 if len(probe.task) > 10 else 2)


def _probe_json(probe: TaskProbe) -> dict[str, object]:
    base, metrics = probe.probe.base, probe.metrics.items()
    return {
        "task": probe.task,
        "row": probe.row,
        "settings": probe.settings,
        "seeds": len(base),
        "at": base[0].counts,
        "n": base[0].num_examples,
        "tuned": [curve.means() for curve in probe.probe.tuned],
        "base": [curve.means() for curve in base],
        "figures": {name: with_limits(m, probe.interval(name)) for name, m in metrics},
        "rollouts": probe.rollouts,
        "seconds": probe.seconds,
    }


def _table(probe: TaskProbe) -> Table:
    rows = [
        figure_row(name, metric.formula, metric_text(metric, 3, probe.interval(name)))
        for name, metric in probe.metrics.items()
    ]
    base, tuned = probe.probe.base, probe.probe.tuned
    resampled = "examples" if len(base) == 1 else "seeds and examples"
    return Table(
        f"Plasticity probe on {probe.task}, weights of row {probe.row}",
        ("figure", "value", "formula"),
        tuple(rows),
        f"Fresh runs ({probe.settings['kind']}, {len(base)} seed(s)) on a task of no stage; "
        f"validation score of {base[0].num_examples} examples after "
        f"{', '.join(map(str, base[0].counts))} updates from these weights: {_means(tuned)}; "
        f"from the base: {_means(base)}. A high start without a gain is retention or transfer, "
        f"not plasticity. 95 % bootstrap intervals over {resampled}.",
    )


def _means(curves: Sequence[LearningCurve]) -> str:
    return "; ".join(", ".join(f"{mean:.2f}" for mean in curve.means()) for curve in curves)


def probes_of(curves: Sequence[Mapping[str, Any]], noise_floor: float) -> list[TaskProbe]:
    """Every probe whose curves from the base and from a stage are both there, by task and row.

    Raises:
        EvaluationError: Both sides of a probe cannot be compared.
    """
    by_place: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for curve in curves:
        by_place.setdefault((curve["task"], curve["row"]), []).append(curve)
    probes = []
    for (task, row), tuned in sorted(by_place.items()):
        settings = [(curve["settings"], curve["seed"]) for curve in tuned]
        base = [c for c in by_place.get((task, 0), ()) if (c["settings"], c["seed"]) in settings]
        if row > 0 and len(base) == len(tuned):
            ours, theirs = (tuple(c["curve"] for c in side) for side in (tuned, base))
            probe = Probe(ours, theirs, tuned[0]["settings"]["adapter"])
            generator = named_random(0, "report", "probe", task, row)
            estimates = probe_estimates(
                probe, generator, noise_floor=noise_floor, resamples=RESAMPLES
            )
            probes.append(
                TaskProbe(
                    task,
                    row,
                    tuned[0]["settings"],
                    probe,
                    probe_metrics(probe, noise_floor=noise_floor, threshold=THRESHOLD),
                    estimates,
                    sum(curve["rollouts"] for curve in (*tuned, *base)),
                    sum(curve["seconds"] for curve in (*tuned, *base)),
                )
            )
    return probes


@dataclass(frozen=True)
class _Settings:
    adapter: Literal["continue", "merge"]
    kind: str


@dataclass(frozen=True)
class _CurveFile:
    """The part of a curve's file that is read here; the probe itself reads back the rest."""

    task: str
    row: int
    seed: int
    at: tuple[int, ...]
    scores: tuple[tuple[float, ...], ...]
    rollouts: int
    seconds: float


_FIELDS, _SETTINGS = (tuple(kind.__dataclass_fields__) for kind in (_CurveFile, _Settings))


def read_curves(run_path: Path) -> list[dict[str, Any]]:
    """The curves of all probes of a run, as in their files, each with a `LearningCurve` as `curve`.

    Raises:
        CheckpointError: One is damaged.
    """
    return [_read_curve(path) for path in sorted((run_path / "probe").glob("*/row-*.json"))]


def _read_curve(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = read_json(path)
        content = shaped(_CurveFile, {name: data[name] for name in _FIELDS})
        shaped(_Settings, {name: data["settings"][name] for name in _SETTINGS})
        if not all(0 <= score <= 1 for row in content.scores for score in row):
            raise ValueError("a score outside of [0, 1]")
        return {**data, "curve": LearningCurve("steps", content.at, content.scores)}
    except (OSError, ValueError, KeyError, TypeError, EvaluationError) as error:
        raise CheckpointError(
            f"{path}: not a curve of a probe, got {shorten(repr(error), 200)}. Remove the file and "
            "probe again."
        ) from error
