"""What a run is made of: every configuration key, with its unit, default and source."""

import datetime
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    field_validator,
)

from fastslow.channels.fast.settings import (
    DemosConfig,
    FastConfig,
    SequenceConfig,
    SimbaKeys,
    fewest_metric_calls,
)
from fastslow.channels.slow.remedies.base import RemedyConfig, why_unfit
from fastslow.channels.slow.settings import GrpoConfig, SlowConfig
from fastslow.config.acting import broken_route
from fastslow.config.engine import broken_engine
from fastslow.config.evaluation import EvaluationConfig, ProbeConfig
from fastslow.config.slow_rules import broken_remedies, broken_routers
from fastslow.config.tracking import MlflowConfig, TrackerConfig, TrackingConfig
from fastslow.core.addresses import require_address
from fastslow.core.keys import FST, OURS, Model, RuledModel, key
from fastslow.policy.engine.settings import EngineConfig, TorchConfig

NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"
TASK_NAME = r"^[A-Za-z0-9]([A-Za-z0-9_.:-]{0,98}[A-Za-z0-9_-])?$"

ArgumentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]
"""A variable of a chat template."""
TaskName = Annotated[str, StringConstraints(pattern=TASK_NAME)]
"""A task's name within a run; safe in file names and metric keys."""


class ModelConfig(Model):
    """The base model, which no channel changes."""

    name: str = key("smollm2-135m-instruct", "name", OURS, min_length=1)
    """A name of `fastslow models list`, a local folder with safetensors weights, or a hub id."""
    revision: str | None = key(None, "name", "the hub's default branch")
    """Commit, tag or branch of a hub id; ignored for local folders."""
    dtype: Literal["auto", "float32", "bfloat16"] = key(
        "auto", "name", "ours: bfloat16 rounds, and is what cards are fast at"
    )
    """Number format of weights and activations. `auto` is bfloat16 on a GPU that has it and float32
    elsewhere; a run goes on with the one it began with. The adapter is float32 in either."""
    device: Literal["auto", "cpu", "cuda"] = key("auto", "name", "the first accelerator, else CPU")
    """Where the model runs."""
    chat_template_kwargs: dict[ArgumentName, Any] = key({}, "the template's own", "the template's")
    """Arguments of the model's chat template, e.g. `enable_thinking: false`. In force wherever a
    prompt is rendered: scores, training, and the chat template of an export."""
    date: datetime.date | None = key(None, "YYYY-MM-DD", "the day a run begins")
    """Today, for chat templates that write the date. Set it where runs of several days are
    compared."""


class TaskUse(Model):
    """A task of the run: which definition, with which parameters."""

    use: str | None = key(None, "name", "the key it stands under")
    """A folder under tasks/, or `package.module:function`."""
    params: dict[str, Any] = key({}, "the task's own", "the task's card", validate_default=True)
    """The definition's parameters; `fastslow tasks show NAME` lists them."""


class StageConfig(Model):
    """One visit to one task."""

    task: TaskName = key(..., "name", "required")
    """A key of `tasks`, or a folder under tasks/ with its default parameters."""
    cycles: PositiveInt = key(2, "cycles", OURS)
    """Fast phase and slow phase, this many times in turn."""
    fast: bool = key(True, "switch", FST + ", Algorithm 1")
    """Whether the fast channel takes part in this stage."""
    slow: bool = key(True, "switch", FST + ", Algorithm 1")
    """Whether the slow channel takes part in this stage."""
    lr: PositiveFloat | None = key(None, "1 / update", "that of `slow`: one for all stages")
    """Peak learning rate of this stage in place of `slow.lr`."""


class CycleConfig(Model):
    """The shape of a cycle: T updates of Q problems each."""

    optimizer_steps: PositiveInt = key(5, "optimizer updates", FST + ", App. D has 6")
    """T: slow updates per fast phase."""
    problems: PositiveInt = key(8, "problems", FST + " has 32 to 64; 8 suits two cores")
    """Q: problems per optimizer update."""
    pool: NonNegativeInt = key(32, "examples", OURS)
    """Training examples of a task set aside, for the whole run, for demonstrations and feedback:
    no update learns from them, and prompts are not scored on them. Set aside without a fast channel
    too, so that arms of an ablation learn from the same problems; 0 needs one that is off."""
    schedule: Literal["interleaved", "fast_first", "slow_first"] = key(
        "interleaved", "name", FST + ", Algorithm 1"
    )
    """Whether fast and slow phases of a stage take turns, or all fast phases come before all slow
    ones, or after them; `cycles` of each either way. The other two are baselines."""


