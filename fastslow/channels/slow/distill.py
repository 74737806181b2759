"""Distillation: the policy with more in its context teaches itself with less.

Shown its evolved prompt it is FST-distill (after arXiv 2601.20802), a worked answer SDFT (arXiv
2601.19897), a success of the same group SDPO (arXiv 2601.20802). On the student's own draws, exact
over the vocabulary, without TRL, whose trainers own prompts, sampling and padding.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from fastslow.channels.slow.difficulty import DifficultyGate, PassRates
from fastslow.channels.slow.group_settings import DifficultyConfig
from fastslow.channels.slow.passes import PassSize
from fastslow.channels.slow.remedies.base import TaughtRow, Teacher
from fastslow.channels.slow.rollouts import (
    Request,
    Rollout,
    draw_shared,
    evidence_of,
    groups_of,
)
from fastslow.channels.slow.settings import DistillConfig
from fastslow.channels.slow.teaching import teach
from fastslow.channels.slow.trainer import Finish, Updates
from fastslow.core.distributed import from_all, num_processes, own_share
from fastslow.core.prompts import BARE, Candidate, PromptProgram, assign_slots
from fastslow.core.seeds import derive_seed
from fastslow.core.types import FULL_MARKS, Batch, Evidence, Example, TokenIds
from fastslow.policy.policy import Policy, seed_program
from fastslow.task.definition import Task

GATE_FIGURES = ("band_", "alarm/", "duplicate_frac", "repetition_frac")
"""Beginnings of the names of the difficulty gate's figures that mean something here."""


@dataclass(frozen=True)
class Slot:
    """A problem with one prompt of the population, to be drawn once."""

    task: Task
    candidate: Candidate
    example: Example


