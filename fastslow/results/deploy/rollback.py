"""Rollback: deploy the adapter and prompts that an earlier stage left.

Nothing is copied, moved or deleted. A line in `deployed.jsonl` says which stage's folder is in use,
after its files were compared with the scored ones; export, gate and report follow it. Going forward
again is the same command with a later stage.
"""

from datetime import UTC, datetime
from pathlib import Path

from fastslow.policy.saved import read_kept
from fastslow.records.deployments import deploy, deployed_row, deployments
from fastslow.records.events import DeployEvent
from fastslow.records.run_folder import RunDir
from fastslow.results.deploy.standing import Standing, read_standing, verify_kept


def roll_back(run: Path, stage: int) -> Standing:
    """Deploy the policy after a finished stage, from 1, of a run from now on; gives its standing.

    What was chosen already is not chosen again: a command that was cut short can be repeated.

    Raises:
        CheckpointError: It is not a run folder, is being written, the stage was not kept or not
            scored, or the files in its folder are not the scored ones.
    """
    RunDir.require(run)
    standing = read_standing(run, stage)
    policy = read_kept(standing.folder)
    with RunDir.open(run):
        verify_kept(standing, policy)
        event = DeployEvent(
            row=stage,
            before=deployed_row(run, len(standing.stages)),
            folder=standing.folder.relative_to(run).as_posix(),
            weights={task.task: task.weights or "" for task in standing.tasks},
            texts={task.task: task.text or "" for task in standing.tasks},
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if [chosen.row for chosen in deployments(run)][-1:] != [stage]:
            deploy(run, event)
    return standing
