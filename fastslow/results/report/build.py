"""Computes a report from the files of one run folder; no model is needed."""

from pathlib import Path

from fastslow.results.report.data import Report
from fastslow.results.report.section import Records, Section
from fastslow.results.report.sections.channel_split import ChannelSplit
from fastslow.results.report.sections.completions import Completions
from fastslow.results.report.sections.cost import Cost
from fastslow.results.report.sections.curves import Curves
from fastslow.results.report.sections.cycles import Cycles
from fastslow.results.report.sections.drift import Drift
from fastslow.results.report.sections.environment import Environment
from fastslow.results.report.sections.forgetting import Forgetting
from fastslow.results.report.sections.geometry import Geometry
from fastslow.results.report.sections.measured import Measured
from fastslow.results.report.sections.metrics import Metrics
from fastslow.results.report.sections.notes import Notes
from fastslow.results.report.sections.plasticity import Plasticity
from fastslow.results.report.sections.prompts import Prompts
from fastslow.results.report.sections.proxies import Proxies
from fastslow.results.report.sections.reflection import Reflection
from fastslow.results.report.sections.remedies import Remedies
from fastslow.results.report.sections.rollback import Rollback
from fastslow.results.report.sections.scores import Scores, ScoresOverStages
from fastslow.results.report.sections.shrink import Shrink
from fastslow.results.report.sections.stages import Stages
from fastslow.results.report.sections.tasks import Tasks

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
