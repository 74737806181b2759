"""Named random streams. Every draw in a run comes from one, derived from the run's seed.

No module uses a global generator, so adding a draw in one place changes no other stream, and a
resumed run draws what the uninterrupted one would have drawn.
"""

import base64
import contextlib
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastslow.core.distributed import from_all, process_index
from fastslow.core.files import read_json

RANDOM_FILE = "random.json"


def seed_generators(seed: int) -> None:
    """Start every global generator from `seed`."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def save_generators(folder: Path) -> None:
    """Write the states of all generators to `folder`, as JSON: a list, one entry per process."""
    (folder / RANDOM_FILE).write_text(json.dumps(from_all(_states())))


def load_generators(folder: Path) -> None:
    """Restore the states of this process that `save_generators` wrote.

    A process that the run did not have before takes those of the first. A folder of an older
    version has the first's alone, or none.
    """
    path = folder / RANDOM_FILE
    if path.is_file():
        saved = read_json(path)
        states = saved if isinstance(saved, list) else [saved]
        _restore(states[process_index() if process_index() < len(states) else 0])


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it torch draws from `seed`, on the CPU and on this process's card; after, as before.

    Other processes' cards are not touched: that would take memory on them.
    """
    import torch

    cards = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(cards):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def kept_generators() -> Iterator[None]:
    """Draws and seeds within it leave no trace."""
    states = _states()
    try:
        yield
    finally:
        _restore(states)


def _states() -> dict[str, Any]:
    import numpy as np
    import torch

    numpy_state: Any = np.random.get_state(legacy=False)
    key = numpy_state["state"]["key"].tolist()
    cards = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": key}},
        "torch": _text(torch.get_rng_state()),
        "cuda": [_text(state) for state in cards],
    }


def _restore(states: dict[str, Any]) -> None:
    import numpy as np
    import torch

    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    inner = states["numpy"]["state"]
    key = np.array(inner["key"], dtype=np.uint32)
    np.random.set_state({**states["numpy"], "state": {**inner, "key": key}})
    torch.set_rng_state(_tensor(states["torch"]))
    if states["cuda"] and torch.cuda.is_available():
        cards = states["cuda"]  # one, or of an older version all that were visible
        index = torch.cuda.current_device() if len(cards) > 1 else 0
        torch.cuda.set_rng_state(_tensor(cards[min(index, len(cards) - 1)]))


def _text(state: Any) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _tensor(text: str) -> Any:
    import torch

    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def derive_seed(root: int, *names: str | int) -> int:
    """Seed of the stream called `names`, outermost first, under the run seed `root` >= 0.

    In [0, 2**63), the same on every platform and Python version.
    """
    text = json.dumps([root, *names], separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def named_random(root: int, *names: str | int) -> random.Random:
    """A Python generator on the stream called `names` (see `derive_seed`)."""
    return random.Random(derive_seed(root, *names))
