"""Telling that memory ran out from other failures, and giving back what is not in use."""

import gc

import torch

_WORDS = (
    "out of memory",  # CUDA, where it is no OutOfMemoryError
    "can't allocate memory",  # torch's allocator on Linux
    "not enough memory",  # and elsewhere
    "std::bad_alloc",
)


def out_of_memory(error: BaseException) -> str | None:
    """The first line of what an allocator said; None when the error is about something else."""
    said = str(error).strip().partition("\n")[0]
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return said or type(error).__name__
    is_it = isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)
    return said if is_it else None


def free_memory() -> None:
    """Collect what a failed attempt left behind, on the accelerator too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
