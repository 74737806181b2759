"""What a run's stages keep of benchmarks that nobody trained on: figures, table, retention.json."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from fastslow.measure.stats.intervals import mean_interval
from fastslow.results.render.layout import Table, row
from fastslow.results.render.writing import write_files

FOLDER = "retention"
"""Where the file goes, in the run folder."""
SCHEMA_VERSION = 1

Scores = Mapping[tuple[str, str], Mapping[str, float]]
"""By benchmark and metric, the value of each example by its number."""


@dataclass(frozen=True, slots=True)
class Change:
    """A stage minus the base, on one benchmark by one metric."""

    stage: int
    """From 1."""
    trained: str
    """The task of the stage."""
    benchmark: str
    metric: str
    base: float
    """Mean of the base over the examples."""
    value: float
    """Mean of the stage."""
    low: float | None
    """Of the 95 % interval of the difference, paired by example; None where nothing differs."""
    high: float | None
    examples: int
    changed: int
    """Examples whose value is another one than the base's."""

    @property
    def difference(self) -> float:
        """Of the means."""
        return self.value - self.base


@dataclass(frozen=True, slots=True)
class RetentionStudy:
    """Benchmarks of the base and of stages of one run."""

    run: str
    model: str
    harness: str
    """Version of lm-evaluation-harness."""
    stages: Mapping[int, str]
    """Number of each stage that was scored, from 1, to its task."""
    shifts: Mapping[int, float]
    """By stage, how far its log-probabilities lie from the base's at most, in nats: its adapter was
    at work."""
    scores: Mapping[int, Scores]
    """By stage; 0 is the base."""

    def changes(self) -> Iterator[Change]:
        """Every stage, benchmark and metric, by stage."""
        for stage, trained in self.stages.items():
            for (benchmark, metric), base in self.scores[0].items():
                values = self.scores[stage][benchmark, metric]
                differences = [values[example] - base[example] for example in base]
                interval = mean_interval(differences, range(len(differences)))
                yield Change(
                    stage=stage,
                    trained=trained,
                    benchmark=benchmark,
                    metric=metric,
                    base=fmean(base.values()),
                    value=fmean(values.values()),
                    low=interval.low if interval else None,
                    high=interval.high if interval else None,
                    examples=len(base),
                    changed=sum(difference != 0 for difference in differences),
                )


def retention_table(study: RetentionStudy) -> Table:
    """One row per stage, benchmark and metric."""
    rows = []
    for change in study.changes():
        limits = "" if change.low is None else f" [{change.low:+.3f}, {change.high:+.3f}]"
        rows.append(
            row(
                f"{change.stage} {change.trained}",
                f"{change.benchmark} {change.metric}",
                f"{change.base:.3f}",
                f"{change.value:.3f}",
                f"{change.difference:+.3f}{limits}",
                f"{change.changed} of {change.examples}",
            )
        )
    return Table(
        f"What {study.run} keeps of benchmarks",
        ("after stage", "benchmark", "base", "stage", "difference", "examples changed"),
        tuple(rows),
        f"lm-evaluation-harness {study.harness} on {study.model} and the adapter of each stage, "
        "without prompts of the fast channel. Differences are paired by example, with 95 % "
        "intervals over examples.",
    )


def write_retention(study: RetentionStudy, run: Path) -> Path:
    """Write retention/retention.json into a run folder; errors as of `write_files`."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "model": study.model,
        "harness": study.harness,
        "stages": [
            {"stage": stage, "task": task, "shift_nats": study.shifts[stage]}
            for stage, task in study.stages.items()
        ],
        "changes": [
            asdict(change) | {"difference": change.difference} for change in study.changes()
        ],
        "scores": [
            {"stage": stage, "benchmark": benchmark, "metric": metric, "values": dict(values)}
            for stage, scores in study.scores.items()
            for (benchmark, metric), values in scores.items()
        ],
    }
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    [file] = write_files(run, {f"{FOLDER}/retention.json": text.encode()})
    return file
