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

RANDOM_FILE = "random.json"


def seed_generators(seed: int) -> None:
    """Start every global generator from `seed`."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def save_generators(folder: Path) -> None:
    """Write the states of all generators to `folder`, as JSON."""
    (folder / RANDOM_FILE).write_text(json.dumps(_states()))


def load_generators(folder: Path) -> None:
    """Restore the states that `save_generators` wrote; a folder of an older version has none."""
    path = folder / RANDOM_FILE
    if path.is_file():
        _restore(json.loads(path.read_bytes()))


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
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": key}},
        "torch": _text(torch.get_rng_state()),
        "cuda": [_text(state) for state in devices],
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
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_tensor(state) for state in states["cuda"]])


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
