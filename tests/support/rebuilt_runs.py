"""Run folders rebuilt from the scores that an ablation keeps of its runs."""

from pathlib import Path

from fastslow.core.types import SampleScore
from fastslow.measure.scores.matrix import headline_policy
from fastslow.records.events import RunEvent, ScoreRow
from fastslow.records.run_folder import RunDir
from fastslow.results.ablation.records import RunRecord
from tests.support.run_folder import config


def rebuild_run(record: RunRecord, runs_dir: Path, lr: float) -> Path:
    """A finished run folder with the cells of a record; arms differ in their learning rate."""
    held_out = [task for task in record.matrix.tasks if task not in record.stages]
    whole = config(runs_dir, record.stages, held_out)
    assert whole.slow is not None
    slow = whole.slow.model_copy(update={"lr": lr})
    whole = whole.model_copy(update={"name": record.arm, "seed": record.seed, "slow": slow})
    with RunDir.create(whole, {"small.yaml": "name: small\n"}, ("fastslow",)) as run_dir:
        for (row, task), scores in record.cells.items():
            run_dir.scores.append(
                *(
                    ScoreRow(run_dir.path.name, row, None, _sample(record, row, task, *pair))
                    for pair in scores.items()
                )
            )
        run_dir.events.append(RunEvent("finished", 100.0))
        run_dir.mark("finished")
        return run_dir.path


def _sample(record: RunRecord, row: int, task: str, example: str, score: float) -> SampleScore:
    policy = headline_policy(record.stages, row, task)
    return SampleScore(
        task=task,
        version=f"{task}@1",
        example=example,
        sample=0,
        prompt_policy=policy,
        text_hash=policy,
        weights=f"w{row}",
        completion="?",
        tokens=1,
        score=score,
        reason="",
    )