class DistillTrainer(Updates):
    """Makes updates from divergences to a better-informed self; see `DistillConfig`.

    With several processes each draws and learns its share of an update's rows. Arguments are those
    of `MakeUpdates`.
    """

    def __init__(
        self, policy: Policy, tasks: Mapping[str, Task], num_problems: int, settings: DistillConfig
    ) -> None:
        self.policy = policy
        self.tasks = tasks
        self.settings = settings
        self.pass_size = PassSize(settings.rows_per_forward, settings.tokens_per_forward)
        self.pass_rates = PassRates(DifficultyConfig())
        self.gate = DifficultyGate(DifficultyConfig(), self.pass_rates)
        self.rollouts: list[Rollout] = []
        """Of the last update, all processes'."""
        self.rows: list[TaughtRow] = []
        """Of the last update, this process's."""
        self._alarms: tuple[str, ...] = ()
        self._mean_weights: dict[str, torch.Tensor] = {}
        if settings.teacher_weights == "ema":
            self._mean_weights = policy.adapters.copied()

    def update(self, batch: Batch, seed: int, finish: Finish) -> dict[str, float]:
        """Draw, grade and learn along the rollouts of one batch: at most one optimizer step.

        Returns:
            `loss`, the divergence from student to teacher before the step (mean over rows of the
            mean over tokens, nats); `taught_rows`; `student_score` of the rollouts and, where the
            prompts were scored on these problems, `teacher_score`, in [0, 1]; `unfinished_frac`;
            alarms and bands as `DifficultyGate` has them; the figures of `finish`. See
            `Updates.update`.
        """
        slots = [
            Slot(self.tasks[name], candidate, problem)
            for name, problem in batch.rows
            for candidate in self._candidates(self.tasks[name])
        ]
        seeds = [derive_seed(seed, "rollout", number) for number in range(len(slots))]
        requests = [Request(slot.task, self._drawn_under(slot), slot.example) for slot in slots]
        self.rollouts = draw_shared(self.policy, requests, self.settings.temperature, seeds)
        verdict = self.gate.judge(groups_of(self.rollouts, self.settings.group))
        self._alarms = verdict.alarms
        figures = {n: v for n, v in verdict.metrics.items() if n.startswith(GATE_FIGURES)}
        figures |= self._scores(slots)

        self.rows = sorted(self._rows(slots), key=lambda row: row.prompt + row.completion)
        num_rows = sum(from_all(len(self.rows)))
        figures["taught_rows"] = float(num_rows)
        if not num_rows:
            return figures | {"skipped_updates": 1.0}
        loss = fmean(from_all(self._backward(num_rows)))
        ending = finish()
        self._follow()
        return figures | ending | {"skipped_updates": 0.0, "loss": loss}

    def _backward(self, num_rows: int) -> float:
        """Loss and gradient of this process's rows, whose mean over processes is that of all."""
        share = len(self.rows) * num_processes() / num_rows

        def passes(size: int) -> float:
            loss = 0.0
            for summand in teach(self.policy, self.rows, size):
                (share * summand).backward()  # type: ignore[no-untyped-call]  # torch's own
                loss += share * float(summand.detach())
            return loss

        def undo() -> None:  # zeros, not None: every process has a gradient to average
            for weight in self.policy.adapters.trainable().values():
                weight.grad = torch.zeros_like(weight)

        undo()
        sequences = [row.prompt + row.completion for row in self.rows]
        return self.pass_size.fit(passes, undo, sequences) if self.rows else 0.0

    def _rows(self, slots: Sequence[Slot]) -> Iterator[TaughtRow]:
        """This process's rollouts that there is something to learn along."""
        settings, renderer = self.settings, self.policy.renderer
        successes = self._successes()
        weights = self._mean_weights or settings.teacher_weights
        assert weights != "ema"
        local = own_share(len(slots))
        for slot, rollout in zip(slots[local], self.rollouts[local], strict=True):
            informed = self._informed(slot, successes)
            if informed is None or (settings.only_where_better and not self._is_better(slot)):
                continue
            prompt = renderer.prompt_ids(self._student(slot), slot.example.question)
            if informed != prompt:
                teacher = Teacher(weights, informed, settings.divergence)
                yield TaughtRow(prompt, rollout.completion.token_ids, teacher=teacher)

    def _successes(self) -> dict[tuple[str, str], str]:
        """Of each problem the first rollout with full marks, by task and example."""
        firsts: dict[tuple[str, str], str] = {}
        for rollout in self.rollouts:
            if rollout.grade.score >= FULL_MARKS:
                firsts.setdefault((rollout.task, rollout.example.id), rollout.completion.text)
        return firsts

    def _informed(self, slot: Slot, successes: Mapping[tuple[str, str], str]) -> TokenIds | None:
        """The teacher's prompt for a problem; None where it would know no more."""
        renderer, program = self.policy.renderer, slot.candidate.program
        question, answer = slot.example.question, slot.example.answer
        if self.settings.teacher == "text":
            return renderer.prompt_ids(program, question)
        if self.settings.teacher == "success":
            success = successes.get((slot.task.name, slot.example.id))
            if success is None:
                return None
            answer = success
        return renderer.informed_ids(program, question, answer)

    def _student(self, slot: Slot) -> PromptProgram:
        if self.settings.student == "bare":
            return BARE
        if self.settings.student == "seed":
            return seed_program(slot.task)
        return slot.candidate.program

    def _drawn_under(self, slot: Slot) -> PromptProgram:
        is_on_policy = self.settings.draw_from == "student"
        return self._student(slot) if is_on_policy else slot.candidate.program

    def _is_better(self, slot: Slot) -> bool:
        """Whether the prompt solved more than the student does, where the prompt was scored."""
        score = slot.candidate.scores.get(slot.example.id)
        return score is None or score > self.pass_rates.rates[slot.task.name][slot.example.id]

    def _candidates(self, task: Task) -> list[Candidate]:
        """The prompt of each of the G slots."""
        population = self.policy.population(task)
        by_hash = {candidate.program.text_hash: candidate for candidate in population}
        return [by_hash[p.text_hash] for p in assign_slots(population, self.settings.group)]

    def _scores(self, slots: Sequence[Slot]) -> dict[str, float]:
        """What students scored, and prompts in the fast phase before."""
        greedy = [slot.candidate.scores.get(slot.example.id) for slot in slots]
        scored = [score for score in greedy if score is not None]
        unfinished = sum(r.completion.finish == "length" for r in self.rollouts)
        figures = {
            "student_score": fmean(r.grade.score for r in self.rollouts),
            "unfinished_frac": unfinished / len(self.rollouts),
        }
        return figures | ({"teacher_score": fmean(scored)} if scored else {})

    @torch.no_grad()
    def _follow(self) -> None:
        """Take the running mean of the weights a step towards the present ones."""
        for name, weight in self.policy.adapters.trainable().items():
            if name in self._mean_weights:
                self._mean_weights[name].lerp_(weight, self.settings.ema_rate)

    def has_signal(self, figures: Mapping[str, float]) -> bool:
        """Whether student and teacher predicted differently."""
        return not figures["skipped_updates"] and figures["loss"] > 0

    def scored_rows(self) -> list[tuple[TokenIds, TokenIds]]:
        """The student's prompt and the completion of every row of the last update."""
        return [(row.prompt, row.completion) for row in self.rows]

    def row_logprobs(self) -> Iterable[float]:
        """Of every token drawn for the last update, in nats."""
        return (p for rollout in self.rollouts for p in rollout.completion.logprobs)

    def sample_lines(self) -> list[str]:
        """One rollout of every group, and what set off an alarm; untrusted text."""
        firsts = [
            f"text {r.program.text_hash} | {r.example.id}: {r.example.question!r} -> "
            f"{r.completion.text!r} | score {r.grade.score:g} ({r.grade.reason})"
            for r in self.rollouts[:: self.settings.group]
        ]
        return [*firsts, *(f"alarm | {alarm}" for alarm in self._alarms)]

    def evidence(self) -> list[Evidence]:
        """Of each problem the first full success and the first failure, all processes' alike."""
        return evidence_of(self.rollouts)

    def progress(self) -> dict[str, Any]:
        """The running pass rates and the rows of a pass, as plain data."""
        return {"difficulty": self.gate.to_json()} | super().progress()

    def tensors(self) -> dict[str, torch.Tensor]:
        """The running mean of the weights, where the teacher has it."""
        return dict(self._mean_weights)

    def restore(
        self, progress: Mapping[str, Any], tensors: Mapping[str, torch.Tensor] | None = None
    ) -> None:
        """Take back what `progress` and `tensors` gave."""
        self.gate.load(progress["difficulty"])
        for name, mean in self._mean_weights.items():
            mean.copy_((tensors or {})[name])
        super().restore(progress)
