"""What a run is made of: every configuration key, with its unit, default and source.

One model per noun, frozen, unknown keys refused. Reading files is `load.py`'s; nothing below the
surface layer receives these objects whole.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fastslow.credentials import looks_like_key

FST = "Fast-Slow Training, arXiv 2605.12484"
OURS = "ours, docs/decisions.md"


class Model(BaseModel):
    """Base of every configuration model."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def key(default: Any, unit: str, source: str, **constraints: Any) -> Any:
    """A configuration key with its unit and the source of its default.

    Args:
        default: The value when no file or override sets it; `...` makes the key required.
        unit: What one of it is, e.g. "optimizer updates"; "name" or "switch" for words.
        source: Where the default comes from: a paper's section, a library, or a measurement.
        constraints: Passed on to `pydantic.Field`.
    """
    return Field(default, json_schema_extra={"unit": unit, "source": source}, **constraints)


NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"
TASK_NAME = r"^[A-Za-z0-9]([A-Za-z0-9_.:-]{0,98}[A-Za-z0-9_-])?$"

TaskName = Annotated[str, StringConstraints(pattern=TASK_NAME)]
"""A task's name within a run; safe in file names and metric keys."""
Rate = Annotated[float, Field(gt=0, le=1)]
Band = Literal["unsolved", "hard", "medium", "easy", "solved"]
"""Of problems, by pass rate, from the lowest."""


class ModelConfig(Model):
    """The base model, which no channel changes."""

    name: str = key("smollm2-135m-instruct", "name", OURS, min_length=1)
    """A name of `fastslow models list`, a local folder with safetensors weights, or a hub id."""
    revision: str | None = key(None, "name", "the hub's default branch")
    """Commit, tag or branch of a hub id; ignored for local folders."""
    dtype: Literal["float32", "bfloat16"] = key("float32", "name", "bfloat16 is 4x slower on CPU")
    """Number format of weights and activations."""
    device: Literal["auto", "cpu", "cuda"] = key("auto", "name", "the first accelerator, else CPU")
    """Where the model runs."""


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


class CycleConfig(Model):
    """The shape of a cycle: T updates of Q problems each."""

    optimizer_steps: PositiveInt = key(5, "optimizer updates", FST + ", App. D has 6")
    """T: slow updates per fast phase."""
    problems: PositiveInt = key(8, "problems", FST + " has 32 to 64; 8 suits two cores")
    """Q: problems per optimizer update."""


class LoraConfig(Model):
    """The adapter the slow channel trains."""

    rank: PositiveInt = key(8, "dimensions", "PEFT's default")
    """Rank of each update matrix."""
    alpha: PositiveFloat = key(16.0, "factor", "twice the rank, as is usual")
    """The update is scaled by alpha / rank."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = key(
        "all-linear", "module names", "Schulman et al. 2025, LoRA Without Regret"
    )
    """Which linear layers get an adapter."""
    placement: Literal["all", "last_third"] = key("all", "name", "as target_modules")
    """In which of the model's layers: all of them, or the last third, rounded down."""


class MinimalConfig(Model):
    """What every kind of slow channel has to keep the change of the weights small."""

    kl_budget: PositiveFloat | None = key(None, "nats per token", "off: " + FST + " has no limit")
    """Adaptation of a stage ends when KL(tuned || base) on its inputs passes this; the update that
    passed it is undone."""
    kl_budget_rows: PositiveInt = key(16, "rollouts", OURS)
    """Rollouts of each update on which the KL of the budget is measured, per process."""
    shrink: PositiveFloat | None = key(None, "share", "off", le=1)
    """After a stage the adapter is scaled to the smallest factor that keeps this share of its
    validation gain."""
    adapter_policy: Literal["continue", "merge-then-new", "new-per-stage"] = key(
        "continue", "name", FST + ": one run of training"
    )
    """At the start of a later stage the adapter goes on, or is frozen under a new one whose rank
    adds to it, or is put aside for its own task while a new one starts from the base."""