class GradersConfig(Model):
    """What a task's grader may do to a run: code of a task may fail, or never end."""

    timeout_s: PositiveFloat = key(10.0, "seconds", OURS)
    """An answer that is not graded within this gets score 0. Graders run in a process of their own,
    which is ended then."""
    max_failures_frac: NonNegativeFloat = key(0.1, "share", OURS, le=1)
    """A stage stops when more than this share of its answers could not be graded."""


class RunConfig(RuledModel):
    """One run: a policy taken through a sequence of stages, with a report at the end."""

    name: str = key(..., "name", "required", pattern=NAME)
    """Name of the run; part of its folder's name."""
    seed: NonNegativeInt = key(0, "seed", "any integer")
    """Every random stream of the run is derived from it."""
    runs_dir: str = key("runs", "folder", OURS, min_length=1)
    """Where run folders are made, relative to the working directory."""
    publish: str | None = key(None, "address", "off")
    """Where finished stages and runs are pushed to, each run in a folder of its own: `s3://…`,
    `gs://…`, `hf://owner/name` or `file://…`."""
    data: str | None = key(None, "path", "none")
    """Data for tasks that read files and name none themselves."""
    allow_code: bool = key(False, "switch", OURS)
    """Whether graders may run programs that the policy writes; tasks that need it say so."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    """The base model."""
    engine: EngineConfig = Field(default_factory=TorchConfig)
    """What draws completions, and where the weights are."""
    tasks: dict[TaskName, TaskUse] = Field(default_factory=dict)
    """Tasks by the run's own names; those no stage visits are evaluated all the same."""
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    """Visits in training order."""
    cycle: CycleConfig = Field(default_factory=CycleConfig)
    """The shape of every cycle."""
    fast: FastConfig | None = Field(default_factory=DemosConfig)
    """The fast channel; null turns it off for the whole run."""
    slow: SlowConfig | None = Field(default_factory=GrpoConfig)
    """The slow channel; null turns it off for the whole run."""
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    """How policies are scored."""
    graders: GradersConfig = Field(default_factory=GradersConfig)
    """What is done about graders that fail."""
    probe: ProbeConfig | None = key(None, "section", "off")
    """The plasticity probe after the last stage; null makes none."""
    tracking: TrackingConfig | None = Field(default_factory=MlflowConfig)
    """The tracker, or a list of several; null keeps everything in the run folder alone."""

    @field_validator("runs_dir")
    @classmethod
    def _is_local(cls, folder: str) -> str:
        if "://" in folder:
            raise ValueError(
                "runs are made in a folder of this machine. Give one here, and the address in "
                "`publish`; or push a run with: fastslow push RUN ADDRESS"
            )
        return folder

    @field_validator("publish")
    @classmethod
    def _is_address(cls, address: str | None) -> str | None:
        return address if address is None else require_address(address) and address

    @property
    def trackers(self) -> tuple[TrackerConfig, ...]:
        """The section of every tracker."""
        if self.tracking is None:
            return ()
        return self.tracking if isinstance(self.tracking, tuple) else (self.tracking,)

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of all tasks scored: those of the stages in order, then the others.

        The probe's task is not one of them: a probe trains on it.
        """
        others = [name for name in self.tasks if self.probe is None or name != self.probe.task]
        return tuple(dict.fromkeys([*(stage.task for stage in self.stages), *others]))

    @property
    def num_texts(self) -> int:
        """K: prompts of a full population; 1, the seed prompt, without a fast channel."""
        return self.fast.population if self.fast else 1

    def channel_names(self, index: int) -> tuple[str, ...]:
        """Names of the channels that take part in the stage with this index, fast first."""
        stage = self.stages[index]
        fast = ("fast",) if self.fast is not None and stage.fast else ()
        return (*fast, "slow") if self.slow is not None and stage.slow else fast

    def phases(self, index: int) -> tuple[tuple[str, ...], ...]:
        """Names of the channels that adapt in each cycle of the stage with this index, in order.

        Under `cycle.schedule: interleaved` every cycle has both; else the stage has twice as many
        cycles with one each.
        """
        stage, names = self.stages[index], self.channel_names(index)
        if len(names) < 2 or self.cycle.schedule == "interleaved":
            return (names,) * stage.cycles
        first, second = names if self.cycle.schedule == "fast_first" else reversed(names)
        return ((first,),) * stage.cycles + ((second,),) * stage.cycles

    def task_use(self, name: str) -> TaskUse:
        """The entry of `tasks` called `name`, or the shipped task of that name with defaults."""
        return self.tasks.get(name, TaskUse())

    def broken_rules(self) -> Iterator[tuple[str, str]]:
        """Yield (key path, message) for every rule between keys that does not hold."""
        group = self.slow.rollouts_per_problem if self.slow else 0
        if group % self.num_texts:
            divisors = [n for n in range(1, min(group, 1000) + 1) if group % n == 0]
            yield (
                "fast.population",
                f"fast.population (K = {self.num_texts}) must divide slow.group "
                f"(G = {group}), so that every prompt gets the same number of rollouts. "
                f"Known divisors of G: {', '.join(map(str, divisors))}.",
            )
        anchor = self.cycle.optimizer_steps * self.cycle.problems
        yield from self._broken_steps()
        if self.fast and self.fast.metric_calls < (
            fewest := fewest_metric_calls(self.fast, anchor, self.cycle.pool)
        ):
            each = " in each of fast.steps" if self.fast.kind == "sequence" else ""
            yield (
                "fast.metric_calls",
                f"fast.metric_calls ({self.fast.metric_calls}) is too small: re-scoring "
                f"{self.fast.population} old prompts (fast.population) on {anchor} anchor problems "
                "(cycle.optimizer_steps x cycle.problems) leaves room for fewer than 2 new "
                f"prompts{each}. Use at least {fewest}.",
            )
        if self.fast and not self.cycle.pool:
            yield (
                "cycle.pool",
                "cycle.pool is 0, but `fast` takes demonstrations and feedback from the pool. Set "
                "it to at least 1, or `fast` to null.",
            )
        if self.fast and self.fast.reuse_slow_rollouts and not group:
            yield (
                "fast.reuse_slow_rollouts",
                "fast.reuse_slow_rollouts is true, but `slow` draws no rollouts that could be "
                "reused. Set it to false, or use a slow channel of kind: grpo.",
            )
        yield from self._broken_probe()
        yield from broken_remedies(self)
        yield from broken_routers(self)
        yield from broken_route(self)
        yield from broken_engine(self)
        yield from self.evaluation.broken_measures(
            has_weights=self.slow is not None, sharding=self.engine.sharding
        )
        for index, stage in enumerate(self.stages):
            if not (stage.fast or stage.slow):
                yield (
                    f"stages.{index}.slow",
                    "`fast` and `slow` of this stage are both false, so it would do nothing. "
                    "Set one of them to true, or remove the stage.",
                )
            if stage.lr is not None and (self.slow is None or not stage.slow):
                yield (
                    f"stages.{index}.lr",
                    f"`lr` of this stage is {stage.lr}, but the slow channel takes no part in it. "
                    "Remove `lr`, or turn the slow channel on.",
                )

    def why_unfit(self, name: str, remedy: type[RemedyConfig]) -> str | None:
        """Why a remedy of this class is not for the run; None where it is. See `base.why_unfit`."""
        if self.slow is None:
            return None
        has_earlier = len({stage.task for stage in self.stages if stage.slow}) > 1
        return why_unfit(name, remedy, self.slow.adapter_policy, has_earlier=has_earlier)

    def _broken_probe(self) -> Iterator[tuple[str, str]]:
        """Rules of the probe: a task held out of the sequence, and weights that can learn it."""
        if self.probe is None:
            return
        visited = {stage.task for stage in self.stages}
        if self.probe.task in visited or self.probe.task not in self.tasks:
            names = ", ".join(name for name in self.tasks if name not in visited) or "none"
            yield (
                "probe.task",
                f"probe.task ({self.probe.task!r}) must be a key of `tasks` that no stage visits. "
                f"Known: {names}. Add it to `tasks`.",
            )
        if self.slow is None:
            yield (
                "probe",
                "probe trains the adapter, but `slow` is null, so there is none. Set `probe` to "
                "null, or give `slow` a kind.",
            )

    def _broken_steps(self) -> Iterator[tuple[str, str]]:
        """Rules of the optimizers' own keys."""
        if self.fast is None:
            return
        steps = self.fast.steps if isinstance(self.fast, SequenceConfig) else ()
        named: dict[str, object] = {f"fast.steps.{i}": step for i, step in enumerate(steps)}
        for path, step in (named or {"fast": self.fast}).items():
            if isinstance(step, SimbaKeys) and step.batch > self.cycle.pool:
                yield (
                    f"{path}.batch",
                    f"{path}.batch ({step.batch}) must not exceed cycle.pool ({self.cycle.pool}), "
                    "the examples it is drawn from. Lower it, or raise cycle.pool.",
                )
