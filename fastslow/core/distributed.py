"""Several processes of one run, as `torchrun` starts them; alone, every function is the identity.

All processes go through the same loop on the same data. The first one, the leader, keeps the run
folder and evolves the texts; the slow channel shares out the rollouts of an update and averages
gradients.
"""

import os
import pickle
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""How long a process waits for the others. The launcher ends all when one dies, so this limits
only how long the leader may work alone; torch's own half hour is less than some fast phases."""

before_waiting: list[Callable[[], None]] = []
"""Called each time before this process waits for all others, until it parts from them."""


def num_processes() -> int:
    """Processes in this run, from `WORLD_SIZE`; 1 when started by hand."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """Which of them this is, from `RANK`; 0 is the leader."""
    return int(os.environ.get("RANK", "0"))


def own_share(number: int) -> slice:
    """Which of so many things this process works on: shares are even, and in order."""
    first, end = (number * (process_index() + i) // num_processes() for i in (0, 1))
    return slice(first, end)


def is_leader() -> bool:
    """Whether this process keeps the run folder and speaks to the user."""
    return process_index() == 0


def connect(device: str) -> None:
    """Join the other processes, if any: with a model on `cuda:<index>` by NCCL, else by Gloo."""
    before_waiting.clear()  # of an earlier run in these processes
    if num_processes() == 1:
        return
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:  # NCCL sends objects through the present device: each process needs its own
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)


def disconnect() -> None:
    """Part from the other processes."""
    if num_processes() > 1:
        import torch.distributed as dist

        dist.destroy_process_group()


def wait() -> None:
    """Get ready to wait for the other processes: whoever talks to them itself calls it before."""
    for attend in before_waiting:
        attend()


def from_leader(value: T) -> T:
    """The leader's value, in every process."""
    if num_processes() == 1:
        return value
    import torch.distributed as dist

    wait()
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    result: T = box[0]
    return result


def by_leader(work: Callable[[], T]) -> T:
    """The result of `work` in the leader, in every process; the others wait and do nothing.

    Raises:
        Exception: The one that `work` raised, in every process; a RuntimeError with its words in
            the others where it cannot be sent as it is.
    """
    results: list[T] = []
    failure: Exception | None = None
    if is_leader():
        try:
            results.append(work())
        except Exception as err:  # whoever waits must hear of it, whatever it is
            failure = err
    results, heard = from_leader((results, None if failure is None else _sendable(failure)))
    if (error := failure or heard) is not None:
        raise error
    [result] = results
    return result


def from_all(value: T) -> list[T]:
    """Every process's value, in order of their index, in every process."""
    if num_processes() == 1:
        return [value]
    import torch.distributed as dist

    wait()
    values: list[Any] = [None] * num_processes()
    dist.all_gather_object(values, value)
    return values


def average_gradients(parameters: Iterable[Any]) -> None:
    """Replace each parameter's gradient by its mean over the processes.

    In all of them the same parameters have one; none may.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if num_processes() == 1 or not gradients:
        return
    import torch
    import torch.distributed as dist

    wait()
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= num_processes()
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def _sendable(error: Exception) -> Exception:
    """The error, or one with its words if it does not survive being sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an error's own constructor may raise anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