class DifficultyConfig(Model):
    """Which groups the slow channel learns from, by measured pass rate, and when it warns."""

    newest_weight: PositiveFloat = key(0.5, "weight", OURS, le=1)
    """Weight of the newest group in a problem's running pass rate."""
    success_score: PositiveFloat = key(0.5, "score", OURS, le=1)
    """Rewards from here on count as a success."""
    edges: tuple[Rate, Rate, Rate, Rate] = key(
        (0.05, 0.25, 0.75, 0.95), "pass rate", "ours; arXiv 2605.28388 gives none"
    )
    """Lower edges of the bands hard, medium, easy and solved; below the first is unsolved."""
    train_bands: tuple[Band, ...] = key(
        ("unsolved", "hard", "medium", "easy", "solved"), "names", "all, as in " + FST, min_length=1
    )
    """Groups of problems in other bands are dropped from the gradient, and counted."""
    lucky_cap: PositiveFloat | None = key(
        2.65, "advantage", "root of 7: one success of 8 rewards, divided by their deviation"
    )
    """Largest advantage in a group with exactly one success; null takes the cap away. TRL's
    deviation gives (G - 1) / root of G, which passes the default from G = 10 on."""
    collapse_frac: PositiveFloat = key(0.5, "share", OURS, lt=1)
    """Alarm when completions are shorter than this share of their running mean length."""
    repetition_frac: PositiveFloat = key(0.5, "share", OURS, lt=1)
    """Alarm when more than this share of a completion's 4-grams repeat earlier ones."""

    @field_validator("edges")
    @classmethod
    def _edges_rise(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if any(low >= high for low, high in pairwise(edges)):
            text = ", ".join(map(str, edges))
            raise PydanticCustomError("edges", "{edges} do not rise", {"edges": text})
        return edges


class GrpoConfig(MinimalConfig):
    """Slow channel: group-relative policy gradient on the adapter, through TRL."""

    kind: Literal["grpo"] = key("grpo", "name", "TRL's GRPOTrainer")
    """Which slow channel."""
    loss: Literal["cispo", "grpo", "dr_grpo", "dapo"] = key("cispo", "name", FST + ", Eq. 4")
    """TRL's name of the loss."""
    group: int = key(8, "rollouts per problem", FST + ", App. D", ge=2)
    """G: rollouts of one problem, over all texts; the population size must divide it."""
    lr: PositiveFloat = key(3e-4, "1 / update", OURS)
    """Peak learning rate of AdamW."""
    warmup_steps: NonNegativeInt = key(2, "optimizer updates", FST + ", App. D has 10 of 1,500")
    """Updates over which the learning rate rises from 0, at the start of each stage."""
    weight_decay: NonNegativeFloat = key(0.0, "1 / update", FST + ", App. D")
    """AdamW's decoupled weight decay."""
    max_grad_norm: PositiveFloat = key(1.0, "L2 norm", "TRL's default; the paper gives none")
    """Gradients longer than this are scaled down to it."""
    ratio_cap: PositiveFloat = key(4.0, "ratio", FST + ", App. D: tau = 4, upper side only")
    """CISPO: the importance ratio is cut off above this, absolutely (not 1 + this)."""
    kl_coefficient: NonNegativeFloat = key(0.001, "1 / nat", FST + ", App. D")
    """Weight of KL(tuned || base) in the loss; the base is the same weights, adapter off."""
    temperature: PositiveFloat = key(1.0, "temperature", "TRL's default; the paper gives none")
    """Sampling temperature of rollouts, and of the log-probabilities they are trained on."""
    rows_per_forward: PositiveInt = key(64, "rollouts", "the update of the demo in one pass")
    """Rollouts in one forward and backward pass; gradients add up over passes."""
    averaging: Literal["problem", "token"] = key("problem", "name", FST + ", Eq. 4")
    """CISPO: token losses are averaged per problem and then over problems, or over all tokens.
    Other losses have an average of their own."""
    gradient_context: Literal["with_text", "bare"] = key("with_text", "name", FST + ", Eq. 4")
    """What log-probabilities are conditioned on: the text a rollout was drawn under, or the bare
    problem (context distillation, P2O, arXiv 2603.21877). Rollouts are drawn under texts anyway."""
    difficulty: DifficultyConfig = Field(default_factory=DifficultyConfig)
    """Which groups count, by measured pass rate."""
    lora: LoraConfig = Field(default_factory=LoraConfig)
    """The adapter."""

    @property
    def rollouts_per_problem(self) -> int:
        """Completions drawn for one problem of an update."""
        return self.group

    def rows_per_problem(self, texts: int) -> int:
        """Rows trained on for one problem of an update, with a population of `texts`."""
        return self.group


class SftConfig(MinimalConfig):
    """Slow channel: gold answers taught to the adapter, through TRL; draws no rollouts."""

    kind: Literal["sft"] = key("sft", "name", "TRL's SFTTrainer")
    """Which slow channel."""
    gradient_context: Literal["with_text", "bare"] = key("with_text", "name", FST)
    """Each problem is taught once under every text of the population, or once without any text."""
    lr: PositiveFloat = key(2e-4, "1 / update", "TRL's PEFT guide: ten times its default")
    """Peak learning rate of AdamW."""
    warmup_steps: NonNegativeInt = key(2, "optimizer updates", "as with kind: grpo")
    """Updates over which the learning rate rises from 0, at the start of each stage."""
    weight_decay: NonNegativeFloat = key(0.0, "1 / update", "TRL's default")
    """AdamW's decoupled weight decay."""
    max_grad_norm: PositiveFloat = key(1.0, "L2 norm", "TRL's default")
    """Gradients longer than this are scaled down to it."""
    rows_per_forward: PositiveInt = key(64, "rows", "as with kind: grpo")
    """Pairs of text and problem in one forward and backward pass; gradients add up over passes."""
    lora: LoraConfig = Field(default_factory=LoraConfig)
    """The adapter."""

    @property
    def rollouts_per_problem(self) -> int:
        """Completions drawn for one problem of an update: none."""
        return 0

    def rows_per_problem(self, texts: int) -> int:
        """Rows trained on for one problem of an update, with a population of `texts`."""
        return texts if self.gradient_context == "with_text" else 1


def _slow_kind(written: Any) -> str:
    """The model that checks a `slow` section; one without `kind` is grpo, and so reports typos."""
    kind = written.get("kind") if isinstance(written, dict) else getattr(written, "kind", None)
    return "sft" if kind == "sft" else "grpo"


SlowConfig = Annotated[
    Annotated[GrpoConfig, Tag("grpo")] | Annotated[SftConfig, Tag("sft")],
    Discriminator(_slow_kind),
]
"""The slow channel's section: one model per `kind`."""


class ReflectionConfig(Model):
    """The language model that reads how texts fared and writes better ones.

    Its key comes from the environment alone; a section that holds one is refused.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    model: str = key("self", "name", "P2O, arXiv 2603.21877, has self-reflection", min_length=1)
    """`self`, the policy's base with the adapter off, or a model string of DSPy or LiteLLM, e.g.
    `openai/gpt-5-mini`; `openai/NAME` with `api_base` is any server that speaks OpenAI's chat
    completions."""
    api_base: str | None = key(None, "address", "the provider's own")
    """Address of the server, with its version, e.g. `http://127.0.0.1:8000/v1`. One on this machine
    needs no key."""
    api_key_env: str | None = key(None, "name", "the provider's usual one, e.g. OPENAI_API_KEY")
    """Environment variable that holds the key."""
    temperature: NonNegativeFloat = key(1.0, "temperature", "GEPA's advice for reflection LMs")
    """Sampling temperature of its answers."""
    max_tokens: PositiveInt = key(1024, "tokens", OURS)
    """Limit of one answer; models that think before they answer need many times that."""
    timeout_s: PositiveFloat = key(120.0, "seconds", OURS)
    """A request without an answer after this time counts as failed; `self` has no limit."""
    attempts: PositiveInt = key(5, "requests", OURS)
    """After this many in a row without an answer the model counts as away, and the phase ends."""
    wait_s: PositiveFloat = key(1.0, "seconds", OURS)
    """Longest wait after the first failure; doubles with each, up to a minute."""
    playbook_items: NonNegativeInt = key(
        3, "items", "SkillRL, arXiv 2602.08234: at most 3 new skills per round"
    )
    """Worked examples, and as many lessons, that `reuse_slow_rollouts` shows the reflection LM in
    one cycle."""
    playbook_tokens: PositiveInt = key(256, "tokens", OURS)
    """Limit of those worked examples together, in the policy's tokens."""

    @model_validator(mode="before")
    @classmethod
    def _no_keys(cls, written: Any) -> Any:
        texts = written.values() if isinstance(written, dict) else ()
        if any(isinstance(text, str) and looks_like_key(text) for text in texts):
            raise ValueError(
                "holds what looks like a key or a password. Keys come from the environment alone, "
                "never from a file or the command line: put it into a variable, name that in "
                "api_key_env if it is not the provider's usual one, and replace the key if others "
                "can read this file."
            )
        return written

    @field_validator("api_base")
    @classmethod
    def _is_address(cls, address: str | None) -> str | None:
        if address is not None and not address.startswith(("http://", "https://")):
            raise ValueError(
                "not an address that starts with http:// or https://. Write it with its version, "
                "e.g. http://127.0.0.1:8000/v1."
            )
        return address

    @field_validator("api_key_env")
    @classmethod
    def _is_variable(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Z][A-Z0-9_]{2,63}", name):
            raise ValueError(
                "not the name of an environment variable: capitals, digits and _, e.g. MY_API_KEY. "
                "The key itself belongs into that variable."
            )
        return name


class DemosConfig(Model):
    """Fast channel: search over demonstrations, through DSPy; needs no second language model."""

    kind: Literal["demos"] = key("demos", "name", "DSPy, BootstrapFewShotWithRandomSearch")
    """Which fast channel."""
    population: PositiveInt = key(4, "texts", FST + ", App. E: the light recipe")
    """K: texts kept after each fast phase; must divide `slow.group`."""
    demonstrations: PositiveInt = key(4, "demonstrations", OURS)
    """Demonstrations in one text, at most."""
    pool: PositiveInt = key(32, "examples", OURS)
    """Training examples set aside for demonstrations; the slow channel never trains on them."""
    metric_calls: PositiveInt = key(
        320, "rollouts per cycle", FST + ", App. D: 5 per anchor problem"
    )
    """Budget of scoring: old texts are re-scored first, the rest goes to new ones."""
    threads: PositiveInt = key(64, "requests", "fills one sampling batch")
    """Requests in flight; the engine gathers them into one batch."""
    reuse_slow_rollouts: bool = key(
        False, "switch", FST + " says nothing; its authors' blog has it as future work"
    )
    """Whether rollouts of the slow phase before are evidence for this one: correct ones as
    demonstrations, without drawing again. An ablation."""


class EvaluationConfig(Model):
    """How policies are scored. Test examples are seen by nothing else."""

    test_examples: PositiveInt | None = key(
        64, "examples per task", "Wilson half-width 0.12 at 0.5"
    )
    """Size of the test sample, fixed for the whole run; null takes the whole split."""
    validation_examples: PositiveInt = key(32, "examples", OURS)
    """Examples on which the text to deploy is chosen."""
    kl_examples: NonNegativeInt = key(16, "examples per task", OURS)
    """Test inputs on which KL to the base is measured; 0 turns it off."""


class TrackingConfig(Model):
    """Where metrics, texts and adapters go beside the run folder."""

    kind: Literal["mlflow"] = key("mlflow", "name", "the one tracker there is")
    """Which tracker."""
    uri: str | None = key(None, "address", "a SQLite file: mlflow.db in runs_dir")
    """MLflow tracking address."""


class RunConfig(Model):
    """One run: a policy taken through a sequence of stages, with a report at the end."""

    name: str = key(..., "name", "required", pattern=NAME)
    """Name of the run; part of its folder's name."""
    seed: NonNegativeInt = key(0, "seed", "any integer")
    """Every random stream of the run is derived from it."""
    runs_dir: str = key("runs", "folder", OURS, min_length=1)
    """Where run folders are made, relative to the working directory."""
    data: str | None = key(None, "path", "none")
    """Data for tasks that read files and name none themselves."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    """The base model."""
    tasks: dict[TaskName, TaskUse] = Field(default_factory=dict)
    """Tasks by the run's own names; those no stage visits are evaluated all the same."""
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    """Visits in training order."""
    cycle: CycleConfig = Field(default_factory=CycleConfig)
    """The shape of every cycle."""
    fast: DemosConfig | None = Field(default_factory=DemosConfig)
    """The fast channel; null turns it off for the whole run."""
    slow: SlowConfig | None = Field(default_factory=GrpoConfig)
    """The slow channel; null turns it off for the whole run."""
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    """How policies are scored."""
    tracking: TrackingConfig | None = Field(default_factory=TrackingConfig)
    """The tracker; null keeps everything in the run folder alone."""

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of all tasks scored: those of the stages in order, then the others."""
        return tuple(dict.fromkeys([*(stage.task for stage in self.stages), *self.tasks]))

    @property
    def num_texts(self) -> int:
        """K: texts of a full population; 1, the seed text, without a fast channel."""
        return self.fast.population if self.fast else 1

    def task_use(self, name: str) -> TaskUse:
        """The entry of `tasks` called `name`, or the shipped task of that name with defaults."""
        return self.tasks.get(name, TaskUse())

    def broken_rules(self) -> Iterator[tuple[str, str]]:
        """Yield (key path, message) for every rule between keys that does not hold."""
        group = self.slow.rollouts_per_problem if self.slow else 0
        if group % self.num_texts:
            yield (
                "fast.population",
                f"fast.population (K = {self.num_texts}) must divide slow.group "
                f"(G = {group}), so that every text gets the same number of rollouts. "
                f"Known divisors of G: {', '.join(map(str, _divisors(group)))}.",
            )
        anchor = self.cycle.optimizer_steps * self.cycle.problems
        if self.fast and self.fast.metric_calls < (self.fast.population + 2) * anchor:
            yield (
                "fast.metric_calls",
                f"fast.metric_calls ({self.fast.metric_calls}) is too small: re-scoring "
                f"{self.fast.population} old texts (fast.population) on {anchor} anchor problems "
                "(cycle.optimizer_steps x cycle.problems) leaves room for fewer than 2 new "
                f"texts. Use at least {(self.fast.population + 2) * anchor}.",
            )
        if self.fast and self.fast.reuse_slow_rollouts and not group:
            yield (
                "fast.reuse_slow_rollouts",
                "fast.reuse_slow_rollouts is true, but `slow` draws no rollouts that could be "
                "reused. Set it to false, or use a slow channel of kind: grpo.",
            )
        for index, stage in enumerate(self.stages):
            if not (stage.fast or stage.slow):
                yield (
                    f"stages.{index}.slow",
                    "`fast` and `slow` of this stage are both false, so it would do nothing. "
                    "Set one of them to true, or remove the stage.",
                )

    @model_validator(mode="after")
    def _rules_hold(self) -> "RunConfig":
        broken = dict(self.broken_rules())
        if broken:
            raise PydanticCustomError(
                "broken_rules", "{text}", {"text": "; ".join(broken.values()), "rules": broken}
            )
        return self


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
