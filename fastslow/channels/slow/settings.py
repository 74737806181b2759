"""The slow channel's settings, which are its part of the configuration.

Adapter, updates, losses, remedies. Light: a configuration is checked without torch.
"""

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Tag

from fastslow.channels.slow.group_settings import (
    AnswerGuidance,
    DifficultyConfig,
    Guidance,
    HintsGuidance,
)
from fastslow.channels.slow.remedies.base import AdapterPolicy
from fastslow.channels.slow.remedies.shipped import RemedyUse
from fastslow.core.keys import FST, OURS, Model, key, kind_among

Averaging: TypeAlias = Literal["problem", "token"]


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

    trainer: ClassVar[str]
    """Where its trainer is: `package.module:name` of a `MakeUpdates`."""

    @property
    def needs_start(self) -> bool:
        """Whether the trainer reads the weights as the stage found them."""
        return False

    @property
    def shows_answer(self) -> bool:
        """Whether training problems are also asked with their answer shown."""
        return False

    tokens_per_forward: PositiveInt = key(1024, "tokens", OURS)
    """Distinct tokens in one forward and backward pass, about: rows share those they begin with.
    What every layer computed of each stays in memory until the way back."""
    kl_budget: PositiveFloat | None = key(None, "nats per token", "off: " + FST + " has no limit")
    """Adaptation of a stage ends when KL(tuned || base) on its inputs passes this; the update that
    passed it is undone."""
    kl_budget_rows: PositiveInt = key(16, "rollouts", OURS)
    """Rollouts of each update on which the KL of the budget is measured, per process."""
    kl_budget_earlier: PositiveFloat | None = key(None, "nats per token", "off: " + FST)
    """As `kl_budget`, for earlier tasks: KL(tuned || as the stage found it) along own completions
    of their training examples, under their deployed prompts; `kl_budget_rows` of them."""
    shrink: PositiveFloat | None = key(None, "share", "off", le=1)
    """After a stage the adapter is scaled to the smallest factor that keeps this share of its
    validation gain."""
    remedies: tuple[RemedyUse, ...] = key((), "list", "none, as in " + FST)
    """Remedies against forgetting, in the order they act; each stays for the whole run."""
    adapter_policy: AdapterPolicy = key("continue", "name", FST + ": one run of training")
    """At the start of a later stage the adapter continues, or is frozen under a new one whose rank
    adds to it, or is put aside for its own task while a new one starts from the base."""


class GrpoConfig(MinimalConfig):
    """Slow channel: group-relative policy gradient on the adapter, through TRL."""

    trainer = "fastslow.channels.slow.grpo:FastSlowTrainer"

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
    averaging: Averaging = key("problem", "name", FST + ", Eq. 4")
    """CISPO: token losses are averaged per problem and then over problems, or over all tokens.
    Other losses have an average of their own."""
    gradient_context: Literal["with_text", "bare"] = key("with_text", "name", FST + ", Eq. 4")
    """What log-probabilities are conditioned on: the text a rollout was drawn under, or the bare
    problem (context distillation, P2O, arXiv 2603.21877). Rollouts are drawn under texts anyway."""
    difficulty: DifficultyConfig = Field(default_factory=DifficultyConfig)
    """Which groups count, by how hard their problems are."""
    guidance: Guidance | None = key(None, "section", "off: " + FST + " has none")
    """What is done about unsolved groups; null does nothing."""
    lora: LoraConfig = Field(default_factory=LoraConfig)
    """The adapter."""

    @property
    def hints(self) -> HintsGuidance | None:
        """The guidance, if it draws again with hints."""
        return self.guidance if isinstance(self.guidance, HintsGuidance) else None

    @property
    def answer(self) -> AnswerGuidance | None:
        """The guidance, if a teacher is shown the gold answer."""
        return self.guidance if isinstance(self.guidance, AnswerGuidance) else None

    @property
    def needs_start(self) -> bool:
        """Whether unsolved groups are taught by the weights as the stage found them."""
        return self.answer is not None

    @property
    def shows_answer(self) -> bool:
        """Whether training problems are also asked with their answer shown."""
        return self.guidance is not None

    @property
    def learns_bare(self) -> bool:
        """Whether log-probabilities are conditioned on the problem alone."""
        return self.gradient_context == "bare"

    @property
    def has_reference(self) -> bool:
        """Whether rows are read once more without a gradient, by a reference or a teacher."""
        return self.kl_coefficient > 0 or self.needs_start

    @property
    def rollouts_per_problem(self) -> int:
        """Completions drawn for one problem of an update, hints apart."""
        return self.group

    def rows_per_problem(self, texts: int) -> int:
        """Rows trained on for one problem of an update, with a population of `texts`."""
        return self.group


