"""The slow channel: T updates of the adapter, with the texts frozen.

Owns what all kinds of updates share: AdamW and its warm-up, integrity, resuming. What one update
learns from is its trainer's: rollouts (`grpo.py`) or gold answers (`sft.py`).
"""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch

from fastslow.channels.base import Adaptation, StepLog
from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.channels.slow.minimal import KlBudget, require_effect
from fastslow.channels.slow.trainer import MakeUpdates, Updates, UpdateSettings
from fastslow.core.distributed import from_all, num_processes
from fastslow.core.errors import ChannelError, CheckpointError
from fastslow.core.seeds import derive_seed, kept_generators
from fastslow.core.types import Anchor, Batch, Evidence
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
    """Completions this process drew."""
    seconds: float = 0.0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `dataclasses.asdict`.

        Raises:
            KeyError, TypeError: It is not such data.
        """
        evidence = [Evidence(**found) for found in data["evidence"]]
        return cls(**{**data, "evidence": evidence})


OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "slow.json"


class SlowChannel:
    """Trains the adapter through TRL; optimizer state lives as long as a stage.

    Args:
        settings: Learning rate, and what else its trainer needs.
        trainer: Makes the trainer of a stage, which takes settings of this type.
        kl_budget: Ends the adaptation of a stage when it is spent; None sets no limit.
        stage_lrs: Peak learning rate of stages, by index, that have one of their own.
    """

    name = "slow"

    def __init__(
        self,
        settings: UpdateSettings,
        trainer: MakeUpdates = FastSlowTrainer,
        kl_budget: KlBudget | None = None,
        stage_lrs: Mapping[int, float] | None = None,
    ) -> None:
        self.settings = settings
        self._stage_lrs = dict(stage_lrs or {})
        self._make_trainer = trainer
        self.kl_budget = kl_budget
        self._has_effect = False
        self._stage: int | None = None
        self._step = 0
        self._trainer: Updates | None = None
        self._optimizer: torch.optim.AdamW | None = None
        self._loaded: dict[str, torch.Tensor] | None = None
        self._progress: dict[str, Any] | None = None
        self._phase: Phase | None = None

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
        slots = trainer.slots(policy.population(task))
        for index in range(len(phase.figures), len(anchor.batches)):
            batch = anchor.batches[index]
            started, before = time.monotonic(), policy.engine.num_rollouts
            if self.kl_budget and self.kl_budget.is_hit:
                break
            lr = self._peak_lr * min(1.0, (self._step + 1) / (self.settings.warmup_steps + 1))
            for parameters in optimizer.param_groups:
                parameters["lr"] = lr
            draws = derive_seed(seed, "update", index)
            update = partial(trainer.update, batch, slots, optimizer, draws)
            if self.kl_budget:
                found = self.kl_budget.spend(policy, optimizer, update, trainer.scored_rows)
            else:
                found = update()
            self._require_finite(policy, trainer, found, batch)
            if trainer.has_signal(found) and not found.get("kl_budget_hit"):
                phase.learned = True
                self._require_effect(policy, trainer)
            if not found["skipped_updates"]:
                self._step += 1
                found["lr"] = lr
            phase.figures.append(found)
            step = anchor.cycle * len(anchor.batches) + index + 1
            phase.samples += [f"step {step} | {line}" for line in trainer.sample_lines()]
            phase.evidence += trainer.evidence()
            phase.notes += trainer.notes()
            phase.rollouts += policy.engine.num_rollouts - before
            phase.seconds += time.monotonic() - started
            log(index + 1, len(anchor.batches), found)
        self._phase = None
        self._check(policy, phase)
        limits = self.kl_budget.figures() if self.kl_budget else {}
        return Adaptation(
            rollouts=phase.rollouts * num_processes(),
            seconds=phase.seconds,
            metrics=_over_cycle(phase.figures) | limits,
            samples=tuple(phase.samples),
            notes=tuple(phase.notes),
            evidence=tuple(phase.evidence),
        )

    def save(self, folder: Path) -> None:
        """Write step, the trainer's progress, a phase that is not over, and AdamW's moments."""
        from safetensors.torch import save_file

        progress = self._trainer.progress() if self._trainer else self._progress
        state: dict[str, Any] = {"stage": self._stage, "step": self._step, "progress": progress}
        if self.kl_budget:
            state["kl_budget"] = self.kl_budget.to_json()
        if self._phase:
            state["phase"] = asdict(self._phase)
        (folder / STATE_FILE).write_text(json.dumps(state))
        moments = _moments(self._optimizer) if self._optimizer else self._loaded
        if moments is not None:
            save_file(moments, folder / OPTIMIZER_FILE)

    def load(self, folder: Path) -> None:
        """Take back what `save` wrote.

        Raises:
            CheckpointError: The file of the optimizer is missing.
        """
        from safetensors.torch import load_file

        state = json.loads((folder / STATE_FILE).read_text())
        self._stage, self._step = state["stage"], state["step"]
        self._progress = state["progress"]
        if self.kl_budget:
            self.kl_budget.load(state.get("kl_budget"))
        self._phase = Phase.from_json(state["phase"]) if "phase" in state else None
        self._trainer = self._optimizer = None
        if self._stage is not None:
            path = folder / OPTIMIZER_FILE
            if not path.is_file():
                raise CheckpointError(f"{path}: missing. Resume from the point before this one.")
            self._loaded = load_file(path)

    def _started(self, policy: Policy, anchor: Anchor) -> Phase:
        """The phase of this anchor: as far as it had come when it was saved, else a new one."""
        phase = self._phase
        if phase is None or (phase.stage, phase.cycle) != (anchor.stage, anchor.cycle):
            phase = self._phase = Phase(
                anchor.stage,
                anchor.cycle,
                policy.weights_fingerprint(),
                policy.texts_fingerprint(),
            )
        return phase

    @property
    def _peak_lr(self) -> float:
        """Of the present stage."""
        own = None if self._stage is None else self._stage_lrs.get(self._stage)
        return self.settings.lr if own is None else own

    def _stage_parts(
        self, policy: Policy, task: Task, anchor: Anchor
    ) -> tuple[Updates, torch.optim.AdamW]:
        """Trainer and optimizer of this stage: fresh at its start, else as they were left."""
        if self._stage != anchor.stage:
            self._stage, self._step = anchor.stage, 0
            self._trainer = self._optimizer = self._loaded = self._progress = None
            self._has_effect = False
            if self.kl_budget:
                self.kl_budget.start_stage()
        if self._trainer is None or self._optimizer is None:
            parameters = [p for p in policy.model.parameters() if p.requires_grad]
            if not parameters:
                raise ChannelError(
                    "slow: nothing to train, the model has no trainable adapter weights. "
                    "Check slow.lora.target_modules."
                )
            with kept_generators():  # TRL seeds them, and a resumed stage makes its trainer anew
                self._trainer = self._make_trainer(
                    policy, task, len(anchor.batches[0].examples), self.settings
                )
            self._optimizer = torch.optim.AdamW(
                parameters, lr=self._peak_lr, weight_decay=self.settings.weight_decay
            )
            if self._loaded is not None:
                _restore_moments(self._optimizer, self._loaded)
            if self._progress is not None:
                self._trainer.go_on(self._progress)
            self._loaded = self._progress = None
        return self._trainer, self._optimizer

    def _require_effect(self, policy: Policy, trainer: Updates) -> None:
        """Integrity, once per stage and process: the adapter is applied where the policy scores."""
        rows = trainer.scored_rows()
        if rows and not self._has_effect:
            require_effect(policy, rows[0])
            self._has_effect = True

    def _require_finite(
        self, policy: Policy, trainer: Updates, found: dict[str, float], batch: Batch
    ) -> None:
        """Integrity of figures, weights and draws.

        A broken adapter can draw groups that all look equal, so that no loss would ever show it.
        """
        weights = (p for p in policy.model.parameters() if p.requires_grad)
        if not (
            all(map(math.isfinite, found.values()))
            and all(map(math.isfinite, trainer.row_logprobs()))
            and all(bool(torch.isfinite(weight).all()) for weight in weights)
        ):
            ids = ", ".join(example.id for example in batch.examples)
            raise ChannelError(
                f"slow: update {self._step} gave a figure, a weight or a log-probability that is "
                f"not finite: {found}. Its problems: {ids}. Lower slow.lr or slow.max_grad_norm."
            )

    def _check(self, policy: Policy, phase: Phase) -> None:
        """Integrity: texts as before; adapter changed if there was anything to learn from."""
        if len(adapters := set(from_all(policy.weights_fingerprint()))) > 1:
            raise ChannelError(f"slow: the processes hold different adapters: {sorted(adapters)}.")
        if policy.texts_fingerprint() != phase.texts:
            raise ChannelError("slow: the texts changed while weights were trained. This is a bug.")
        is_undone = self.kl_budget is not None and self.kl_budget.is_hit
        learned = phase.learned and not is_undone
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
    whole = optimizer.state_dict()
    whole["state"] = {}
    for key, value in saved.items():
        index, name = key.split(".", 1)
        whole["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(whole)


def _over_cycle(figures: list[dict[str, float]]) -> dict[str, float]:
    """Means over the updates that have the figure; sums of what is counted."""
    values: dict[str, list[float]] = {}
    for found in figures:
        for name, value in found.items():
            values.setdefault(name, []).append(value)
    return {
        name: sum(found) if _is_count(name) else sum(found) / len(found)
        for name, found in values.items()
    }


def _is_count(name: str) -> bool:
    return name == "skipped_updates" or name.startswith("alarm/")
