"""What a run's card, run.json, says of how the run began, for whoever continues it."""

from datetime import date
from pathlib import Path

from fastslow.core.errors import CheckpointError
from fastslow.core.files import damage_errors, read_json
from fastslow.core.text import shorten


def read_day(path: Path) -> date:
    """What a run's chat template takes for today: the day it began, in folders that do not say.

    Raises:
        CheckpointError: run.json is missing or damaged.
    """
    with damage_errors(path / "run.json", "does not say when the run began"):
        card = read_json(path / "run.json")
        return date.fromisoformat(card.get("date") or card["started"][:10])


def read_dtype(path: Path) -> str | None:
    """The number format that a run's model began with; None for folders that do not say.

    Raises:
        CheckpointError: run.json is damaged.
    """
    try:
        dtype = read_json(path / "run.json").get("dtype")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path / 'run.json'}: {shorten(str(error), 200)}.") from error
    if dtype in (None, "float32", "bfloat16"):
        return dtype  # type: ignore[no-any-return]  # what was read may be anything
    raise CheckpointError(
        f"{path / 'run.json'}: dtype: expected float32 or bfloat16, got "
        f"{shorten(repr(dtype), 60)}. Restore it from a copy."
    )
