"""TRL's GRPOTrainer on our terms: our rollouts, one group across texts, the trie's log-probs.

TRL keeps the advantage and the losses. Overrides are of private methods, so trl is pinned and
tests hold our trainer against the stock one.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl import GRPOConfig, GRPOTrainer

from fastslow.channels.updates import clip_and_step
from fastslow.policy.policy import Policy
from fastslow.policy.trie import score_completions
from fastslow.prompts import Population, PromptProgram, assign_slots
from fastslow.seeds import derive_seed
from fastslow.task import Task
from fastslow.types import Batch, Completion, Example, Grade, Sampling, TokenIds

# `rollout_func` is marked experimental; the pin and the tests are our answer to that.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


@dataclass(frozen=True)
class GrpoSettings:
    """Settings of the slow channel; see `config.models.GrpoConfig`."""

    loss: str
    group: int
    lr: float
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    ratio_cap: float
    kl_coefficient: float
    temperature: float
    rows_per_forward: int


@dataclass(frozen=True)
class Rollout:
    """A completion with its reward."""

    program: PromptProgram
    example: Example
    completion: Completion
    grade: Grade


class FastSlowTrainer(GRPOTrainer):  # type: ignore[misc]  # trl is untyped
    """GRPOTrainer whose groups share a problem and differ in text.

    Args:
        policy: Trained in place; needs an adapter.
        task: Gives grader and completion limit.
        num_problems: Q, problems of one update.
        settings: Loss, group size and coefficients.
    """

    def __init__(
        self, policy: Policy, task: Task, num_problems: int, settings: GrpoSettings
    ) -> None:
        self.policy = policy
        self.task = task
        self.settings = settings
        self.rollouts: list[Rollout] = []
        self._problems: Sequence[Example] = ()
        self._slots: Sequence[PromptProgram] = ()
        self._seed = 0
        num_rows = num_problems * settings.group
        self.rows_per_pass = largest_divisor(num_rows, settings.rows_per_forward)
        self.num_passes = num_rows // self.rows_per_pass
        with tempfile.TemporaryDirectory() as unused:
            super().__init__(
                model=policy.model,
                reward_funcs=[self.graded_reward],
                args=self._arguments(unused),
                train_dataset=_one_row(),
                processing_class=policy.tokenizer,
                rollout_func=lambda prompts, trainer: self._draw(),
            )
        # With beta set at construction, TRL would copy the adapter as the reference. Set now,
        # its reference is the base: the same model with the adapter switched off.
        self.beta = settings.kl_coefficient
        self.current_gradient_accumulation_steps = self.num_passes

    def update(
        self, batch: Batch, slots: Sequence[PromptProgram], optimizer: Any, seed: int
    ) -> dict[str, float]:
        """Draw, grade and learn from the rollouts of one batch: exactly one optimizer step.

        Args:
            batch: Q problems.
            slots: The text of each of a problem's G rollouts.
            optimizer: Over the adapter's parameters.
            seed: Of the draws.

        Returns:
            Figures of this update by name, among them `reward`, `loss` and `grad_norm`.
        """
        self._problems, self._slots, self._seed = batch.examples, slots, seed
        placeholders = [{"prompt": ""} for _ in range(len(batch.examples) * self.settings.group)]
        model = self.accelerator.prepare_model(self.model)
        loss = sum(
            float(self.training_step(model, placeholders, None)) for _ in range(self.num_passes)
        )
        norm = clip_and_step(self.model, optimizer, self.settings.max_grad_norm)
        self.state.global_step += 1
        figures = {name: values[-1] for name, values in self._metrics["train"].items() if values}
        self._metrics["train"].clear()
        return _named(figures) | {"loss": loss, "grad_norm": norm}

    def slots(self, population: Population) -> tuple[PromptProgram, ...]:
        """The text of each of a problem's G rollouts."""
        return assign_slots(population, self.settings.group)

    def has_signal(self, figures: Mapping[str, float]) -> bool:
        """Whether a group of this update had different rewards."""
        return figures["zero_variance_frac"] < 1

    def sample_lines(self) -> list[str]:
        """The first rollout of each problem of the last update, readable; untrusted text."""
        return [
            f"text {rollout.program.text_hash} | {rollout.example.id}: "
            f"{rollout.example.question!r} -> {rollout.completion.text!r} | "
            f"reward {rollout.grade.score:g} ({rollout.grade.reason})"
            for rollout in self.rollouts[:: self.settings.group]
        ]

    def graded_reward(self, completions: list[str], **unused: Any) -> list[float]:
        """TRL's reward hook: the scores of the rollouts just drawn, in their order."""
        assert len(completions) == len(self.rollouts)
        return [rollout.grade.score for rollout in self.rollouts]

    def _draw(self) -> dict[str, Any]:
        """TRL's rollout hook: G rollouts per problem, each under the text of its slot."""
        requests = [(text, problem) for problem in self._problems for text in self._slots]
        seeds = [derive_seed(self._seed, "rollout", row) for row in range(len(requests))]
        sampling = Sampling(self.task.max_tokens, self.settings.temperature)
        completions = self.policy.complete(requests, sampling, seeds)
        self.rollouts = [
            Rollout(text, problem, completion, self.task.grade(problem, completion.text))
            for (text, problem), completion in zip(requests, completions, strict=True)
        ]
        prompts = [self.policy.renderer.prompt_ids(text, p.question) for text, p in requests]
        return {
            "prompt_ids": [list(ids) for ids in prompts],
            "completion_ids": [list(completion.token_ids) for completion in completions],
            "logprobs": None,
        }

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Roll out once per update and cut the rows into passes, in order.

        TRL would shuffle the rows first, which tears apart those that share a text.
        """
        if self._step % self.num_passes == 0:
            whole = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = [
                {
                    name: value[start : start + self.rows_per_pass]
                    if isinstance(value, torch.Tensor) and value.dim() > 0
                    else value
                    for name, value in whole.items()
                }
                for start in range(0, len(generation_batch), self.rows_per_pass)
            ]
        return self._buffered_inputs[self._step % self.num_passes]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *unused: Any,
        **unused_too: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """TRL's log-prob hook, over the unique tokens of the rows; zero on padding."""
        prompts, completions = unpad(input_ids, attention_mask, logits_to_keep)
        scored = score_completions(model, prompts, completions, self.settings.temperature)
        missing = logits_to_keep - scored.logprobs.shape[1]
        pad = torch.nn.functional.pad
        return pad(scored.logprobs, (0, missing)), pad(scored.entropies, (0, missing)), None

    def create_model_card(self, *unused: Any, **unused_too: Any) -> None:
        """No model card of TRL's; the run writes its own."""

    def _arguments(self, folder: str) -> GRPOConfig:
        return GRPOConfig(
            output_dir=folder,
            loss_type=self.settings.loss,
            epsilon_high=self.settings.ratio_cap if self.settings.loss == "cispo" else None,
            beta=0.0,
            num_generations=self.settings.group,
            max_completion_length=self.task.max_tokens,
            temperature=self.settings.temperature,
            per_device_train_batch_size=self.rows_per_pass,
            gradient_accumulation_steps=self.num_passes,
            steps_per_generation=self.num_passes,
            use_cpu=self.policy.model.device.type == "cpu",
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
        )


