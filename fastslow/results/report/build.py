"""Computes a report from the files of one run folder; no model is needed."""

from pathlib import Path

from fastslow.results.report.section import Report, Section
from fastslow.results.report.sections import (
    adherence,
    answers,
    change,
    channel_split,
    completions,
    compute,
    cost,
    curves,
    data,
    drift,
    metrics,
    origin,
    plasticity,
    prompts,
    remedies,
    retention,
    rollback,
    route,
    router,
    scores,
    tasks,
    weights,
)

SECTIONS: tuple[type[Section], ...] = (
    scores.Scores,
    scores.ScoresOverStages,
    retention.Retention,
    rollback.Rollback,
    tasks.Tasks,
    tasks.Drops,
    data.Data,
    answers.Answers,
    metrics.Metrics,
    tasks.Forgetting,
    channel_split.ChannelSplit,
    route.Route,
    router.Router,
    adherence.Adherence,
    curves.Curves,
    curves.Cycles,
    drift.Drift,
    retention.ForgettingOnDrift,
    plasticity.Plasticity,
    weights.Geometry,
    change.Concentration,
    change.KeepCurve,
    change.Bridge,
    weights.Proxies,
    weights.Measured,
    remedies.Shrink,
    remedies.Remedies,
    origin.Notes,
    cost.Stages,
    cost.Cost,
    compute.Compute,
    cost.Reflection,
    prompts.Prompts,
    completions.Completions,
    origin.Tracking,
    origin.Environment,
)
"""Every subject of a report, in the order of report.md."""


def build_report(run_path: Path) -> Report:
    """Compute the report of a run, finished or not, from its folder.

    Raises:
        CheckpointError: It is not a run folder, or a record in it is damaged.
        EvaluationError: Recorded scores cannot form a matrix.
    """
    return Report(run_path, SECTIONS)
