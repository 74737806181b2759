"""What calls share: overrides as the command line writes them, and quiet libraries."""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePath

from fastslow.core.errors import ConfigError
from fastslow.core.library_switches import set_switches
from fastslow.core.text import shorten

PROCESS_SWITCHES = {
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TQDM_DISABLE": "1",
}
"""Variables that must stand before libraries are imported: no progress bars of their own, and idle
threads sleep, since on a busy machine spinning ones make two cores slower than one."""


def override_words(overrides: Mapping[str, object] | None, keys: Mapping[str, object]) -> list[str]:
    """`key=value` words of the command line for overrides by dotted key, and for keywords.

    A keyword comes after, so it wins; a mapping is laid over its section key by key.

    Raises:
        ConfigError: A value cannot stand in a configuration.
    """
    return [f"{name}={_text(name, value)}" for name, value in {**(overrides or {}), **keys}.items()]


def _text(name: str, value: object) -> str:
    try:
        written = str(value) if isinstance(value, PurePath) else value
        return json.dumps(written, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"override {shorten(name, 100)}: cannot stand in a configuration, got "
            f"{shorten(repr(value), 100)}. Give a number, text, true or false, null, or a list or "
            "mapping of these."
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Within it libraries neither draw bars nor warn of their next version."""
    set_switches(PROCESS_SWITCHES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", message="IProgress not found")  # of bars that are off
        yield