def unpad(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, completion_width: int
) -> tuple[list[TokenIds], list[TokenIds]]:
    """Undo TRL's padding: prompts padded on the left, completions on the right.

    Args:
        input_ids: [rows, prompt width + completion width].
        attention_mask: 1 on real tokens.
        completion_width: Columns that belong to completions.
    """
    cut = input_ids.shape[1] - completion_width
    prompts, completions = [], []
    for ids, mask in zip(input_ids.tolist(), attention_mask.tolist(), strict=True):
        prompts.append(tuple(t for t, real in zip(ids[:cut], mask[:cut], strict=True) if real))
        completions.append(tuple(t for t, real in zip(ids[cut:], mask[cut:], strict=True) if real))
    return prompts, completions


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`; both >= 1."""
    return next(n for n in range(min(number, limit), 0, -1) if number % n == 0)


def _one_row() -> Any:
    """A dataset TRL accepts; batches come from the anchor, never from here."""
    from datasets import Dataset

    return Dataset.from_list([{"prompt": ""}])


def _named(figures: dict[str, float]) -> dict[str, float]:
    """TRL's figures under our names; the others stay out of the record."""
    names = {
        "reward": "reward",
        "reward_std": "reward_std",
        "frac_reward_zero_std": "zero_variance_frac",
        "kl": "kl_k3_tuned_base",
        "entropy": "entropy",
        "completions/mean_length": "completion_tokens",
        "completions/clipped_ratio": "unfinished_frac",
    }
    return {ours: float(figures[theirs]) for theirs, ours in names.items() if theirs in figures}
