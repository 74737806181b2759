"""TRL's SFTTrainer on our terms: gold answers under the population's texts, the trie's log-probs.

TRL keeps which tokens carry loss and how passes add up. Its hooks are private, so trl is pinned
and a test holds our loss and gradient against the stock trainer's.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from trl import SFTConfig as TrlSftConfig
from trl import SFTTrainer

from fastslow.channels.slow.passes import PassSize
from fastslow.channels.slow.settings import SftConfig
from fastslow.channels.slow.trainer import Finish, Updates, leave_routers_alone, silent_arguments
from fastslow.core.errors import ChannelError
from fastslow.core.prompts import BARE, PromptProgram
from fastslow.core.samples import sample_line
from fastslow.core.types import Batch, Example, TokenIds
from fastslow.policy.engine.head import evaluating
from fastslow.policy.engine.layouts import score_completions
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task

IGNORED = -100
"""TRL's label of a token that carries no loss."""


@dataclass(frozen=True)
class GoldRow:
    """A problem under one text, with its gold answer."""

    task: Task
    program: PromptProgram
    example: Example
    prompt: TokenIds
    answer: TokenIds
    """Ends with the stop token, so never empty."""

    def tokens(self) -> TokenIds:
        """The whole row."""
        return self.prompt + self.answer

    def to_trl(self) -> dict[str, list[int]]:
        """The row as TRL's pre-tokenized data: every token, and which belong to the completion."""
        return {
            "input_ids": [*self.prompt, *self.answer],
            "completion_mask": [0] * len(self.prompt) + [1] * len(self.answer),
        }


