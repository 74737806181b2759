"""The base's weights shared out among the processes, layer by layer: FSDP2's `fully_shard`.

Each process keeps a share of every decoder layer, and fetches the rest from the others for as long
as a pass is in that layer. Fetching is work of all processes together, but a pass is not: one draws
longer answers than another, or reads alone what only the leader measures. So whoever is about to
read says so; those who wait meanwhile, and those who are about to do something else, serve it by
fetching the same layers in the same order. That is all they do: nothing is computed twice.

Embeddings, the last norm and the head stay whole in each process, and so does the adapter, which is
put on afterwards: gradients, optimizer, files and fingerprints are those of a run without shards.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from fastslow.core.distributed import PATIENCE, before_waiting
from fastslow.core.errors import ChannelError, ModelError

Span: TypeAlias = tuple[int, int]
"""The first and the last layer of those that are fetched one after the other, in either order."""

BROKEN_OFF = (
    "a pass over the model was broken off, most often for lack of memory, and cannot be made "
    "again: under engine.sharding: fsdp2 all processes make every pass together. Lower "
    "slow.tokens_per_forward or the tasks' lengths, or use more processes."
)


def shard(model: Any, device: str) -> None:
    """Keep a share of every decoder layer of `model` on `device`, and all the rest of it.

    The model has no adapter yet, and stays where it is until a layer has been cut up: so it may be
    larger than the device. Every process of the run calls this, with the same weights.

    Raises:
        ModelError: The model has no layers that are read one after the other.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    names = set(model._no_split_modules or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if not layers:
        raise _unfit(model, "does not say what its layers are")
    if device != "cpu":  # reading the model on the CPU may have allowed what rounds on a card
        torch.set_float32_matmul_precision("highest")
    mesh = init_device_mesh(torch.device(device).type, (dist.get_world_size(),))
    for layer in layers:
        # each is a root of its own, so that nothing is fetched ahead of its turn
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    model.to(device)
    turns = Turns(layers)
    before_waiting.append(turns.serve)
    model.__dict__["_fastslow_turns"] = turns
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    try:
        with torch.no_grad():
            model(input_ids=ids, use_cache=False)
    except ChannelError as error:
        raise _unfit(model, "does not read its layers one after the other") from error


def _unfit(model: Any, why: str) -> ModelError:
    return ModelError(
        f"engine.sharding: {model.config.model_type} {why}, so that they cannot be shared out. Use "
        "none."
    )


def is_sharded(model: Any) -> bool:
    """Whether each process has but a share of the model's weights."""
    return _turns(model) is not None


def whole_weight(model: Any, module: Any) -> Tensor:
    """The weight of a module of the base; where it is sharded a copy, which cannot be written to.

    Any process may ask by itself: the others serve it.
    """
    turns = _turns(model)
    index = None if turns is None else turns.layer_of(module)
    if turns is None or index is None:
        return module.weight.detach()  # type: ignore[no-any-return]  # a module may be anything
    turns.take((index, index))
    turns.layers[index].unshard()
    with torch.inference_mode():  # torch refuses to change a tensor that was made in it
        copy: Tensor = module.weight.detach().clone()
    turns.layers[index].reshard()
    return copy


class Turns:
    """Brings the processes to fetch the same layers in the same order, whatever each of them does.

    They agree over Gloo, without the device; a turn costs one number of each.
    """

    def __init__(self, layers: list[Any]) -> None:
        self.layers = layers
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE)
        self._next = 0
        self._first_learned: int | None = None
        """The first layer of this pass that has a way back."""
        for index, layer in enumerate(layers):
            # before FSDP2's own hooks, which fetch
            layer.register_forward_pre_hook(self._entering(index), prepend=True)
            layer.register_forward_hook(self._leaving(index), prepend=True)

    def take(self, span: Span) -> None:
        """Wait for this process's turn to fetch these layers; serve others until then.

        A way back comes before a way there, and a longer one before a shorter: any order will do
        that is the same in all processes.
        """
        while (chosen := self._agree(span)) != span:
            assert chosen is not None
            self._fetch(chosen)

    def serve(self) -> None:
        """Fetch what others read, until all processes wait."""
        while (chosen := self._agree(None)) is not None:
            self._fetch(chosen)

    def layer_of(self, module: Any) -> int | None:
        """The layer that a module is in; None for one that every process has whole."""
        for index, layer in enumerate(self.layers):
            if any(inner is module for inner in layer.modules()):
                return index
        return None

    def _agree(self, span: Span | None) -> Span | None:
        """The largest of what all processes want; None when none wants anything."""
        size = len(self.layers)
        number = 0 if span is None else 1 + span[0] * size + span[1]
        largest = torch.tensor(number)
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=self._group)
        return divmod(int(largest) - 1, size) if largest else None

    def _fetch(self, span: Span) -> None:
        first, last = span
        step = 1 if first <= last else -1
        for layer in self.layers[first : last + step if last + step >= 0 else None : step]:
            layer.unshard()
            layer.reshard()

    def _entering(self, index: int) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            if index != self._next:
                raise ChannelError(f"engine.sharding: {BROKEN_OFF}")
            if index == 0:
                self._first_learned = None
                self.take((0, len(self.layers) - 1))
            self._next = (index + 1) % len(self.layers)

        return enter

    def _leaving(self, index: int) -> Callable[..., None]:
        """A hook: the way back through the layers begins with the gradient of the last output."""
        last = len(self.layers) - 1

        def leave(module: Any, inputs: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output
            if not (torch.is_grad_enabled() and states.requires_grad):
                return
            if self._first_learned is None:
                self._first_learned = index
            if index == last:
                span = last, self._first_learned
                states.register_hook(lambda _: self.take(span))

        return leave


def _turns(model: Any) -> Turns | None:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    turns: Turns | None = base.__dict__.get("_fastslow_turns")
    return turns