class SftConfig(MinimalConfig):
    """Slow channel: gold answers taught to the adapter, through TRL; draws no rollouts."""

    trainer = "fastslow.channels.slow.sft:GoldTrainer"

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
    def learns_bare(self) -> bool:
        """Whether log-probabilities are conditioned on the problem alone."""
        return self.gradient_context == "bare"

    @property
    def has_reference(self) -> bool:
        """Whether rows are read once more without a gradient: never."""
        return False

    @property
    def rollouts_per_problem(self) -> int:
        """Completions drawn for one problem of an update: none."""
        return 0

    def rows_per_problem(self, texts: int) -> int:
        """Rows trained on for one problem of an update, with a population of `texts`."""
        return texts if self.gradient_context == "with_text" else 1


class DistillConfig(MinimalConfig):
    """Slow channel: the policy with more in its context teaches itself with less."""

    trainer = "fastslow.channels.slow.distill:DistillTrainer"

    kind: Literal["distill"] = key("distill", "name", "FST-distill, after arXiv 2601.20802")
    """Which slow channel."""
    teacher: Literal["text", "answer", "success"] = key("text", "name", "FST-distill")
    """What the teacher is shown: the rollout's prompt of the population (FST-distill); that and the
    gold answer as a last demonstration (SDFT, arXiv 2601.19897); or that and the first rollout of
    the group with full marks (SDPO, arXiv 2601.20802), groups without one being left out."""
    teacher_weights: Literal["start", "present", "base", "ema"] = key(
        "start", "name", "ours: frozen for a stage, it did not collapse in arXiv 2607.01763"
    )
    """With which weights the teacher predicts: as the stage found them, the present ones, the
    base's, or a running mean of the present ones."""
    ema_rate: PositiveFloat = key(0.05, "share", "SDPO's repository", le=1)
    """Share of the present weights in that mean after each update."""
    student: Literal["seed", "bare", "with_text"] = key("seed", "name", OURS)
    """What the student is shown: the task's seed prompt, the bare problem (FST-distill), or the
    rollout's prompt of the population."""
    draw_from: Literal["student", "teacher"] = key("student", "name", "on policy")
    """Whose completions are learned along; the teacher's are drawn under its prompt of the
    population with the present weights."""
    divergence: Literal["reverse", "forward"] = key("reverse", "name", "FST-distill; SDPO")
    """KL(student || teacher), or KL(teacher || student)."""
    only_where_better: bool = key(False, "switch", OURS)
    """Leave out problems on which the prompt's score in the fast phase before is not above the
    student's running pass rate."""
    group: int = key(8, "rollouts per problem", "as with kind: grpo", ge=1)
    """G: rollouts of one problem, over all prompts; the population size must divide it."""
    temperature: PositiveFloat = key(1.0, "temperature", "as with kind: grpo")
    """Sampling temperature of rollouts; divergences are taken at 1."""
    lr: PositiveFloat = key(3e-4, "1 / update", "as with kind: grpo")
    """Peak learning rate of AdamW."""
    warmup_steps: NonNegativeInt = key(2, "optimizer updates", "as with kind: grpo")
    """Updates over which the learning rate rises from 0, at the start of each stage."""
    weight_decay: NonNegativeFloat = key(0.0, "1 / update", "TRL's default")
    """AdamW's decoupled weight decay."""
    max_grad_norm: PositiveFloat = key(1.0, "L2 norm", "TRL's default")
    """Gradients longer than this are scaled down to it."""
    rows_per_forward: PositiveInt = key(64, "rows", "as with kind: grpo")
    """Rollouts in one forward and backward pass; gradients add up over passes."""
    lora: LoraConfig = Field(default_factory=LoraConfig)
    """The adapter."""

    @property
    def needs_start(self) -> bool:
        """Whether the teacher has the weights as the stage found them."""
        return self.teacher_weights == "start"

    @property
    def shows_answer(self) -> bool:
        """Whether the teacher is shown an answer."""
        return self.teacher != "text"

    @property
    def learns_bare(self) -> bool:
        """Whether divergences are conditioned on the problem alone, as far as costs go."""
        return self.student != "with_text"

    @property
    def has_reference(self) -> bool:
        """Whether rows are read once more without a gradient: by the teacher."""
        return True

    @property
    def rollouts_per_problem(self) -> int:
        """Completions drawn for one problem of an update."""
        return self.group

    def rows_per_problem(self, texts: int) -> int:
        """Rows trained on for one problem of an update, with a population of `texts`."""
        return self.group


SlowConfig = Annotated[
    Annotated[GrpoConfig, Tag("grpo")]
    | Annotated[SftConfig, Tag("sft")]
    | Annotated[DistillConfig, Tag("distill")],
    kind_among("grpo", "sft", "distill"),
]
"""The slow channel's section: one model per `kind`."""
