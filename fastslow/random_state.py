"""The global random generators of Python, NumPy and torch: seeded once, saved with resume points.

Nothing of ours draws from them; tasks, graders and libraries may. With their states in a resume
point, a resumed run equals one that never stopped also where they do.
"""

import base64
import contextlib
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
    """Take back what `save_generators` wrote; a folder of an older version changes nothing."""
    path = folder / RANDOM_FILE
    if path.is_file():
        _restore(json.loads(path.read_bytes()))


@contextlib.contextmanager
def kept_generators() -> Iterator[None]:
    """Whatever is drawn or seeded within it leaves no trace."""
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
