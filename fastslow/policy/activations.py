"""Activity of a policy's units on fixed inputs: running sums over token positions, and features."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from fastslow.core.types import TokenIds
from fastslow.policy.adapter.deltas import base_name
from fastslow.policy.engine.head import evaluating, hidden_states, plain_head, score_targets

ROWS_AT_ONCE = 8

Units: TypeAlias = Mapping[str, tuple[float, ...]]
"""A figure of each unit, by layer."""


@dataclass(frozen=True)
class Activations:
    """Sums over all token positions of some inputs, in float32."""

    samples: int
    """Token positions."""
    mean_abs: dict[str, tuple[float, ...]]
    """E|h_u| of each unit, by layer: the module whose inputs the units are."""
    mean_square: dict[str, tuple[float, ...]]
    """E h_u^2 of each unit, by layer."""
    active_share: dict[str, tuple[float, ...]]
    """Share of positions on which each unit is above 0, by layer."""
    features: tuple[Float[Tensor, "_ hidden"], ...]
    """Last hidden states of each input in turn: the inputs of the output head."""

    def singular_values(self) -> list[float]:
        """Of the features, descending, not centred; as many as the smaller of their two sides."""
        values: list[float] = torch.linalg.svdvals(torch.cat(self.features)).tolist()
        return values

    def joined(self, later: "Activations") -> "Activations":
        """As if the inputs of both had been run together."""
        samples = self.samples + later.samples

        def mean(ours: Units, theirs: Units) -> dict[str, tuple[float, ...]]:
            return {
                name: tuple(
                    (a * self.samples + b * later.samples) / samples
                    for a, b in zip(units, theirs[name], strict=True)
                )
                for name, units in ours.items()
            }

        return Activations(
            samples,
            mean(self.mean_abs, later.mean_abs),
            mean(self.mean_square, later.mean_square),
            mean(self.active_share, later.active_share),
            self.features + later.features,
        )


@torch.no_grad()
def record_activations(model: Any, rows: Sequence[TokenIds]) -> Activations:
    """Run inputs through the model and add up the activity of its units.

    Units are the hidden units of every feed-forward block: the inputs of its linear module back to
    the hidden width. A model whose blocks have no such module has no layers.
    There is at least one input, and none is empty.
    """
    real: list[Tensor] = []  # the mask of the pass: the hooks leave padding out
    units = {name: _Sums(real) for name in unit_layers(model)}
    features: dict[int, Tensor] = {}
    with evaluating(model), ExitStack() as hooks:
        for name, sums in units.items():
            layer = model.get_submodule(name)
            hooks.enter_context(layer.register_forward_pre_hook(sums.add))
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        for start in range(0, len(order), ROWS_AT_ONCE):
            # [rows, width], rows of similar length, padded on the right
            indices = order[start : start + ROWS_AT_ONCE]
            batch = [rows[index] for index in indices]
            width = max(map(len, batch))
            ids = torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in batch])
            mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in batch])
            real[:] = [mask.bool().to(model.device)]
            # no mask: a causal model does not see what stands to the right
            states = hidden_states(model, input_ids=ids.to(model.device), use_cache=False)
            for index, row in zip(indices, states, strict=True):
                features[index] = row[: len(rows[index])].float().cpu()
    units = {name: sums for name, sums in units.items() if sums.positions}
    return Activations(
        samples=sum(map(len, rows)),
        mean_abs={base_name(name): sums.mean(sums.absolute) for name, sums in units.items()},
        mean_square={base_name(name): sums.mean(sums.square) for name, sums in units.items()},
        active_share={base_name(name): sums.mean(sums.active) for name, sums in units.items()},
        features=tuple(features[index] for index in range(len(rows))),
    )


@torch.no_grad()
def next_token_logprobs(
    model: Any, rows: Sequence[TokenIds], recorded: Activations
) -> list[tuple[float, ...]] | None:
    """Log-probability of each token but the first of each input, in nats, without another pass.

    `recorded` is what `record_activations` gave for these rows. None for a model whose logits are
    more than a layer of its last states.
    """
    head = plain_head(model)
    if head is None:
        return None
    # the state of each position but the last predicts the next token, [targets, hidden]
    states = torch.cat([states[:-1] for states in recorded.features]).to(head.weight)
    targets = torch.tensor([token for row in rows for token in row[1:]], device=states.device)
    nodes = torch.arange(len(targets), device=states.device)
    logprobs, _ = score_targets(states, head, nodes, targets)
    values = iter(logprobs.tolist())
    return [tuple(next(values) for _ in row[1:]) for row in rows]


def unit_layers(model: Any) -> list[str]:
    """Names of the linear modules whose inputs are the units of a feed-forward block.

    Found by shape: a weight in a layer, outside attention, that maps more inputs to exactly the
    hidden width.
    """
    hidden = model.config.get_text_config().hidden_size
    head = model.get_output_embeddings()
    names = []
    for name, module in model.named_modules():
        if module is head or ".lora_" in name or name.endswith("base_layer"):
            continue
        inputs, outputs = linear_shape(module)
        path = name.split(".")
        in_layer = any(part.isdigit() for part in path) and not any("att" in part for part in path)
        if outputs == hidden and inputs > hidden and in_layer:
            names.append(name)
    return names


class _Sums:
    """Running sums of one layer's units, over the positions that `real` holds the mask of."""

    def __init__(self, real: Sequence[Tensor]) -> None:
        self.real = real
        self.absolute = self.square = self.active = torch.zeros((), dtype=torch.float64)
        self.positions = 0

    def add(self, module: Any, inputs: tuple[Tensor, ...]) -> None:
        """A hook: add the inputs of the layer in this pass."""
        (real,) = self.real
        if inputs[0].shape[:-1].numel() != real.numel():
            return  # a part of the tokens, routed here: not the same positions for every unit
        # [rows, width, units], or [rows * width, units] -> [samples, units]
        values = inputs[0].reshape(*real.shape, -1)[real].float()
        self.absolute = self.absolute + values.abs().sum(0, dtype=torch.float64)
        self.square = self.square + values.square().sum(0, dtype=torch.float64)
        self.active = self.active + (values > 0).sum(0, dtype=torch.float64)
        self.positions += len(values)

    def mean(self, sums: Float[Tensor, " units"]) -> tuple[float, ...]:
        """Of some sums over the positions."""
        return tuple((sums / self.positions).tolist())


def linear_shape(module: Any) -> tuple[int, int]:
    """Inputs and outputs of a linear module, adapted or not; (0, 0) for anything else."""
    from transformers.pytorch_utils import Conv1D

    inner = module.get_base_layer() if hasattr(module, "get_base_layer") else module
    if isinstance(inner, Conv1D):
        return int(inner.weight.shape[0]), int(inner.weight.shape[1])
    if isinstance(inner, torch.nn.Linear):
        return inner.in_features, inner.out_features
    return 0, 0
