"""In what else runs differ than in their configuration: versions, machine, commit, data."""

import hashlib
import json
from collections.abc import Sequence

from fastslow.config.loading.load import leaves
from fastslow.core.types import Json
from fastslow.records.data import read_data
from fastslow.results.compare.data import Arm, ArmRun, Origins
from fastslow.results.report.sections.origin import Environment

DIGITS = 12
"""Of a fingerprint."""
NO_RECORD = "not recorded"


def origins(arms: Sequence[Arm]) -> Origins:
    """By name, what each arm was made with, where that is not the same in all runs.

    Names are those of environment.json, `data.TASK.SPLIT` for the fingerprint of a split, and
    `data` for whether there are any. Runs of one arm that differ have all of their values.
    """
    records = [[_record(run) for run in arm.runs] for arm in arms]
    names = sorted({name for of_arm in records for record in of_arm for name in record})
    by_name = {
        name: tuple(
            tuple(dict.fromkeys(record.get(name, NO_RECORD) for record in of_arm))
            for of_arm in records
        )
        for name in names
    }
    return {
        name: values
        for name, values in by_name.items()
        if len({value for of_arm in values for value in of_arm} - _ignored(name)) > 1
    }


def _ignored(name: str) -> set[str]:
    """A split that a run did not record, or has not, says nothing about its data."""
    return {NO_RECORD} if name.startswith("data.") else set()


def _record(run: ArmRun) -> dict[str, str]:
    environment = leaves(run.report.section(Environment).environment)
    by_task = read_data(run.report.path)
    record = {name: _text(value) for name, value in environment.items()}
    return (
        record
        | {"data": "recorded" if by_task else NO_RECORD}
        | {
            f"data.{task}.{split}": fingerprint(members)
            for task, data in by_task.items()
            for split, members in data.splits.items()
        }
    )


def _text(value: Json) -> str:
    return NO_RECORD if value is None else str(value)


def fingerprint(members: object) -> str:
    """Of the hashes of all questions and answers of a split, by example."""
    text = json.dumps(members, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
