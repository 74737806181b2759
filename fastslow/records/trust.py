"""What a run folder may have the program do: its configuration read, if its user can be trusted.

A configuration names addresses (trackers, servers, stores), programs and code, and whoever resumes
a run follows them with the rights and keys of the user. In a folder that this user made they are
the user's own words; in any other they are somebody else's.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fastslow.channels.fast.settings import SELF
from fastslow.config.loading.load import LoadedConfig, load_resolved
from fastslow.core.errors import CheckpointError
from fastslow.core.files import damage_errors, read_json
from fastslow.core.text import shorten
from fastslow.records.run_folder import require_no_links
from fastslow.records.seal import is_ours, require_unbroken

PLACES = frozenset(
    {
        "publish",
        "uri",
        "urls",
        "api_base",
        "python",
        "arguments",
        "adapters_dir",
        "folder",
        "entity",
    }
)
"""Keys whose values are addresses, programs, or folders of others that are written to."""
CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""`package.module:function`."""
SHOWN = 8
"""Values that an error lists."""


def load_run(path: Path, trust: bool = False, overrides: Sequence[str] = ()) -> LoadedConfig:
    """The configuration of a run folder, to act on: plug-ins that it names are imported.

    What a user gives again as `key=value` is the user's own and needs no trust.

    Raises:
        CheckpointError: This user did not make the folder, did not say `trust`, and something in
            its configuration would be followed; or the folder has a link in it, or was edited since
            the run wrote it.
    """
    require_no_links(path)
    require_unbroken(path)
    overridden = tuple(word.partition("=")[0] for word in overrides)
    if not trust and not is_ours(path) and (names := list(followed(_config(path), overridden))):
        listed = "".join(f"\n  {name}" for name in names[:SHOWN])
        more = f"\n  and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise CheckpointError(
            f"{path}: not a run that you made here (seal.json has no signature of yours), and its "
            f"configuration would have this program call or import:{listed}{more}\n"
            "If they are what you want, repeat the command with --trust."
        )
    return load_resolved(path / "config.json")


def followed(value: Any, overridden: Sequence[str] = (), path: str = "") -> Iterator[str]:
    """Everything in a configuration that is called, started or imported, as `key = value`.

    Left out are sections and keys in `overridden`.
    """
    if path in overridden:
        return
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            place = f"{path}.{key}" if path else str(key)
            if key in PLACES and item:
                if place not in overridden:
                    yield f"{shorten(place, 100)} = {shorten(str(item), 200)}"
            else:
                yield from followed(item, overridden, place)
    elif isinstance(value, str) and _is_followed(path, value):
        yield f"{shorten(path, 100)} = {shorten(value, 200)}"


def _is_followed(path: str, value: str) -> bool:
    """Whether a value is an address or code, or a service that the user's keys would be sent to."""
    key = path.rpartition(".")[2]
    return (
        "://" in value
        or bool(CODE.fullmatch(value))
        or (key == "runs_dir" and (Path(value).is_absolute() or ".." in Path(value).parts))
        or (key == "model" and value != SELF)  # of reflection; the run's is model.name
        or (key, value) == ("kind", "wandb")
    )


def _config(path: Path) -> Any:
    with damage_errors(path / "config.json", "cannot be read"):
        return read_json(path / "config.json")
