"""Tells a lack of memory from other failures, and gives back what is not in use."""

import ctypes
import gc
from collections.abc import Callable
from functools import cache

import torch

_WORDS = (
    "out of memory",  # CUDA, where it is not an OutOfMemoryError
    "can't allocate memory",  # torch's allocator on Linux
    "not enough memory",  # and elsewhere
    "std::bad_alloc",
)


def out_of_memory(error: BaseException) -> str | None:
    """The first line of an allocator's message; None when the error is about something else."""
    message = str(error).strip().partition("\n")[0]
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return message or type(error).__name__
    is_it = isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)
    return message if is_it else None


def free_memory() -> None:
    """Collect what a failed attempt left behind, on the accelerator too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def return_memory() -> None:
    """Give pages that nothing is in back to the system, where the C library is glibc.

    Passes of every size leave holes between what stays, and glibc keeps the pages, so that a run
    grows from stage to stage. Costs milliseconds: for between phases, not between passes.
    """
    if (trim := _trim()) is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return None
    return trim
