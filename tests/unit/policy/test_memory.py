"""Memory that is given back to the system."""

import platform
import resource

import pytest

from fastslow.policy.engine.memory import return_memory


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123  # not a file of a run
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_pages_between_what_stays_go_back() -> None:
    pieces = [bytearray(100_000) for _ in range(3000)]  # below the size that is mapped on its own
    kept = pieces[::100]
    full = resident_bytes()
    del pieces
    return_memory()
    assert full - resident_bytes() > 200_000_000
    assert len(kept) == 30
