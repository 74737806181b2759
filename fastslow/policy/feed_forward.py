"""Energy of a change or of a gradient at each unit of the feed-forward blocks.

A unit is an input of the module back to the hidden width (`activations.unit_layers`), its reader,
which has a column for it. Its writers, gate and up in most families, have a row for it.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fastslow.core.errors import EvaluationError
from fastslow.core.types import TokenIds
from fastslow.policy.activations import Units, linear_shape, unit_layers
from fastslow.policy.adapter.deltas import WeightDelta, base_name
from fastslow.policy.engine.head import evaluating
from fastslow.policy.engine.layouts import score_completions
from fastslow.policy.engine.shards import is_sharded


class FeedForward:
    """The feed-forward blocks of a policy's model."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def row_energies(self, deltas: Iterable[WeightDelta]) -> Units:
        """Energy of a change in each unit's rows of its writers, by layer.

        Not of columns: under LoRA the rows of B start at zero and are learned, but a column of the
        change is B times a column of A, which hardly leaves its random start. Layers whose writers
        are not in the change are left out.
        """
        layer_of = {name: layer for layer, names in self._writers().items() for name in names}
        sums: dict[str, Tensor] = {}
        for delta in deltas:
            if (layer := layer_of.get(delta.name)) is not None:
                rows = _rows(delta.dense(), *self._sizes(layer))
                sums[layer] = sums.get(layer, torch.zeros(())) + rows
        return {layer: tuple(energies.tolist()) for layer, energies in sums.items()}

    def gradient_energies(
        self, prompts: Sequence[TokenIds], answers: Sequence[TokenIds]
    ) -> tuple[Units, Units]:
        """Energy of the dense gradient in each unit's rows of its writers, and in its column.

        Of the mean negative log-probability of the answers, with respect to the base's weights;
        under `Scorer.base_weights` that of the base itself. Leaves no gradient behind.

        Raises:
            EvaluationError: The weights are shared out among processes.
        """
        if is_sharded(self.model):  # torch would give zeros
            raise EvaluationError("gradients of the base's weights need engine.sharding: none.")
        layers = self._writers()
        if not layers:
            return {}, {}
        names = [name for reader, writers in layers.items() for name in (reader, *writers)]
        weights = [self._base_layer(name).weight for name in names]
        frozen = [weight for weight in weights if not weight.requires_grad]
        for weight in frozen:
            weight.requires_grad_(True)
        try:
            with evaluating(self.model):
                loss = -score_completions(self.model, prompts, answers).logprobs.sum()
            # zeros for an expert that no token went to
            gradients = torch.autograd.grad(loss / len(prompts), weights, materialize_grads=True)
        finally:
            for weight in frozen:
                weight.requires_grad_(False)
        of_module = dict(zip(names, gradients, strict=True))
        rows: dict[str, tuple[float, ...]] = {}
        columns: dict[str, tuple[float, ...]] = {}
        for reader, writers in layers.items():
            units, hidden = self._sizes(reader)
            energies = [_rows(of_module[name], units, hidden) for name in writers]
            rows[reader] = tuple(torch.stack(energies).sum(0).tolist())
            columns[reader] = tuple(_rows(of_module[reader], units, hidden).tolist())
        return rows, columns

    def _writers(self) -> dict[str, tuple[str, ...]]:
        """The writers of each reader, all by their names in the base model.

        Found by shape, next to the reader: linear modules from the hidden width to as many units,
        or to twice as many where gate and up are one. Readers without any are left out.
        """
        layers = {}
        for reader in unit_layers(self.model):
            units, hidden = linear_shape(self.model.get_submodule(reader))
            parent = reader.rpartition(".")[0]
            writers = [
                base_name(f"{parent}.{name}")
                for name, module in self.model.get_submodule(parent).named_children()
                if linear_shape(module) in ((hidden, units), (hidden, 2 * units))
            ]
            if writers:
                layers[base_name(reader)] = tuple(writers)
        return layers

    def _base_layer(self, name: str) -> Any:
        """A linear module of the base model by its name there, whether it is adapted or not."""
        has_adapter = hasattr(self.model, "get_base_model")
        base = self.model.get_base_model() if has_adapter else self.model
        module = base.get_submodule(name)
        return module.get_base_layer() if hasattr(module, "get_base_layer") else module

    def _sizes(self, reader: str) -> tuple[int, int]:
        """Units of a layer, and the hidden width."""
        return linear_shape(self._base_layer(reader))


def _rows(matrix: Tensor, units: int, hidden: int) -> Float[Tensor, " units"]:
    """Energy of each unit in a matrix that has the hidden width on its other side; on the CPU.

    [units, hidden], or [2 units, hidden] with gate over up; either may be transposed, as readers
    are, and writers in a Conv1D.
    """
    rows = matrix if matrix.shape[1] == hidden else matrix.T
    energies = rows.detach().double().square().sum(1)  # [units] or [2 units]
    return energies.view(-1, units).sum(0).cpu()
