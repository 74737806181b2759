"""How the adapter goes from stage to stage: it goes on, is frozen under a new one, or is put aside.

Owned by the policy and saved with it, so that a resumed stage has the same start.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

from torch import Tensor

from fastslow.policy.adapter.lora import load_adapter, save_adapter
from fastslow.policy.adapter.parts import copied_weights, freeze_trained, put_weights, start_fresh
from fastslow.policy.saved import KEPT_FOLDER, START_FILE, STATE_FILE

AdapterPolicy: TypeAlias = Literal["continue", "merge-then-new", "new-per-stage"]


class StageAdapters:
    """Which stage the adapter belongs to, where it started, and the adapters put aside.

    Args:
        model: With or without a PEFT adapter; without one, no stage ever begins.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.owner: str | None = None
        """Task the present adapter belongs to; None before any stage trained."""
        self.start: dict[str, Tensor] | None = None
        """The trainable part as the stage found it, if that was to be kept."""
        self._aside: dict[str, dict[str, Tensor]] = {}

    def begin(
        self, task: str, how: AdapterPolicy, seed: int, *, trains: bool, keep_start: bool
    ) -> None:
        """Get the adapter ready for a stage.

        Args:
            task: The stage's task.
            how: `continue` changes nothing; `merge-then-new` freezes what there is under a fresh
                adapter, which computes the same; `new-per-stage` puts what there is aside for its
                task and starts afresh from the base. The first stage finds a fresh adapter anyway.
            seed: Of a fresh adapter.
            trains: Whether the stage trains it; one that does not gets the adapter that was put
                aside for its task, if there is one, and else goes on with the present one.
            keep_start: Whether `start` is needed at the end of the stage.
        """
        self.start = None
        if not trains:
            self._take_back(task)
            return
        if self.owner is not None and how == "merge-then-new":
            freeze_trained(self.model, seed)
        if self.owner is not None and how == "new-per-stage":
            self._aside[self.owner] = copied_weights(self.model)
            start_fresh(self.model, seed)
        self._aside.pop(task, None)
        self.owner = task
        if keep_start:
            self.start = copied_weights(self.model)

    def _take_back(self, task: str) -> None:
        """Make the adapter put aside for `task` the present one."""
        if task in self._aside:
            assert self.owner is not None
            self._aside[self.owner] = copied_weights(self.model)
            put_weights(self.model, self._aside.pop(task))
            self.owner = task

    @contextmanager
    def of(self, task: str) -> Iterator[None]:
        """Within it the adapter is the one `task` is scored with and deployed with.

        That is the adapter of the task's own last stage where it was put aside, else the present
        one: so tasks that no stage trained yet are scored with the latest adapter.
        """
        if task not in self._aside:
            yield
            return
        present = copied_weights(self.model)
        put_weights(self.model, self._aside[task])
        try:
            yield
        finally:
            put_weights(self.model, present)

    def is_aside(self, task: str) -> bool:
        """Whether `of` gives this task an adapter of its own; all others share the present one."""
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
            with self.of(task):
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
        from safetensors.torch import load_file

        self.owner, self.start, self._aside = None, None, {}
        if not hasattr(self.model, "peft_config") or not (folder / STATE_FILE).is_file():
            return
        state = json.loads((folder / STATE_FILE).read_text())
        self.owner = state["owner"]
        for task in state["aside"]:
            load_adapter(self.model, folder / KEPT_FOLDER / task)
            self._aside[task] = copied_weights(self.model)
        if (folder / START_FILE).is_file():
            device = str(self.model.device)
            self.start = load_file(folder / START_FILE, device=device)
