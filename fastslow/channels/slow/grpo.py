"""TRL's GRPOTrainer on our terms: our rollouts, one group across texts, the trie's log-probs.

TRL keeps the advantage and the losses. Overrides are of private methods, so trl is pinned and
tests hold our trainer against the stock one.
"""

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOTrainer

from fastslow.channels.slow.advantages import (
    WEIGHT,
    Rows,
    cut_passes,
    gated_advantages,
    loss_tokens,
    loss_weights,
    taken,
)
from fastslow.channels.slow.difficulty import DifficultyGate, PassRates, Verdict
from fastslow.channels.slow.elsewhere import Mismatch, compare
from fastslow.channels.slow.guidance import add_gradient, draw_with_hints, guided, taught_rows
from fastslow.channels.slow.passes import PassSize
from fastslow.channels.slow.remedies.base import TaughtRow
from fastslow.channels.slow.rollouts import (
    Request,
    Rollout,
    draw_shared,
    evidence_of,
    groups_of,
    readable_lines,
    requests_of,
    reward_figures,
    token_rows,
)
from fastslow.channels.slow.settings import GrpoConfig
from fastslow.channels.slow.signal_bands import read_values, signal_bands
from fastslow.channels.slow.trainer import Finish, Updates, leave_routers_alone
from fastslow.channels.slow.trl_rows import (
    NO_LOSS_TOKENS,
    largest_divisor,
    our_figures,
    score_rows,
    trl_arguments,
    unpad,
    weighted_mean,
)
from fastslow.core.distributed import from_all, num_processes, process_index
from fastslow.core.errors import ChannelError
from fastslow.core.prompts import BARE
from fastslow.core.seeds import derive_seed
from fastslow.core.types import Anchor, Batch, Evidence, TokenIds
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task

# `rollout_func` is marked experimental; the pin and the tests are our answer to that.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


