"""In what else runs differ than in their configuration: versions, machine, commit, data."""

import hashlib
import json
from collections.abc import Sequence

from fastslow.config.loading.load import leaves
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
    differing = {}
    for name in sorted({name for of_arm in records for record in of_arm for name in record}):
        values = [[record.get(name, NO_RECORD) for record in of_arm] for of_arm in records]
        # a split that a run did not record says nothing about its data
        ignored = {NO_RECORD} if name.startswith("data.") else set[str]()
        if len({value for of_arm in values for value in of_arm} - ignored) > 1:
            differing[name] = tuple(tuple(dict.fromkeys(of_arm)) for of_arm in values)
    return differing


def _record(run: ArmRun) -> dict[str, str]:
    by_task = read_data(run.report.path)
    record = {"data": "recorded" if by_task else NO_RECORD}
    for name, value in leaves(run.report.section(Environment).environment).items():
        record[name] = NO_RECORD if value is None else str(value)
    for task, data in by_task.items():
        for split, members in data.splits.items():
            digest = hashlib.sha256(json.dumps(members, sort_keys=True).encode())
            record[f"data.{task}.{split}"] = digest.hexdigest()[:DIGITS]
    return record
