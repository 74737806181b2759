"""From an ablation file to its plan, every run of it checked."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from fastslow.config.ablation import GIVEN, AblationConfig
from fastslow.config.loading.layers import Layers, lay_overrides, merge, read_layers
from fastslow.config.loading.load import load_layers
from fastslow.config.loading.validate import require
from fastslow.config.loading.yaml_nodes import Mistake, Node
from fastslow.config.models import RunConfig
from fastslow.config.tracking import grouped
from fastslow.core.errors import ConfigError, nearest
from fastslow.results.ablation.plan import Plan, PlannedRun
from fastslow.results.ablation.references import idle_references
from fastslow.results.ablation.search import Search, Trial

OWN_KEYS = frozenset(AblationConfig.model_fields)
"""Overrides that begin with one of these are the ablation's, all others the runs'."""


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
    if (search := _search(config, tree, base, others, arms, (file, tuple(overrides)))) is not None:
        for arm, trial in search.best().items():
            arms[arm] = trial.config
    return Plan(config, tuple(_runs(config, tree, arms)), search)


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


def _search(
    config: AblationConfig,
    tree: Node,
    base: Layers,
    overrides: Sequence[str],
    arms: dict[str, RunConfig],
    source: tuple[Path, tuple[str, ...]],
) -> Search | None:
    """The trials of every arm that has the key, or that the search names."""
    search = config.search
    if search is None:
        return None
    trials: list[Trial] = []
    for arm in search.arms or [arm for arm in arms if has_key(arms[arm], search.path)]:
        over = tree.find(("arms", arm))
        assert over is not None, "its names are checked"
        for index, value in enumerate(search.values):
            words = [f"{search.path}={value!r}"]
            layers = Layers(lay_overrides(merge(base.root, over), words), base.texts)
            tuned = load_layers(layers, (*overrides, *words)).config
            trials.append(Trial(arm, value, tuned, _trial_run(config, tuned, f"{arm}-{index}")))
    plan = Plan(config, tuple(trial.run for trial in trials))
    return Search(search.path, plan, tuple(trials), *source)


def _trial_run(config: AblationConfig, tuned: RunConfig, name: str) -> PlannedRun:
    """A run that is scored on validation, under a seed that no other run has."""
    assert config.search is not None
    changes = {
        "name": f"search-{name}",
        "seed": config.search.seed,
        "runs_dir": str(Path(tuned.runs_dir) / config.name / "search"),
        "tracking": grouped(tuned.tracking, config.name),
        "evaluation": tuned.evaluation.model_copy(update={"split": "validation"}),
    }
    return PlannedRun(name, config.search.seed, None, tuned.model_copy(update=changes))


def has_key(config: RunConfig, path: str) -> bool:
    """Whether a configuration has a value at a key path."""
    value: object = config.model_dump(mode="json")
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    return value is not None


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
