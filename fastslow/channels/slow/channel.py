"""The slow channel: T updates of the adapter, with the texts frozen.

A trainer knows what an update learns from: rollouts (`grpo.py`), gold answers (`sft.py`) or a
better-informed self (`distill.py`).
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fastslow.channels.base import Adaptation, Assessor, RemedyReport, StepLog
from fastslow.channels.slow.remedies.base import Ended, Stage, Update
from fastslow.channels.slow.remedies.stack import Remedies
from fastslow.channels.slow.settings import SlowConfig
from fastslow.channels.slow.trainer import MakeUpdates, Updates, finish_update, require_effect
from fastslow.core.decode import shaped
from fastslow.core.distributed import from_all
from fastslow.core.errors import ChannelError, CheckpointError
from fastslow.core.files import read_json
from fastslow.core.seeds import derive_seed, kept_generators
from fastslow.core.types import Anchor, Batch, Evidence
from fastslow.policy.engine.interface import RemoteSampler
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task


@dataclass
class Phase:
    """A slow phase so far; saved with a resume point that is made within it."""

    stage: int
    cycle: int
    weights: str
    """Fingerprint of the adapter at its start."""
    texts: str
    """Fingerprint of the texts at its start."""
    figures: list[dict[str, float]] = field(default_factory=list)
    """Of each batch so far."""
    samples: list[str] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    learned: bool = False
    """Whether an update had something to learn from."""
    rollouts: int = 0
    """Completions drawn, in all processes."""
    tokens: int = 0
    """Of those completions."""
    seconds: float = 0.0


OPTIMIZER_FILE = "optimizer.safetensors"
TRAINER_FILE = "trainer.safetensors"
STATE_FILE = "slow.json"
REMEDIES_FOLDER = "remedies"
COUNTS = ("skipped_updates", "alarm/")
"""Beginnings of the names of figures that are counted, not averaged."""


class SlowChannel:
    """Trains the adapter; optimizer state lives as long as a stage.

    `visits` has the task of every stage and whether it trains weights; `stage_lrs` the peak
    learning rate of stages, by index, that have one of their own; `seed` is the run's.
    """

    name = "slow"

    def __init__(
        self,
        settings: SlowConfig,
        make_trainer: MakeUpdates,
        remedies: Remedies | None = None,
        *,
        visits: Sequence[tuple[Task, bool]] = (),
        stage_lrs: Mapping[int, float] | None = None,
        seed: int = 0,
    ) -> None:
        self.settings = settings
        self._make_trainer = make_trainer
        self._remedies = remedies or Remedies()
        self._visits = visits
        self._stage_lrs = dict(stage_lrs or {})
        self._seed = seed
        self._has_effect = False
        self._stage: int | None = None
        self._step = 0
        self._trainer: Updates | None = None
        self._optimizer: torch.optim.AdamW | None = None
        self._loaded: dict[str, torch.Tensor] | None = None
        self._progress: dict[str, Any] | None = None
        self._tensors: dict[str, torch.Tensor] = {}
        self._phase: Phase | None = None

    def begin(self, policy: Policy, task: Task, stage: int, *, takes_part: bool) -> None:
        """Get adapter and remedies ready for a stage. See `Channel.begin`."""
        if takes_part:
            self._remedies.move_to(policy.device)
            self._remedies.begin(self._visit(policy, task, stage))
        keep_start = self._remedies.need_start or self.settings.needs_start
        policy.adapters.begin(task.name, trains=takes_part, keep_start=keep_start)

    def end(
        self, policy: Policy, task: Task, stage: int, assessor: Assessor
    ) -> Sequence[RemedyReport]:
        """Have every remedy finish the stage. See `Channel.end`."""
        visit = self._visit(policy, task, stage)
        self._remedies.move_to(policy.device)  # loaded, if no update was made since
        reports = self._remedies.end(Ended(visit, assessor.score, assessor.kl))
        policy.adapters.start = None  # of no use once the stage has ended
        return reports

    def _visit(self, policy: Policy, task: Task, stage: int) -> Stage:
        """The stage as remedies see it."""
        trained = {past.name: past for past, trains in self._visits[:stage] if trains}
        trained.pop(task.name, None)
        return Stage(policy, task, stage, tuple(trained.values()), self._seed)

    def adapt(
        self, policy: Policy, task: Task, anchor: Anchor, seed: int, log: StepLog
    ) -> Adaptation:
        """Make one update per batch of the anchor that has a signal. See `Channel.adapt`.

        A batch without one makes no update, and is counted in `skipped_updates`; warm-up counts
        updates that were made. Once the KL budget of the stage is spent, no update is made and
        nothing is drawn.

        Raises:
            ChannelError: Nothing is trainable, the loss is not finite, the adapter did not
                change although there was something to learn from, it changes no logit, or the
                texts changed.
        """
        phase = self._started(policy, anchor)
        trainer, optimizer = self._stage_parts(policy, task, anchor)
        visit = self._visit(policy, task, anchor.stage)
        if not phase.figures:
            trainer.begin_cycle(anchor)
        for index in range(len(phase.figures), len(anchor.batches)):
            if self._remedies.is_over():
                break
            batch = anchor.batches[index]
            started, sampler = time.monotonic(), policy.sampler
            before = sampler.num_rollouts, sampler.num_tokens
            lr = self._peak_lr * min(1.0, (self._step + 1) / (self.settings.warmup_steps + 1))
            for parameters in optimizer.param_groups:
                parameters["lr"] = lr
            draws = derive_seed(seed, "update", index)
            update = Update(visit, batch, self._step, draws, lr, trainer.scored_rows)
            figures = self._make_update(trainer, optimizer, update)
            self._require_finite(policy, trainer, figures, batch)
            if trainer.has_signal(figures) and not self._remedies.is_over():
                phase.learned = True
                self._require_effect(policy, trainer)
            if not figures["skipped_updates"]:
                self._step += 1
                figures["lr"] = lr
            phase.figures.append(figures)
            step = anchor.cycle * len(anchor.batches) + index + 1
            phase.samples += [f"step {step} | {line}" for line in trainer.sample_lines()]
            phase.evidence += trainer.evidence()
            phase.notes += trainer.pass_size.take_notes()
            phase.rollouts += sum(from_all(sampler.num_rollouts - before[0]))
            phase.tokens += sum(from_all(sampler.num_tokens - before[1]))
            phase.seconds += time.monotonic() - started
            log(index + 1, len(anchor.batches), figures)
        self._phase = None
        self._check(policy, phase)
        metrics = _over_cycle(phase.figures) | self._remedies.standing()
        return Adaptation(
            rollouts=phase.rollouts,
            tokens=phase.tokens,
            seconds=phase.seconds,
            metrics=metrics,
            samples=tuple(phase.samples),
            notes=(*phase.notes, *self._remedies.notes(metrics)),
            evidence=tuple(phase.evidence),
        )

    def _make_update(
        self, trainer: Updates, optimizer: torch.optim.AdamW, update: Update
    ) -> dict[str, float]:
        """One update, which the trainer makes and remedies may take back."""
        finish = partial(
            finish_update, self.settings.max_grad_norm, optimizer, self._remedies, update
        )
        make = partial(trainer.update, update.batch, update.seed, finish)
        if not isinstance(sampler := update.stage.policy.sampler, RemoteSampler):
            return self._remedies.attempt(update, optimizer, make)
        before = sampler.swap_s
        figures = self._remedies.attempt(update, optimizer, make)
        return figures | {"swap_s": sampler.swap_s - before}

    def save(self, folder: Path) -> None:
        """Write step, trainer's progress, a phase that is not over, AdamW's moments, remedies."""
        from safetensors.torch import save_file

        progress = self._trainer.progress() if self._trainer else self._progress
        state: dict[str, Any] = {"stage": self._stage, "step": self._step, "progress": progress}
        if self._phase:
            state["phase"] = asdict(self._phase)
        (folder / STATE_FILE).write_text(json.dumps(state))
        moments = _moments(self._optimizer) if self._optimizer else self._loaded
        if moments is not None:
            save_file(moments, folder / OPTIMIZER_FILE)
        if tensors := self._trainer.tensors() if self._trainer else self._tensors:
            save_file(tensors, folder / TRAINER_FILE)
        self._remedies.save(folder / REMEDIES_FOLDER)

    def load(self, folder: Path) -> None:
        """Take back what `save` wrote.

        Raises:
            CheckpointError: The file of the optimizer is missing.
        """
        from fastslow.policy.tensors import load_tensors  # imports torch

        state = read_json(folder / STATE_FILE)
        self._stage, self._step = state["stage"], state["step"]
        self._progress = state["progress"]
        if "kl_budget" in state:
            raise CheckpointError(
                f"{folder}: made by an older version, which kept the KL budget elsewhere. "
                "`fastslow report` reads the run; to continue it, start a new run."
            )
        self._remedies.load(folder / REMEDIES_FOLDER)
        self._phase = shaped(Phase, state["phase"]) if "phase" in state else None
        self._trainer = self._optimizer = None
        if self._stage is not None:
            path = folder / OPTIMIZER_FILE
            if not path.is_file():
                raise CheckpointError(f"{path}: missing. Resume from the point before this one.")
            self._loaded = load_tensors(path)
        path = folder / TRAINER_FILE
        self._tensors = load_tensors(path) if path.is_file() else {}

    def _started(self, policy: Policy, anchor: Anchor) -> Phase:
        """The phase of this anchor: as far as it had come when it was saved, else a new one."""
        phase = self._phase
        if phase is None or (phase.stage, phase.cycle) != (anchor.stage, anchor.cycle):
            weights, texts = policy.weights_fingerprint(), policy.texts_fingerprint()
            phase = self._phase = Phase(anchor.stage, anchor.cycle, weights, texts)
        return phase

    @property
    def _peak_lr(self) -> float:
        """Of the present stage."""
        stage_lr = None if self._stage is None else self._stage_lrs.get(self._stage)
        return self.settings.lr if stage_lr is None else stage_lr

    def _stage_parts(
        self, policy: Policy, task: Task, anchor: Anchor
    ) -> tuple[Updates, torch.optim.AdamW]:
        """Trainer and optimizer of this stage: fresh at its start, else as they were left."""
        if self._stage != anchor.stage:
            self._stage, self._step = anchor.stage, 0
            self._trainer = self._optimizer = self._loaded = self._progress = None
            self._tensors = {}
            self._has_effect = False
        if self._trainer is None or self._optimizer is None:
            parameters = list(policy.adapters.trainable().values())
            if not parameters:
                raise ChannelError(
                    "slow: nothing to train, the model has no trainable adapter weights. "
                    "Check slow.lora.target_modules."
                )
            tasks = {visited.name: visited for visited, _ in self._visits} | {task.name: task}
            of_rows = {name: tasks[name] for batch in anchor.batches for name, _ in batch.rows}
            with kept_generators():  # TRL seeds them, and a resumed stage makes its trainer again
                self._trainer = self._make_trainer(
                    policy, of_rows, len(anchor.batches[0].rows), self.settings
                )
            self._optimizer = torch.optim.AdamW(
                parameters, lr=self._peak_lr, weight_decay=self.settings.weight_decay
            )
            if self._loaded is not None:
                _restore_moments(self._optimizer, self._loaded)
            if self._progress is not None:
                self._trainer.restore(self._progress, self._tensors)
            self._remedies.move_to(policy.device)
            self._loaded, self._progress, self._tensors = None, None, {}
        return self._trainer, self._optimizer

    def _require_effect(self, policy: Policy, trainer: Updates) -> None:
        """Integrity, once per stage and process: the adapter is applied where the policy scores.

        Asked once warm-up is over: before, a step may be too small for the number format.
        """
        rows = trainer.scored_rows()
        if rows and not self._has_effect and self._step >= self.settings.warmup_steps:
            require_effect(policy, rows)
            self._has_effect = True

    def _require_finite(
        self, policy: Policy, trainer: Updates, figures: dict[str, float], batch: Batch
    ) -> None:
        """Integrity of figures, weights and draws.

        A broken adapter can draw groups that all look equal, so that no loss would ever show it.
        """
        weights = policy.adapters.trainable().values()
        if not (
            all(map(math.isfinite, figures.values()))
            and all(map(math.isfinite, trainer.row_logprobs()))
            and all(bool(torch.isfinite(weight).all()) for weight in weights)
        ):
            ids = ", ".join(example.id for example in batch.examples)
            raise ChannelError(
                f"slow: update {self._step} gave a figure, a weight or a log-probability that is "
                f"not finite: {figures}. Its problems: {ids}. Lower slow.lr or slow.max_grad_norm."
            )

    def _check(self, policy: Policy, phase: Phase) -> None:
        """Integrity: texts as before; adapter changed if there was anything to learn from."""
        if len(adapters := set(from_all(policy.weights_fingerprint()))) > 1:
            raise ChannelError(f"slow: the processes hold different adapters: {sorted(adapters)}.")
        if policy.texts_fingerprint() != phase.texts:
            raise ChannelError("slow: the texts changed while weights were trained. This is a bug.")
        learned = phase.learned and not self._remedies.is_over()
        if learned and policy.weights_fingerprint() == phase.weights:
            raise ChannelError(
                "slow: the adapter is bit-identical after its updates although there was "
                "something to learn from. The optimizer does not hold the adapter's weights, or "
                f"the learning rate {self._peak_lr} is below their resolution."
            )


def _moments(optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value).clone().contiguous()
        for index, values in state.items()
        for name, value in values.items()
    }


def _restore_moments(optimizer: torch.optim.AdamW, saved: dict[str, torch.Tensor]) -> None:
    state = optimizer.state_dict()
    state["state"] = {}
    for key, value in saved.items():
        index, name = key.split(".", 1)
        state["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(state)


def _over_cycle(figures: list[dict[str, float]]) -> dict[str, float]:
    """Means over the updates that have the figure; sums of what is counted."""
    names = dict.fromkeys(name for update in figures for name in update)
    columns = {name: [update[name] for update in figures if name in update] for name in names}
    return {
        name: sum(values) / (1 if name.startswith(COUNTS) else len(values))
        for name, values in columns.items()
    }
