"""The runs of an ablation, and their progress so far."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fastslow.config.ablation import AblationConfig
from fastslow.config.cost import estimate_cost
from fastslow.config.loading.layers import read_layers
from fastslow.config.loading.load import config_hash, moved
from fastslow.config.loading.validate import require
from fastslow.config.models import RunConfig
from fastslow.core.errors import FastSlowError
from fastslow.core.files import read_json
from fastslow.records.lock import read_state
from fastslow.results.render.layout import Table, Text

if TYPE_CHECKING:
    from fastslow.results.ablation.search import Search

RunState: TypeAlias = Literal["finished", "broken", "running", "missing"]
"""Of a planned run: its folder says finished; it has a folder and nobody writes to it; another
process does; there is none of this configuration."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of the ablation."""

    arm: str
    seed: int
    order: str | None
    """Name of the order of its stages; None for the order it is written in."""
    config: RunConfig
    """Complete."""

    @property
    def name(self) -> str:
        """Arm, seed and order; the name of the run."""
        return self.config.name

    @cached_property
    def hash(self) -> str:
        """Of everything that determines its results."""
        return config_hash(self.config)


@dataclass(frozen=True)
class RunStatus:
    """Progress of a planned run."""

    state: RunState
    path: Path | None
    """Its folder; None when it is missing."""
    others: tuple[str, ...]
    """Hashes of other configurations that ran under its name."""


@dataclass(frozen=True)
class Plan:
    """Every run of an ablation."""

    config: AblationConfig
    runs: tuple[PlannedRun, ...]
    """Seed by seed, so that a part of them compares arms as soon as it can."""
    search: "Search | None" = None
    """What comes before the runs; None where the file has no search."""
    _names: dict[str, str] = field(default_factory=dict, init=False, compare=False)
    """Name of the run in each folder whose card was read; it never changes."""

    @property
    def folder(self) -> Path:
        """The ablation's folder; its runs lie in it."""
        return Path(self.runs[0].config.runs_dir)

    def statuses(
        self, runs: Iterable[PlannedRun] | None = None
    ) -> Iterator[tuple[PlannedRun, RunStatus]]:
        """Progress of these runs, by default of all, after one look into the ablation's folder.

        A finished folder of a run comes before a broken one.
        """
        folders = self._folders_by_name()
        for run in self.runs if runs is None else runs:
            yield run, _status(run, folders.get(run.name, ()))

    def finished(self) -> dict[str, Path]:
        """Folders of the finished runs, by name."""
        statuses = {run.name: status for run, status in self.statuses()}
        return {name: s.path for name, s in statuses.items() if s.state == "finished" and s.path}

    def _folders_by_name(self) -> dict[str, list[Path]]:
        """Run folders by the name of their run, newest first; of each the card is read once."""
        try:
            paths = sorted(self.folder.iterdir(), reverse=True)
        except FileNotFoundError:
            paths = []
        by_name = defaultdict[str, list[Path]](list)
        for path in paths:
            name = self._names.get(path.name) or _card(path).get("name")
            if isinstance(name, str):
                self._names[path.name] = name
                by_name[name].append(path)
        return by_name


def _card(path: Path) -> dict[str, Any]:
    """The content of a folder's run.json; nothing where that is no run that could be used."""
    try:
        card = read_json(path / "run.json")
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def _status(run: PlannedRun, paths: Sequence[Path]) -> RunStatus:
    """Progress of a run from the folders that have its name."""
    folders: dict[RunState, Path] = {}
    others = []
    for path in paths:
        card = _card(path)
        # that of an older version has another hash if keys were added since
        if card and (run.hash == card.get("config_hash") or run.hash == _hash_now(path)):
            folders.setdefault(_state(path), path)
        elif card:
            others.append(str(card.get("config_hash")))
    states: tuple[RunState, ...] = ("running", "finished", "broken")
    for state in states:
        if state in folders:
            return RunStatus(state, folders[state], tuple(others))
    return RunStatus("missing", None, tuple(others))


@lru_cache(maxsize=1024)
def _hash_now(path: Path) -> str | None:
    """Hash that a run's configuration has under this version; None where it cannot be read.

    Nothing that it names is imported: the folder may be somebody else's.
    """
    try:
        return config_hash(require(RunConfig, moved(read_layers((path / "config.json",), ()).root)))
    except FastSlowError:
        return None


def _state(path: Path) -> RunState:
    try:
        state = read_state(path)
    except (OSError, ValueError):
        return "broken"
    states: tuple[RunState, ...] = ("running", "finished")
    return next((name for name in states if name == state), "broken")


def plan_table(plan: Plan) -> Table:
    """One row per arm: how many of its runs are done, and the budget of one of them."""
    costs = {run.arm: estimate_cost(run.config) for run in {r.arm: r for r in plan.runs}.values()}
    most = max(cost.slow_rollouts + cost.fast_rollouts for cost in costs.values())
    by_arm = defaultdict[str, dict[str, RunStatus]](dict)
    for run, status in plan.statuses():
        by_arm[run.arm][run.name] = status
    rows, changed, minutes = [], [], 0.0
    for arm, cost in costs.items():
        statuses = by_arm[arm]
        states = Counter(status.state for status in statuses.values())
        minutes += (len(statuses) - states["finished"]) * (cost.minutes or 0.0)
        changed += [
            f"{name} (was {', '.join(status.others)})"
            for name, status in statuses.items()
            if status.others and status.state == "missing"
        ]
        total = cost.slow_rollouts + cost.fast_rollouts
        begun = states["broken"] + states["running"]
        counts = (len(statuses), states["finished"], begun, states["missing"])
        share = f"{total / most:.2f}" if most else "-"
        budget = (cost.fast_rollouts, cost.slow_rollouts, total, share, cost.optimizer_steps)
        time = "unknown" if cost.minutes is None else f"{cost.minutes:.0f}"
        cells = (arm, *counts, *budget, time)
        rows.append(tuple(Text(f"{c:,}" if isinstance(c, int) else c) for c in cells))
    header = ["arm", "runs", "finished", "begun", "missing"]
    note = (
        "Budget of one run: rollouts that train or evolve, as `fastslow check` counts them; arms "
        "with equal totals spend the same. Share: of the largest. Those that stop early spend less."
    )
    for run, status in plan.search.plan.statuses() if plan.search else ():
        if status.state != "finished":
            minutes += estimate_cost(run.config).minutes or 0.0
    if all(cost.minutes is not None for cost in costs.values()):
        note += f" To do: about {minutes:.0f} minutes, one run at a time."
    if changed:
        note += f" Run before with another configuration, so run again: {'; '.join(changed)}."
    return Table(
        f"Plan of {plan.config.name}",
        (*header, "fast rollouts", "slow rollouts", "total", "share", "updates", "minutes"),
        tuple(rows),
        note,
    )
