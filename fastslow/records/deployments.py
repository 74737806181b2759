"""Which stage's policy a run is deployed with: the last one, or the choice of a rollback.

The file `deployed.jsonl` has a line for every change and nothing else is moved or copied, so every
earlier choice can be made again. A run that was never rolled back has no such file. A resumed
run does not cut it back.
"""

from pathlib import Path

from fastslow.core.errors import CheckpointError
from fastslow.core.files import sync
from fastslow.records.events import DeployEvent
from fastslow.records.jsonl import RecordWriter, read_events

DEPLOYED_FILE = "deployed.jsonl"


def deployments(run: Path) -> tuple[DeployEvent, ...]:
    """Every change of what is deployed, oldest first; the last counts.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = run / DEPLOYED_FILE
    events = read_events(path) if path.is_file() else []
    return tuple(event for event in events if isinstance(event, DeployEvent))


def deployed_row(run: Path, num_stages: int) -> int:
    """Row of the score matrix whose policy is deployed: the last, unless a rollback chose another.

    Raises:
        CheckpointError: The file of the rollbacks is damaged, or names a stage there is not.
    """
    chosen = deployments(run)
    row = chosen[-1].row if chosen else num_stages
    if not 1 <= row <= num_stages:
        raise CheckpointError(
            f"{run / DEPLOYED_FILE}: names stage {row}, expected 1 to {num_stages}. The file was "
            "edited; restore it from a copy, or delete it to deploy the last stage again."
        )
    return row


def deploy(run: Path, event: DeployEvent) -> None:
    """Append a change to a run folder that this process has locked: all of it or none of it.

    Raises:
        CheckpointError: The disk refused; what was deployed before still is.
    """
    with RecordWriter(run / DEPLOYED_FILE) as writer:
        writer.append(event)
        writer.sync()
    sync(run)
