"""An ablation's records.jsonl: written, read again, damaged."""

from collections import Counter
from pathlib import Path

import pytest

from fastslow.core.errors import CheckpointError
from fastslow.results.ablation.records_file import read_records_file, records_jsonl
from fastslow.results.ablation.result import make_result
from fastslow.results.ablation.write import json_text
from tests.support.made_ablation import both_and_slow, config


def test_the_records_file_says_all_that_its_runs_do(tmp_path: Path) -> None:
    result = make_result(config(), both_and_slow(), Counter({"fst": 3, "slow-only": 3}), ("x",))
    file = tmp_path / "records.jsonl"
    file.write_text(records_jsonl(result))
    again = read_records_file(file)
    assert json_text(again) == json_text(result)
    assert records_jsonl(again) == records_jsonl(result)


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        (1, '"records_version": 1', '"records_version": 9'),
        (3, '"noise_floor"', '"floor"'),
        (3, '"scores": [[0.0', '"scores": [[7.0'),
        (1, '"planned": {', '"planned": {"x": "many", '),
        (3, '"seed": 0', '"seed": "one"'),
        (3, '"e00": ', '"e00": "x", "e99": '),
        (3, '"rollouts": {', '"rollouts": {"fast": null, "x": {}, '),
        (4, "{", "["),
    ],
)
def test_a_damaged_records_file_is_named_with_its_line(
    tmp_path: Path, line: int, old: str, new: str
) -> None:
    result = make_result(config(), both_and_slow(), Counter({"fst": 3, "slow-only": 3}))
    lines = records_jsonl(result).splitlines()
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    file = tmp_path / "records.jsonl"
    file.write_text("\n".join(lines))
    with pytest.raises(CheckpointError, match=f"records.jsonl:{line}: not a line of records"):
        read_records_file(file)