class GoldTrainer(SFTTrainer, Updates):  # type: ignore[misc]  # trl is untyped
    """SFTTrainer whose rows are the problems of a batch, each under every text.

    With several processes each makes the whole update; it is cheap, as nothing is drawn. Arguments
    are those of `MakeUpdates`.
    """

    loss_is_scaled_for_ga = True  # `compute_loss` divides by the tokens of all passes

    def __init__(
        self, policy: Policy, tasks: Mapping[str, Task], num_problems: int, settings: SftConfig
    ) -> None:
        disable_progress_bars()
        self.policy = policy
        self.tasks = tasks
        self.num_problems = num_problems
        self.settings = settings
        self.pass_size = PassSize(settings.rows_per_forward, settings.tokens_per_forward)
        self.rows: list[GoldRow] = []
        self.logprobs: list[float] = []
        """Of each row's whole answer, in nats, before the last update."""
        with tempfile.TemporaryDirectory() as unused:
            super().__init__(
                model=policy.module,
                args=sft_arguments(unused, policy.device, settings.rows_per_forward),
                train_dataset=Dataset.from_list([{"input_ids": [0], "completion_mask": [1]}]),
                processing_class=policy.tokenizer,
            )
        leave_routers_alone(self)

    def update(self, batch: Batch, seed: int, finish: Finish) -> dict[str, float]:
        """Learn the gold answers of one batch: exactly one optimizer step. Draws nothing.

        Returns:
            `loss` (mean over answer tokens, nats), `gold_logprob` (of a whole answer with its
            stop token, mean over rows, nats, before the update), `loss_tokens`, `overlong_frac`
            (share of rows whose answer is longer than the task's limit), `rollouts` and
            `skipped_updates`, which are 0, and the figures of `finish`.

        Raises:
            ChannelError: No token carries loss.
        """
        assert len(batch.examples) == self.num_problems
        self.rows = [
            self._row(self.tasks[name], text, problem)
            for name, problem in batch.rows
            for text in self._texts(self.tasks[name])
        ]
        order = sorted(range(len(self.rows)), key=lambda row: self.rows[row].tokens())
        labelled = self.labelled([self.rows[row] for row in order])
        tokens = sum(label != IGNORED for row in labelled for label in row["labels"])
        if tokens == 0:
            ids = ", ".join(example.id for example in batch.examples)
            raise ChannelError(
                f"slow: no token carries loss, got {len(self.rows)} rows without a token of their "
                f"answers. Its problems: {ids}. Check that TRL still masks by `completion_mask`."
            )

        def passes(size: int) -> float:
            self.logprobs = []
            loss = 0.0
            for start in range(0, len(labelled), size):
                inputs = self.data_collator(labelled[start : start + size])
                loss += float(self.training_step(self.model, inputs, torch.tensor(tokens)))
            return loss

        sequences = [self.rows[row].tokens() for row in order]
        loss = self.pass_size.fit(passes, self.model.zero_grad, sequences)
        self.logprobs = [value for _, value in sorted(zip(order, self.logprobs, strict=True))]
        ending = finish()
        self.state.global_step += 1
        return ending | {
            "skipped_updates": 0.0,
            "loss": loss,
            "gold_logprob": sum(self.logprobs) / len(self.logprobs),
            "loss_tokens": float(tokens),
            "overlong_frac": fmean(len(row.answer) > row.task.max_tokens for row in self.rows),
            "rollouts": 0.0,
        }

    def has_signal(self, figures: Mapping[str, float]) -> bool:
        """Whether an answer was not yet certain to the last bit."""
        return figures["loss"] > 0

    def scored_rows(self) -> list[tuple[TokenIds, TokenIds]]:
        """Prompt and gold answer of every row of the last update, in this process."""
        return [(row.prompt, row.answer) for row in self.rows]

    def row_logprobs(self) -> Iterable[float]:
        """Of each gold answer of the last update, in nats."""
        return self.logprobs

    def sample_lines(self) -> list[str]:
        """The first row of each problem of the last update, readable; untrusted text."""
        per_problem = len(self.rows) // self.num_problems
        pairs = list(zip(self.rows, self.logprobs, strict=True))[::per_problem]
        return [
            sample_line(
                row.program.text_hash,
                row.example.id,
                row.example.question,
                row.example.answer,
                f"gold, log-prob {logprob:.3f}",
            )
            for row, logprob in pairs
        ]

    def labelled(self, rows: Sequence[GoldRow]) -> list[dict[str, list[int]]]:
        """Rows as TRL trains on them: `input_ids`, and `labels` that are IGNORED on prompts."""
        dataset = Dataset.from_list([row.to_trl() for row in rows])
        prepared = self._prepare_dataset(
            dataset, self.policy.tokenizer, self.args, False, None, "train"
        )
        return list(prepared)

    def compute_loss(
        self,
        model: Any,
        inputs: Mapping[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """TRL's loss hook, over the unique tokens of the rows.

        As in the stock trainer: the negative log-probabilities of labelled tokens, summed, over
        the number of labelled tokens in all passes of the update.
        """
        assert num_items_in_batch is not None
        assert not return_outputs
        prompts, answers = split_labelled(
            inputs["input_ids"], inputs["attention_mask"], inputs["labels"]
        )
        with evaluating(model):
            logprobs = score_completions(model, prompts, answers).logprobs
        self.logprobs += logprobs.detach().sum(-1).tolist()
        return -logprobs.sum() / num_items_in_batch

    def _texts(self, task: Task) -> tuple[PromptProgram, ...]:
        """Every text of the task once, or no text: each problem becomes one row per text."""
        if self.settings.gradient_context == "bare":
            return (BARE,)
        return tuple(candidate.program for candidate in self.policy.population(task))

    def _row(self, task: Task, text: PromptProgram, problem: Example) -> GoldRow:
        renderer = self.policy.renderer
        prompt = renderer.prompt_ids(text, problem.question)
        return GoldRow(task, text, problem, prompt, renderer.answer_ids(problem.answer))


def sft_arguments(folder: str, device: str, rows: int) -> TrlSftConfig:
    """TRL's arguments: completion-only loss over whole rows."""
    return silent_arguments(
        TrlSftConfig,
        output_dir=folder,
        completion_only_loss=True,
        max_length=None,
        per_device_train_batch_size=rows,
        use_cpu=device == "cpu",
    )


def split_labelled(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
) -> tuple[list[TokenIds], list[TokenIds]]:
    """Undo TRL's padding: what comes before the labelled end of each row, and that end.

    All are [rows, width]; labels are the token where it carries loss, IGNORED elsewhere.
    """
    prompts, answers = [], []
    for ids, mask, targets in zip(
        input_ids.tolist(), attention_mask.tolist(), labels.tolist(), strict=True
    ):
        real = [(t, to) for t, on, to in zip(ids, mask, targets, strict=True) if on]
        cut = sum(to == IGNORED for _, to in real)
        assert [to for _, to in real[cut:]] == [token for token, _ in real[cut:]]
        prompts.append(tuple(token for token, _ in real[:cut]))
        answers.append(tuple(token for token, _ in real[cut:]))
    return prompts, answers
