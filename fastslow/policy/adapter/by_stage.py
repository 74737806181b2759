"""The policy's adapter: its weights for those who train or scale them, and whose they are.

From stage to stage an adapter continues, is frozen under a new one, or is put aside for its task.
Saved with the policy, so that a resumed stage has the same start.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from fastslow.core.files import read_json
from fastslow.policy.adapter.deltas import WeightDelta, weight_deltas
from fastslow.policy.adapter.lora import adapter_tensors, load_adapter, save_adapter
from fastslow.policy.adapter.parts import (
    concatenated,
    freeze_trained,
    frozen_weights,
    put_frozen,
    put_parts,
    start_fresh,
    trainable_weights,
)
from fastslow.policy.saved import KEPT_FOLDER, START_FILE, STATE_FILE, WEIGHTS_FILE
from fastslow.policy.tensors import load_tensors


class StageAdapters:
    """The present adapter, which stage it belongs to, where it started, and those put aside.

    "Weights" are those of the trainable part, by name; the frozen part never changes. Without an
    adapter no stage ever begins.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.owner: str | None = None
        """Task the present adapter belongs to; None before any stage trained."""
        self.start: dict[str, Tensor] | None = None
        """The trainable part as the stage found it, if that was to be kept."""
        self._aside: dict[str, dict[str, Tensor]] = {}

    def trainable(self) -> dict[str, Parameter]:
        """The parameters that training changes, themselves; empty if there are none."""
        weights = trainable_weights(self.model)
        return {name: weight for name, weight in weights.items() if weight.requires_grad}

    def modules(self) -> list[str]:
        """Last names of the modules that the adapter is on, sorted; none without an adapter."""
        names = trainable_weights(self.model)
        return sorted({name.partition(".lora_")[0].rpartition(".")[2] for name in names})

    def frozen(self) -> dict[str, Tensor]:
        """The frozen part, by the names of the trainable weights; empty without one."""
        return frozen_weights(self.model)

    def copied(self) -> dict[str, Tensor]:
        """A copy of the weights, for `put`, `scale` and `blend`."""
        weights = trainable_weights(self.model)
        return {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Set the weights, bit for bit, in place."""
        for name, parameter in trainable_weights(self.model).items():
            parameter.copy_(weights[name])

    @contextmanager
    def holding(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Within it the weights are these; the present ones are put back after.

        Not under a graph that is still to be differentiated: the exchange is in place.
        """
        present = self.copied()
        self.put(weights)
        try:
            yield
        finally:
            self.put(present)

    def scale(self, weights: Mapping[str, Tensor], factor: float) -> None:
        """Set the weights to `weights` with their update B A times `factor`: B alone is scaled."""
        self.put({n: w * factor if ".lora_B." in n else w for n, w in weights.items()})

    def blend(self, start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> None:
        """Set the weights to `start` plus `share` of the way to `end`; 0 and 1 give them exact."""
        self.put({name: torch.lerp(start[name], end[name], share) for name in start})

    def freeze(self, seed: int) -> None:
        """Freeze all there is under fresh weights; the policy computes what it did before."""
        freeze_trained(self.model, seed)

    def restart(self, seed: int) -> None:
        """Back to the base: no frozen part, fresh weights."""
        put_parts(self.model, concatenated(self.model, frozen=False), 0)
        start_fresh(self.model, seed)

    def fresh(self, seed: int) -> dict[str, Tensor]:
        """Weights as `restart` would draw them; the present ones stay."""
        with self.holding(self.copied()):
            start_fresh(self.model, seed)
            return self.copied()

    def share(self, weights: Mapping[str, Tensor], seed: int) -> None:
        """Deploy one update, of any rank, for all tasks; adapters put aside are given up.

        By the names of the trainable weights. It becomes the frozen part under fresh weights that
        add nothing, and belongs to no stage.
        """
        put_frozen(self.model, weights, seed)
        self.owner = None
        self._aside.clear()

    def deltas(self, after: Path | None, before: Path | None) -> Iterator[WeightDelta]:
        """The change of every adapted matrix between two states of the adapter.

        Each is a folder that `save_adapter` wrote; None is the present adapter, or before it the
        base.
        """

        def saved(folder: Path) -> Any:
            return load_tensors(folder / WEIGHTS_FILE, str(self.model.device))

        tensors = adapter_tensors(self.model) if after is None else saved(after)
        return weight_deltas(self.model, tensors, None if before is None else saved(before))

    def begin(self, task: str, *, trains: bool, keep_start: bool) -> None:
        """Make the adapter that of a stage; remedies may have frozen it or put it aside before.

        A stage that does not train it gets the adapter that was put aside for its task, if there is
        one, and else continues with the present one. `keep_start`: whether `start` is needed.
        """
        self.start = None
        if not trains:
            if task in self._aside:
                assert self.owner is not None
                self._aside[self.owner] = self.copied()
                self.put(self._aside.pop(task))
                self.owner = task
            return
        self._aside.pop(task, None)
        self.owner = task
        if keep_start:
            self.start = self.copied()

    def put_aside(self, seed: int) -> None:
        """Keep the present adapter for its owner alone; fresh weights start from the base."""
        assert self.owner is not None, "the adapter belongs to no task yet"
        self._aside[self.owner] = self.copied()
        start_fresh(self.model, seed)

    @contextmanager
    def serving(self, task: str) -> Iterator[None]:
        """Within it the adapter is the one `task` is scored with and deployed with.

        That is the adapter of the task's own last stage where it was put aside, else the present
        one: so tasks that no stage trained yet are scored with the latest adapter.
        """
        with self.holding(self._aside[task]) if task in self._aside else nullcontext():
            yield

    def is_aside(self, task: str) -> bool:
        """Whether the task has an adapter put aside; all others share the present one."""
        return task in self._aside

    def save(self, folder: Path) -> None:
        """Write all of it; every adapter put aside becomes a PEFT folder of its own.

        Raises:
            CheckpointError: A saved adapter does not read back equal.
        """
        from safetensors.torch import save_file

        if self.owner is None:
            return
        for task in self._aside:
            with self.serving(task):
                save_adapter(self.model, folder / KEPT_FOLDER / task)
        state = {"owner": self.owner, "aside": sorted(self._aside)}
        (folder / STATE_FILE).write_text(json.dumps(state))
        if self.start is not None:
            save_file(self.start, folder / START_FILE)

    def load(self, folder: Path) -> None:
        """Take back what `save` wrote; leaves whatever adapter was read last in the model.

        Raises:
            CheckpointError: An adapter put aside is missing or not this model's.
        """
        self.owner, self.start, self._aside = None, None, {}
        if not hasattr(self.model, "peft_config") or not (folder / STATE_FILE).is_file():
            return
        state = read_json(folder / STATE_FILE)
        self.owner = state["owner"]
        for task in state["aside"]:
            load_adapter(self.model, folder / KEPT_FOLDER / task)
            self._aside[task] = self.copied()
        if (folder / START_FILE).is_file():
            self.start = load_tensors(folder / START_FILE, str(self.model.device))
