"""Named random streams. Every draw in a run comes from one, derived from the run's seed.

No module uses a global generator, so adding a draw in one place changes no other stream, and a
resumed run draws what the uninterrupted one would have drawn.
"""

import hashlib
import json
import random


def derive_seed(root: int, *names: str | int) -> int:
    """Seed of the stream called `names` under the run seed `root`.

    Args:
        root: The run's seed, >= 0.
        names: What the stream is for, outermost first, e.g. `"slow", stage, cycle`.

    Returns:
        An integer in [0, 2**63), the same on every platform and Python version.
    """
    text = json.dumps([root, *names], separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def named_random(root: int, *names: str | int) -> random.Random:
    """A Python generator on the stream called `names` (see `derive_seed`)."""
    return random.Random(derive_seed(root, *names))