class FastSlowTrainer(GRPOTrainer, Updates):  # type: ignore[misc]  # trl is untyped
    """GRPOTrainer whose groups share a problem and differ in text.

    With several processes each draws and scores its share of an update's rows; rewards are
    normalised over whole groups and gradients averaged, so all take the same step. Arguments are
    those of `MakeUpdates`.
    """

    def __init__(
        self, policy: Policy, tasks: Mapping[str, Task], num_problems: int, settings: GrpoConfig
    ) -> None:
        self.policy = policy
        self.tasks = tasks
        self.settings = settings
        self.signal_bands = signal_bands(settings)
        bands = self.signal_bands.get("difficulty", PassRates(settings.difficulty))
        self.gate = DifficultyGate(settings.difficulty, bands)
        self.rollouts: list[Rollout] = []
        """Of the last update, drawn without a hint."""
        self.loss_rollouts: list[Rollout] = []
        """The same, but for groups that a hint rescued: those are as they were drawn under it."""
        self.guidance_figures: dict[str, float] = {}
        self.verdict: Verdict | None = None
        self.mismatch = Mismatch.none()
        self._passes: list[Rows] = []
        self._requests: Sequence[Request] = ()
        self._seed = 0
        self.num_local_rows = num_problems * settings.group // num_processes()
        most = largest_divisor(self.num_local_rows, settings.rows_per_forward)
        self.pass_size = PassSize(most, settings.tokens_per_forward)
        num_passes = self.num_local_rows // self.pass_size.rows
        limit = max(task.max_tokens for task in tasks.values())
        with tempfile.TemporaryDirectory() as unused:
            super().__init__(
                model=policy.module,
                reward_funcs=[self.graded_reward],
                args=trl_arguments(
                    settings,
                    self.num_local_rows,
                    num_passes,
                    limit,
                    output_dir=unused,
                    use_cpu=policy.device == "cpu",
                ),
                train_dataset=Dataset.from_list([{"prompt": ""}]),  # of no use but to TRL
                processing_class=policy.tokenizer,
                rollout_func=lambda prompts, trainer: self._draw(),
            )
        leave_routers_alone(self)
        # With beta set at construction, TRL would copy the adapter as the reference. Set now,
        # its reference is the base: the same model with the adapter switched off.
        self.beta = settings.kl_coefficient
        self._expect_passes(num_passes)

    def update(self, batch: Batch, seed: int, finish: Finish) -> dict[str, float]:
        """Draw, grade and learn from the rollouts of one batch: at most one optimizer step.

        If no group is kept or guided there is nothing to learn: no forward pass, no step. KL and
        AdamW's momentum alone would otherwise move the weights. `loss` is that of the rewards:
        an update of guided groups alone has none. See `Updates.update`.

        Raises:
            ChannelError: The loss would cover no token although rewards differ.
        """
        self._seed = seed
        self._requests = requests_of(self.policy, self.tasks, batch, self.settings.group)
        placeholders = [{"prompt": ""} for _ in range(self.num_local_rows)]
        rows = self._generate_and_score_completions(placeholders)
        assert self.verdict is not None
        is_kept, taught = any(self.verdict.trained), list[TaughtRow]()
        if answer := self.settings.answer:
            taught = taught_rows(self.policy, self.rollouts, self._guided, self.settings)
            num_groups = len(taught) / self.settings.group
            self.guidance_figures = {"guidance/guided_groups": num_groups}
        if not (is_kept or taught):
            return self._figures([]) | {"skipped_updates": 1.0}
        ending, tokens = {"skipped_updates": 0.0}, list[float]()
        if is_kept:
            ending["loss"], passes = self._backward(rows, placeholders)
            # A process whose groups were all dropped has no loss token; then others have
            shares = zip(*from_all([loss_tokens(part) for part in passes]), strict=True)
            tokens = [sum(of_pass) for of_pass in shares]
        if answer and taught:
            ending |= add_gradient(self.policy, taught, answer.strength, self.pass_size)
        ending |= finish()
        self.state.global_step += 1
        return self._figures(tokens) | ending

    def begin_cycle(self, anchor: Anchor) -> None:
        """Read the signals that decide something in this cycle."""
        read_values(self.policy, self.tasks, anchor, list(self.signal_bands.values()))

    @property
    def _guided(self) -> list[int]:
        """Places of the groups to guide among those of the last draw."""
        return guided(self.rollouts, self.settings, self.signal_bands.get("guidance"))

    def _backward(self, rows: Rows, placeholders: Any) -> tuple[float, list[Rows]]:
        """Loss and gradient of all rows, in as few passes as the memory takes; and the passes.

        Sorted, so that a pass has all rows of a prompt before it has rows of another.
        """
        mine = self.loss_rollouts[self._local]
        sequences = [self._loss_prompt(r) + r.completion.token_ids for r in mine]
        order = sorted(range(len(sequences)), key=sequences.__getitem__)
        rows = taken(rows, order)
        figures = {name: list(values) for name, values in self._metrics["train"].items()}

        def passes(size: int) -> tuple[float, list[Rows]]:
            # as many passes in every process: TRL gathers figures in each
            size = largest_divisor(self.num_local_rows, min(from_all(size)))
            cut = cut_passes(rows, size)
            self._passes = cut.copy()
            self._expect_passes(len(cut))
            return sum(float(self.training_step(self.model, placeholders, None)) for _ in cut), cut

        def undo() -> None:
            self.model.zero_grad()
            self._metrics["train"].clear()
            self._metrics["train"].update({name: list(old) for name, old in figures.items()})

        return self.pass_size.fit(passes, undo, [sequences[i] for i in order])

    def _expect_passes(self, number: int) -> None:
        """Tell TRL in how many passes an update comes, wherever its losses look for it."""
        self.args.gradient_accumulation_steps = self.args.steps_per_generation = number
        self.current_gradient_accumulation_steps = number

    def has_signal(self, figures: Mapping[str, float]) -> bool:
        """Whether a group was kept, so that its rewards differ, or a teacher knew better."""
        return figures["effective_groups"] > 0 or figures.get("guidance/loss", 0.0) > 0

    def row_logprobs(self) -> Iterable[float]:
        """Of every token drawn for the last update, in nats."""
        rollouts = (*self.rollouts, *(r for r in self.loss_rollouts if r.hint))
        return (p for rollout in rollouts for p in rollout.completion.logprobs)

    def sample_lines(self) -> list[str]:
        """One rollout of every group, those of rescued groups, and alarms; untrusted text."""
        assert self.verdict is not None
        size = self.settings.group
        hinted = [r for r in self.loss_rollouts[::size] if r.hint]
        lines = readable_lines([*self.rollouts[::size], *hinted], "reward")
        return [*lines, *(f"alarm | {alarm}" for alarm in self.verdict.alarms)]

    def evidence(self) -> list[Evidence]:
        """Of each problem the first full success and the first failure, all processes' alike."""
        return evidence_of(self.rollouts)

    def progress(self) -> dict[str, Any]:
        """The gate's state, values of signals, and the rows of a pass, as plain data."""
        signals = {name: bands.values for name, bands in self.signal_bands.items()}
        return {"difficulty": self.gate.to_json(), "signals": signals} | super().progress()

    def restore(
        self, progress: Mapping[str, Any], tensors: Mapping[str, torch.Tensor] | None = None
    ) -> None:
        """Take back what `progress` gave."""
        self.gate.load(progress["difficulty"])
        for name, bands in self.signal_bands.items():
            bands.values = progress["signals"][name]
        super().restore(progress)

    def scored_rows(self) -> list[tuple[TokenIds, TokenIds]]:
        """Prompt and completion of every rollout of the last update, drawn without a hint."""
        return token_rows(self.policy, self.rollouts)

    def graded_reward(self, completions: list[str], **unused: Any) -> list[float]:
        """TRL's reward hook: the scores of the rollouts this process has just drawn, in order."""
        mine = self.loss_rollouts[self._local]
        assert len(completions) == len(mine)
        return [rollout.grade.score for rollout in mine]

    def _draw(self) -> dict[str, Any]:
        """TRL's rollout hook: G rollouts per problem, each drawn under the text of its slot.

        The prompts it returns are those of the loss and of the KL reference: with the text, or the
        bare problem (context distillation, P2O, arXiv 2603.21877). No old log-probabilities: with
        one step per batch the ratio is 1 under either context. The ratio of bare to with-text
        probabilities would be about 0 just where the text is needed.
        """
        temperature, requests = self.settings.temperature, self._requests
        seeds = [derive_seed(self._seed, "rollout", number) for number in range(len(requests))]
        self.rollouts = draw_shared(self.policy, requests, temperature, seeds)
        self.loss_rollouts, self.guidance_figures = self.rollouts, {}
        if hints := self.settings.hints:
            self.loss_rollouts, self.guidance_figures = draw_with_hints(
                self.policy,
                requests,
                self.rollouts,
                self._guided,
                self.settings,
                hints,
                self._seed,
            )
        mine = self.loss_rollouts[self._local]
        return {
            "prompt_ids": [list(self._loss_prompt(rollout)) for rollout in mine],
            "completion_ids": [list(rollout.completion.token_ids) for rollout in mine],
            "logprobs": None,
        }

    def _loss_prompt(self, rollout: Rollout) -> TokenIds:
        """What the log-probabilities of a rollout are conditioned on."""
        prompt_ids, question = self.policy.renderer.prompt_ids, rollout.example.question
        if self.settings.gradient_context == "bare":
            return prompt_ids(BARE, question)
        return prompt_ids(rollout.program, question, rollout.hint)

    def _generate_and_score_completions(self, inputs: Any) -> Rows:
        """TRL's draw and advantage, then the gate: zeros, caps, and CISPO's weights."""
        self.model.train()
        rows: Rows = super()._generate_and_score_completions(inputs)
        size = self.settings.group
        self.verdict = self.gate.judge(
            groups_of(self.rollouts, size),
            {
                place: group
                for place, group in enumerate(groups_of(self.loss_rollouts, size))
                if self.loss_rollouts[place * size].hint
            },
        )
        shape = (-1, self.settings.group)
        mask = rows["completion_mask"]
        gather = self.accelerator.gather  # groups are whole only over all processes
        advantages = gather(rows["advantages"]).view(shape)
        tokens = gather(mask.sum(dim=1)).float().view(shape)
        trained = torch.tensor(self.verdict.trained, device=advantages.device)
        lucky = torch.tensor(self.verdict.lucky, device=advantages.device)
        if trained.any() and not tokens[trained].any():
            raise ChannelError(NO_LOSS_TOKENS)
        cap = self.settings.difficulty.lucky_cap
        gated = gated_advantages(advantages, trained, lucky, cap)
        self.mismatch = compare(self.policy, self.loss_rollouts[self._local], self.pass_size)
        rows["advantages"] = self.mismatch.weigh(gated.flatten()[self._local])
        if self.settings.loss == "cispo":
            weights = loss_weights(tokens, trained, self.settings.averaging).flatten()[self._local]
            rows[WEIGHT] = weights[:, None].expand(mask.shape)
        return rows

    @property
    def _local(self) -> slice:
        """This process's rows among those of all processes."""
        first = self.num_local_rows * process_index()
        return slice(first, first + self.num_local_rows)

    def _figures(self, pass_tokens: Sequence[float]) -> dict[str, float]:
        """TRL's figures under our names and the gate's; clears TRL's.

        What TRL measures in every pass is averaged over passes by their loss tokens.
        """
        assert self.verdict is not None
        figures = {
            name: weighted_mean(values, pass_tokens)
            if len(values) == len(pass_tokens)
            else values[-1]
            for name, values in self._metrics["train"].items()
            if values
        }
        self._metrics["train"].clear()
        figures = our_figures(figures)
        if self.settings.hints:  # those of TRL are of the rollouts in the loss
            figures |= reward_figures(self.rollouts)
        unfinished = sum(r.completion.finish == "length" for r in self.rollouts)
        figures["unfinished_frac"] = unfinished / len(self.rollouts)
        figures |= self.guidance_figures | self.mismatch.figures
        return figures | dict(self.verdict.metrics)

    def _prepare_inputs(self, generation_batch: Any) -> Rows:
        """The next pass of this update; `update` has drawn and cut them, in order.

        TRL would shuffle the rows first, which tears apart those that share a text.
        """
        return self._passes.pop(0)

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
        if not any(completions):
            raise ChannelError(NO_LOSS_TOKENS)
        score = partial(
            score_rows, model, prompts, completions, logits_to_keep, self.settings.temperature
        )
        if torch.is_grad_enabled():  # one of the passes of `_backward`
            return *score(len(prompts)), None
        # the reference's, asked for all rows at once
        return *self.pass_size.fit(score, undo=lambda: None), None
