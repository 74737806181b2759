"""From an ablation file to its runs, every one of them checked, and their progress so far."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Literal, TypeAlias

from fastslow.config.ablation import GIVEN, AblationConfig
from fastslow.config.cost import estimate_cost
from fastslow.config.loading.layers import Layers, lay_overrides, merge, read_layers
from fastslow.config.loading.load import config_hash, load_layers, moved
from fastslow.config.loading.validate import require
from fastslow.config.loading.yaml_nodes import Mistake, Node
from fastslow.config.models import RunConfig
from fastslow.config.tracking import grouped
from fastslow.core.errors import ConfigError, FastSlowError, nearest
from fastslow.core.files import read_json
from fastslow.records.lock import read_state
from fastslow.results.ablation.references import idle_references
from fastslow.results.render.layout import Table, Text

RunState: TypeAlias = Literal["finished", "broken", "running", "missing"]
"""Of a planned run: its folder says finished; it has a folder and nobody writes to it; another
process does; there is none of this configuration."""

OWN_KEYS = frozenset(AblationConfig.model_fields)
"""Overrides that begin with one of these are the ablation's, all others the runs'."""


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
    _names: dict[str, str] = field(default_factory=dict, init=False, compare=False)
    """Name of the run in each folder whose card was read; it never changes."""

    @property
    def folder(self) -> Path:
        """The ablation's folder; its runs lie in it."""
        return Path(self.runs[0].config.runs_dir)

    def status_of(self, run: PlannedRun) -> RunStatus:
        """Progress of `run` in the ablation's folder: a finished folder before a broken one."""
        [(_, status)] = self.statuses([run])
        return status

    def statuses(
        self, runs: Iterable[PlannedRun] | None = None
    ) -> Iterator[tuple[PlannedRun, RunStatus]]:
        """Progress of these runs, by default of all, after one look into the ablation's folder."""
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


def is_ablation(file: Path) -> bool:
    """Whether a configuration file is an ablation's: it has arms. `ConfigError` if unreadable."""
    return read_layers((file,), ()).root.find(("arms",)) is not None


def read_plan(file: Path, overrides: Sequence[str] = ()) -> Plan:
    """Read an ablation file and check the configuration of every run in it.

    Overrides of an ablation's keys change it, others every run. A key that an arm sets itself wins.

    Raises:
        ConfigError: One line for every mistake, as in `load_config`.
    """
    of_ablation = [text for text in overrides if _first_key(text) in OWN_KEYS]
    others = [text for text in overrides if text not in of_ablation]
    for text in others:
        if _first_key(text) in GIVEN:
            raise ConfigError(f"override {text!r}: {GIVEN[_first_key(text)]}")
    tree = read_layers((file,), of_ablation).root
    config = require(AblationConfig, tree)
    base = _base(config, tree, others)
    arms = _load_arms(config, tree, base, others)
    _check_orders(config, tree, load_layers(base, others).config)
    _check_references(config, tree)
    return Plan(config, tuple(_runs(config, tree, arms)))


def _load_arms(
    config: AblationConfig, tree: Node, base: Layers, overrides: Sequence[str]
) -> dict[str, RunConfig]:
    """Check every arm; a mistake that only some arms make names them."""
    loaded: dict[str, RunConfig] = {}
    wrong: dict[str, list[str]] = defaultdict(list)
    for arm in config.arms:
        over = tree.find(("arms", arm))
        assert over is not None, "the arms are what is written"
        try:
            layers = Layers(merge(base.root, over), base.texts)
            loaded[arm] = load_layers(layers, overrides).config
        except ConfigError as error:
            for line in str(error).splitlines():
                wrong[line].append(arm)
    if wrong:
        lines = [
            line if len(arms) == len(config.arms) else f"{line} (in arm {', '.join(arms)})"
            for line, arms in wrong.items()
        ]
        raise ConfigError("\n".join(lines))
    return loaded


def _base(config: AblationConfig, tree: Node, overrides: Sequence[str]) -> Layers:
    """What every arm is laid over: the base, `common` and the overrides, in this order."""
    origin = tree.origin_of(("base",))
    folder = Path() if origin.is_override else Path(origin.file).parent
    layers = read_layers((folder / config.base,), ())
    root = merge(layers.root, tree.find(("common",)) or Node({}, layers.root.origin))
    return Layers(lay_overrides(root, overrides), layers.texts)


def _check_orders(config: AblationConfig, tree: Node, base: RunConfig) -> None:
    """`ConfigError` unless every order has every stage of the base once."""
    tasks = [stage.task for stage in base.stages]
    for name, order in config.orders.items():
        if sorted(order) != sorted(tasks):
            strange = [task for task in order if task not in tasks]
            hint = nearest(strange[0], tasks) if strange else ""
            mistake = Mistake(
                tree.origin_of(("orders", name)),
                ("orders", name),
                f"not an order of the base's stages, got {', '.join(order)}. Expected each of "
                f"{', '.join(tasks)} once.{hint}",
            )
            raise ConfigError(str(mistake))


def _check_references(config: AblationConfig, tree: Node) -> None:
    """`ConfigError` for a reference whose method no other arm shares."""
    for path, arm in idle_references(config).items():
        mistake = Mistake(
            tree.origin_of(path),
            path,
            f"a reference for no arm, got {arm!r}. Every other arm differs from it in more than "
            "its stages, so its scores would be those of another method. Give it the keys of the "
            "arm that it is the reference of, or leave it out.",
        )
        raise ConfigError(str(mistake))


def _runs(config: AblationConfig, tree: Node, arms: dict[str, RunConfig]) -> Iterator[PlannedRun]:
    """Each arm's configuration with seed, order, name and folder of every run."""
    for seed, (arm, run) in product(config.seeds, arms.items()):
        folder = str(Path(run.runs_dir) / config.name)
        changes = {"seed": seed, "runs_dir": folder, "tracking": grouped(run.tracking, config.name)}
        name = f"{arm}-s{seed}"
        if not config.orders or tree.find(("arms", arm, "stages")) is not None:
            yield PlannedRun(arm, seed, None, run.model_copy(update={**changes, "name": name}))
            continue
        by_task = {stage.task: stage for stage in run.stages}
        for order, tasks in config.orders.items():
            stages = tuple(by_task[task] for task in tasks)
            changes |= {"name": f"{name}-{order}", "stages": stages}
            yield PlannedRun(arm, seed, order, run.model_copy(update=changes))


def _first_key(text: str) -> str:
    return text.partition("=")[0].strip().split(".")[0]


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
