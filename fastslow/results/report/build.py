"""Computes a report from the files of one run folder; no model is needed."""

from pathlib import Path

from fastslow.results.report.data import Report
from fastslow.results.report.section import Records, Section
from fastslow.results.report.sections.channel_split import ChannelSplit
from fastslow.results.report.sections.completions import Completions
from fastslow.results.report.sections.cost import Cost, Reflection, Stages
from fastslow.results.report.sections.curves import Curves, Cycles
from fastslow.results.report.sections.drift import Drift
from fastslow.results.report.sections.metrics import Metrics
from fastslow.results.report.sections.origin import Environment, Notes
from fastslow.results.report.sections.plasticity import Plasticity
from fastslow.results.report.sections.prompts import Prompts
from fastslow.results.report.sections.remedies import Remedies, Shrink
from fastslow.results.report.sections.rollback import Rollback
from fastslow.results.report.sections.scores import Scores, ScoresOverStages
from fastslow.results.report.sections.tasks import Forgetting, Tasks
from fastslow.results.report.sections.weights import Geometry, Measured, Proxies

SECTIONS: tuple[type[Section], ...] = (
    Scores,
    ScoresOverStages,
    Rollback,
    Tasks,
    Metrics,
    Forgetting,
    ChannelSplit,
    Curves,
    Cycles,
    Drift,
    Plasticity,
    Geometry,
    Proxies,
    Measured,
    Shrink,
    Remedies,
    Notes,
    Stages,
    Cost,
    Reflection,
    Prompts,
    Completions,
    Environment,
)
"""Every subject of a report, in the order of report.md."""


def build_report(run_path: Path) -> Report:
    """Compute the report of a run, finished or not, from its folder.

    Args:
        run_path: A run folder; only read.

    Raises:
        CheckpointError: It is not a run folder, or a record in it is damaged.
        EvaluationError: Recorded scores cannot form a matrix.
    """
    records = Records(run_path)
    card = records.card
    return Report(
        run=card.run,
        state=card.state,
        command=card.command,
        config_hash=card.config_hash,
        tasks=card.tasks,
        stage_tasks=card.stages,
        cells=records.cells,
        sections=tuple(records.section(kind) for kind in SECTIONS),
    )
