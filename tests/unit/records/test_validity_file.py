"""signals.json is read back as it was written, and whatever else lies there is refused by name."""

import json
from pathlib import Path

import pytest

from fastslow.core.errors import CheckpointError
from fastslow.records.validity_file import Verdict, Verdicts, read_verdicts, write_verdicts

VERDICTS = Verdicts(
    "smollm2-135m-instruct",
    {
        "top5_energy": Verdict("top5_energy", False, "not earned: AUROC 0.54"),
        "first_logprob": Verdict("first_logprob", True, "earned: AUROC 0.71"),
    },
)


def test_verdicts_are_read_from_a_run_a_folder_and_the_file(tmp_path: Path) -> None:
    file = write_verdicts(tmp_path / "run" / "signals", VERDICTS, {"primary": "top5_energy"})
    for place in (tmp_path / "run", tmp_path / "run" / "signals", file):
        assert read_verdicts(place) == VERDICTS


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[]", "expected an object, got list"),
        ("{", "Expecting property name"),
        ('{"schema_version": 2}', "schema_version: expected 1, got 2"),
        ('{"schema_version": 1, "model": "m"}', "missing verdicts"),
        (
            '{"schema_version": 1, "model": "m", "verdicts": {"a": {"signal": "a", "earned": 1, '
            '"reason": ""}}}',
            "verdicts.a.earned: expected true or false, got 1",
        ),
        (
            '{"schema_version": 1, "model": "m", "verdicts": {"a": {"signal": "b", "earned": true, '
            '"reason": ""}}}',
            "verdicts.a: is of 'b'",
        ),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_another_file_is_refused_with_its_path_and_what_is_wrong(
    content: str, problem: str, tmp_path: Path
) -> None:
    file = tmp_path / "signals.json"
    file.write_text(content)
    with pytest.raises(CheckpointError) as caught:
        read_verdicts(tmp_path)
    assert str(caught.value).startswith(f"{file}: not a validity report, got ")
    assert problem in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_run_that_was_not_judged_has_none(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({}))
    with pytest.raises(CheckpointError, match=r"signals\.json: not a validity report.*No such"):
        read_verdicts(tmp_path)
