"""`check`: everything that can be known of a run before it begins."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from fastslow.api.words import override_words
from fastslow.core.errors import ConfigError
from fastslow.core.text import visible
from fastslow.core.types import Json

if TYPE_CHECKING:
    from fastslow.config.cost import Cost
    from fastslow.config.models import RunConfig
    from fastslow.loop.preflight import Inspection
    from fastslow.results.ablation import Plan
    from fastslow.task.summary import DataSummary


@dataclass(frozen=True)
class CheckResult:
    """A configuration that a run could begin with."""

    file: str
    """As it was given."""
    kind: Literal["run", "ablation", "fragment"]
    """A fragment is a file for others to extend: its keys alone are checked."""
    name: str | None = None
    """Name of the run or the ablation; None for a fragment."""
    values: Mapping[str, tuple[Json, str]] = field(default_factory=dict)
    """Of a run, each key path with its value and where that is from: `file:line`, `override`, or
    `default: ` and a source."""
    inspection: "Inspection | None" = None
    """What its model and data turned out to be; None for a fragment."""
    config: "RunConfig | None" = None
    """Of a run, complete."""
    plan: "Plan | None" = None
    """Of an ablation, every run."""

    @cached_property
    def data(self) -> "dict[str, DataSummary]":
        """By task, its splits in figures."""
        from fastslow.task.summary import summarize

        tasks = self.inspection.tasks if self.inspection else {}
        return {name: summarize(task) for name, task in tasks.items()}

    @cached_property
    def cost(self) -> "Cost | None":
        """Of a run: rollouts, updates, minutes and 10^9 bytes of memory, all estimates."""
        from fastslow.loop.estimate import estimate

        if self.config is None or self.inspection is None:
            return None
        tasks = self.inspection.tasks
        is_complete = {*self.config.task_names} <= {*tasks}  # else short texts
        return estimate(self.config, tasks if is_complete else {})

    @property
    def notes(self) -> tuple[str, ...]:
        """What only this machine lacks, and what a run would go on in spite of."""
        return tuple(self.inspection.notes) if self.inspection else ()

    def to_json(self) -> dict[str, Any]:
        """Plain data: what `fastslow check --json` prints of a file."""
        values = {key: {"value": v, "source": source} for key, (v, source) in self.values.items()}
        content: dict[str, Any] = {"file": self.file, "kind": self.kind, "ok": True, "errors": []}
        content |= {"name": self.name, "values": values, "notes": list(self.notes)}
        content["data"] = {task: asdict(summary) for task, summary in self.data.items()}
        content["cost"] = None if self.cost is None else asdict(self.cost)
        if self.plan is not None:
            content["arms"] = list(self.plan.config.arms)
            content["runs"] = [run.name for run in self.plan.runs]
        return content


def check(
    config: str | PathLike[str],
    overrides: Mapping[str, object] | None = None,
    /,
    *,
    calibrate: bool = False,
    **keys: object,
) -> CheckResult:
    """Check a configuration and its data, of a run or an ablation; overrides as in `train`.

    Loads no weights and writes nothing, but to `calibrate` a run's cost: then it takes the model
    through some passes, and keeps their rates in the user's cache.

    Examples:
        >>> result = fastslow.check("configs/experiments/demo.yaml", {"slow.lora.rank": 16}, seed=1)
        >>> result.values["seed"]
        (1, 'override')
        >>> sorted(result.data)[0]
        'country_continent'

    Raises:
        ConfigError: A run would stop at something; one line for each: file and line, key, what was
            got, what to do.
    """
    return inspect_file(Path(config), override_words(overrides, keys), calibrate=calibrate)


def inspect_file(file: Path, words: Sequence[str], *, calibrate: bool = False) -> CheckResult:
    """`check` with overrides as words; takes fragments too."""
    from fastslow.config.loading.load import check_fragment, leaves, load_config
    from fastslow.results.ablation import is_ablation, read_plan

    if file.absolute().parent.name == "base":
        check_fragment(file)
        return CheckResult(str(file), "fragment")
    name = visible(str(file))
    if is_ablation(file):
        plan = read_plan(file, words)
        inspection = inspected(name, [run.config for run in plan.runs])
        return CheckResult(str(file), "ablation", plan.config.name, {}, inspection, plan=plan)
    from fastslow.loop.estimate import calibrate as measure

    loaded = load_config([file], words)
    inspection = inspected(name, [loaded.config], loaded.sources)
    if calibrate and (modules := measure(loaded.config)):
        inspection.notes.append(f"the adapter is on {', '.join(modules)}")
    values = {key: (value, loaded.sources[key]) for key, value in leaves(loaded.config).items()}
    return CheckResult(
        str(file), "run", loaded.config.name, values, inspection, config=loaded.config
    )


def inspected(
    name: str, configs: Iterable["RunConfig"], sources: Mapping[str, str] = MappingProxyType({})
) -> "Inspection":
    """Open the data and look for the models of all configurations of a file.

    `sources` has the origin of every key, as in `LoadedConfig`.

    Raises:
        ConfigError: A run would stop at something; names all of it.
    """
    from fastslow.config.acting import acting_signals
    from fastslow.loop.preflight import Inspection, inspect, lacking

    inspection, seen = Inspection(), set[str]()
    for config in configs:
        keys: dict[str, Any] = dict.fromkeys(("model", "tasks", "stages", "cycle", "probe"), True)
        keys |= {"fast": {"kind"}, "slow": {"kind", "guidance"}, "evaluation": {"reoptimize"}}
        needs = f"{config.model_dump_json(include=keys)} {acting_signals(config)}"
        inspection.add(Inspection(notes=lacking(config)) if needs in seen else inspect(config))
        seen.add(needs)
    if inspection.problems:
        lines = [f"{_origin(key, sources) or name}: {text}" for key, text in inspection.problems]
        raise ConfigError("\n".join(lines))
    return inspection


def _origin(key: str, sources: Mapping[str, str]) -> str | None:
    """File and line where a key is set, or the data of a task; None for overrides and defaults."""
    places = (sources.get(f"{key}{end}", "") for end in ("", ".params.data", ".use"))
    files = (place for place in places if re.search(r":\d+$", place))
    return next(files, None)
