"""`ablate` and `open_ablation`: an experiment in several arms over several seeds."""

import contextlib
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from fastslow.api.words import override_words
from fastslow.core.errors import AblationError, CheckpointError, ConfigError
from fastslow.core.progress import Progress
from fastslow.core.text import visible
from fastslow.results.ablation import Plan, is_ablation, read_plan
from fastslow.results.ablation.result import Result

if TYPE_CHECKING:
    from pandas import DataFrame

    from fastslow.results.ablation.launchers.base import Launcher

RECORDS_FILE = "records.jsonl"


def ablate(
    config: str | PathLike[str],
    overrides: Mapping[str, object] | None = None,
    /,
    *,
    workers: int = 1,
    **keys: object,
) -> "AblationResult":
    """Make every run of an ablation file that is missing, `workers` at a time, and compare them.

    Overrides are as in `train`. Runs are processes of their own on this machine; finished ones are
    skipped and broken ones resumed, so the same call continues where it stopped.

    Raises:
        ConfigError: The file is none of an ablation, or a run in it is wrong.
        ModelError: The model of a run is not here.
        AblationError: Some runs did not come to their end; the others are compared all the same.
    """
    from fastslow.results.ablation.launchers.base import Share
    from fastslow.results.ablation.launchers.local import LocalLauncher

    plan = checked_plan(Path(config), override_words(overrides, keys))
    require_ready(plan)
    require_models(plan)
    result = make_runs(plan, LocalLauncher(Share(), workers), workers)
    result.require_complete()
    return result


def open_ablation(folder: str | PathLike[str]) -> "AblationResult":
    """The result of an ablation from its folder, or a kept copy of it: records.jsonl is enough.

    Examples:
        >>> result = fastslow.open_ablation("runs/reference/ablations/channels-demo")
        >>> result.arms.query("metric == 'bwt_gem'").columns.tolist()
        ['arm', 'runs', 'metric', 'mean', 'sd', 'low', 'high']

    Raises:
        CheckpointError: There is no records.jsonl, or it is damaged.
    """
    from fastslow.results.ablation.records_file import read_records_file

    path = Path(folder) / RECORDS_FILE
    if path.is_symlink() or not path.is_file():
        raise CheckpointError(
            f"{visible(str(folder))}: not the folder of an ablation (no {RECORDS_FILE}). Give the "
            "folder that `fastslow ablate` named, or a kept copy of it."
        )
    return AblationResult(read_records_file(path), Path(folder))


@dataclass(frozen=True)
class AblationResult:
    """An ablation, as far as it is finished."""

    result: Result
    """All of it, as plain data."""
    folder: Path
    """Where its files are."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """Why a run did not come to its end, by its name."""

    @property
    def arms(self) -> "DataFrame":
        """Every arm and metric, a line each: `arm`, `runs`, `metric`, `mean`, `sd`, `low`, `high`.

        Mean and standard deviation are over seeds, ends are of the 95 % interval. Scores are in
        [0, 1], `kl_fst` is in nats per token, rollouts are counts.
        """
        from fastslow.results.ablation.write import arms_csv

        return _frame(arms_csv(self.result))

    @property
    def differences(self) -> "DataFrame":
        """Every paired difference of arms, a line each: `arm`, `minus`, `metric`, and as in `arms`.

        `detectable` is the smallest difference found with 80 % power, `p` of the sign-flip test
        over seeds, `holm` the same adjusted for all differences.
        """
        from fastslow.results.ablation.write import differences_csv

        return _frame(differences_csv(self.result))

    def show(self) -> None:
        """Print the comparison, as `fastslow ablate` does."""
        from rich.console import Console

        from fastslow.results.ablation.tables import tables
        from fastslow.results.report.terminal import render_tables

        Console(highlight=False, force_jupyter=False).print(render_tables((), tables(self.result)))

    def require_complete(self) -> None:
        """`AblationError` if runs failed; names them."""
        if self.failures:
            reasons = "; ".join(f"{name} ({reason})" for name, reason in self.failures.items())
            total = len(self.result.records) + len(self.result.missing)
            raise AblationError(
                f"ablate: {len(self.failures)} of {total} runs did not end well, got {reasons}. "
                "Their logs are in the ablation folder under logs/; the same command tries them "
                "again. Remove the folder of a run that nothing can resume."
            )


def checked_plan(file: Path, words: Sequence[str]) -> Plan:
    """The plan of an ablation file under overrides.

    Raises:
        ConfigError: The file is none of an ablation, or a run in it is wrong.
    """
    if not is_ablation(file):
        name = visible(str(file))
        raise ConfigError(
            f"{name}: not an ablation file (no arms). To run one experiment: fastslow train {name}"
        )
    return read_plan(file, words)


def require_ready(plan: Plan) -> None:
    """Make sure that no run still to be made stops at what it was given, or is beyond comparison.

    Raises:
        CheckpointError: It would be on other data than those that are finished.
        ConfigError: One would stop; names all of it.
    """
    from fastslow.api.checks import inspected
    from fastslow.results.ablation.records import require_same_data

    finished = plan.finished()
    require_same_data(plan, finished)
    inspected(plan.config.name, [run.config for run in plan.runs if run.name not in finished])


def require_models(plan: Plan) -> None:
    """Make sure that runs still to be made here find their models, before the first begins.

    Raises:
        ModelError: A model is not fetched, or is none; hubs are not asked.
    """
    from fastslow.policy.model_store import resolve

    plans = [plan, *([plan.search.plan] if plan.search else [])]
    statuses = [status for part in plans for status in part.statuses()]
    models = [run.config.model for run, status in statuses if status.state != "finished"]
    for name, revision in dict.fromkeys((model.name, model.revision) for model in models):
        resolve(name, revision)


def make_runs(plan: Plan, launcher: "Launcher", workers: int | None) -> AblationResult:
    """Make the missing runs of a plan, then write and give the comparison.

    Raises:
        Stopped: A signal asked for it; the runs have stopped, and can be resumed. The comparison of
            those that are finished is written.
        CheckpointError, AblationError: As `execute`.
    """
    from rich.console import Console

    from fastslow.loop.signals import Stopped, StopRequest
    from fastslow.results.ablation.execute import execute
    from fastslow.results.ablation.write import write_ablation

    def progress(total: float) -> Progress:
        return Progress(total, Console(file=sys.stderr, highlight=False, force_jupyter=False))

    with StopRequest().catching(), contextlib.closing(launcher):
        try:
            if (search := plan.search) is not None:
                failures = execute(search.plan, launcher, workers, progress)
                plan = read_plan(search.file, search.overrides)
            if search is None or not failures:
                failures = execute(plan, launcher, workers, progress)
        except Stopped:
            if plan.finished():
                write_ablation(plan)
            raise
    return AblationResult(write_ablation(plan), plan.folder, failures)


def _frame(text: str) -> "DataFrame":
    import pandas

    return pandas.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""])
