"""The script for cards says what failed, and what it had no time for."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu
from benchmarks.card.speed import card_peak


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("Somebody's Card 1", None),
    ],
)
def test_the_peak_of_a_card_is_that_of_its_own_name(name: str, peak: float | None) -> None:
    assert card_peak(name) == peak


def records(**words: str) -> list[Any]:
    return [{"kind": kind, "name": name, "words": "x"} for name, kind in words.items()]


@pytest.mark.parametrize("kind", ["PASS", "FAIL"])
def test_one_failed_check_fails_the_script(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    monkeypatch.setattr(gpu, "run_section", lambda *_: records(a="PASS", b="INFO", c=kind))
    file = tmp_path / "out" / "gpu.json"
    code = gpu.main(["--device", "cpu", "--only", "rng", "--json", str(file)])
    assert code == (kind == "FAIL")
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    expected = {"checks": 2, "failed": ["c"] if code else [], "records": 3}
    assert {name: last[name] for name in expected} == expected
    assert last["tiny"]  # by itself on a CPU
    assert len(json.loads(file.read_text())["records"]) == 3


def test_a_section_without_time_is_a_failure_and_an_unknown_one_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert gpu.main(["--device", "cpu", "--budget", "1"]) == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["failed"] == list(gpu.SECTIONS)
    with pytest.raises(SystemExit) as end:
        gpu.main(["--only", "layout"])
    assert end.value.code == 2
    assert "no section 'layout', known: layouts, " in capsys.readouterr().err
