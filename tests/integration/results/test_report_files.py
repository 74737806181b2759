"""The files of a report: the same bytes from the same records, every key documented."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastslow.core.errors import CheckpointError
from fastslow.results.report import build_report, recompute_report, write_report
from fastslow.results.report.write import report_json as json_of
from tests.support.paths import ROOT
from tests.support.run_folder import OUTCOMES, report_json, write_run


def test_the_same_files_give_the_same_bytes_wherever_they_lie(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    first = [path.read_bytes() for path in write_report(run)]
    copy = tmp_path / "elsewhere"
    shutil.copytree(run, copy)
    for path in copy.glob("report.*"):
        path.unlink()
    assert [path.read_bytes() for path in write_report(copy)] == first
    assert not list(copy.glob("*.tmp"))


def test_scores_csv_has_one_line_per_cell(tmp_path: Path) -> None:
    run = write_run(tmp_path, OUTCOMES[:3])
    write_report(run)
    with (run / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert rows[3] | {"row": "1", "after": "alpha", "task": "alpha", "score": "1.000000"} == rows[3]
    assert (rows[11]["score"], rows[11]["n"]) == ("", "0")


def test_every_key_of_report_json_is_documented(tmp_path: Path) -> None:
    data = report_json(write_run(tmp_path))
    schema = (ROOT / "docs" / "report-schema.md").read_text()
    keys = {*data, *data["cells"][0][0], *data["per_task"]["alpha"], *data["stages"][0]}
    keys |= {*data["per_task"]["alpha"]["change"], *data["drift"][0], *data["prompts"]["alpha"]}
    keys |= set(data["metrics"]["bwt_gem"])
    assert {key for key in keys if f"`{key}`" not in schema} == set()


WITHOUT_MODELS = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "trl", "peft", "dspy", "mlflow"}:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocked())
from fastslow.cli.main import main
sys.exit(main(["report", sys.argv[1], "--recompute"]))
"""


def test_a_copied_run_is_recomputed_to_the_same_bytes_where_no_model_could_be_loaded(
    tmp_path: Path,
) -> None:
    run = write_run(tmp_path / "runs")
    report_json(run)
    copy = tmp_path / "elsewhere"
    shutil.copytree(run, copy)
    (copy / "report.md").unlink()

    def recomputed() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", WITHOUT_MODELS, str(copy)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=60,
        )

    done = recomputed()
    assert done.returncode == 0, done.stderr
    assert "byte-identical" in done.stdout
    assert not (copy / "report.md").exists()  # it only looks


def test_recomputing_names_what_report_json_says_otherwise(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    report_json(run)
    path = run / "report.json"
    data = json.loads(path.read_text())
    data["metrics"]["bwt_gem"]["value"] = 0.25
    path.write_text(json.dumps(data))
    assert recompute_report(run) == ("metrics.bwt_gem.value: 0.25 -> -0.4375",)
    path.write_text(json.dumps(json.loads(json_of(build_report(run)))))
    assert recompute_report(run) == ("the layout: not our writer's",)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"report\.json: cannot be read, .*fastslow report"):
        recompute_report(run)


def test_what_is_no_run_folder_or_damaged_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"run\.json: cannot be read"):
        build_report(tmp_path)
    run = write_run(tmp_path)
    with (run / "events.jsonl").open("a") as file:
        file.write("garbage\n")
    with pytest.raises(CheckpointError, match=r"events\.jsonl:\d+: not a record"):
        build_report(run)
