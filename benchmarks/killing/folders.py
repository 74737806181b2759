"""What runs and commands leave in their folders, and what may never be seen there."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastslow.core.errors import CheckpointError
from fastslow.core.files import read_json
from fastslow.policy.saved import fingerprint_of_file
from fastslow.records.events import (
    CycleEvent,
    EvaluationEvent,
    Event,
    RunEvent,
    ScoreRow,
    StepEvent,
)
from fastslow.records.jsonl import read_events, read_scores
from fastslow.records.lock import read_state
from fastslow.records.row_metrics import MINUTES
from fastslow.records.seal import broken_seal
from fastslow.results.report.build import build_report
from fastslow.results.report.sections.metrics import Metrics

KEPT = (".safetensors", "texts.json", "slow.json", "random.json", "index.json")
"""Ends of the names of files of a run that must be the same byte by byte."""
OWNERS = re.compile(r"(^|/)(lock|lease(/.*)?|[^/]*\.lock|mlflow\.db|mlflow-artifacts(/.*)?)$")
"""Paths of what says who holds a folder, and of MLflow's own files, which `tracked` reads."""
TIME = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[\d.:+Z-]*")


def leftovers(run: Path) -> dict[str, Any]:
    """What a run leaves behind, but for times and its own name."""
    point = max((run / "resume").iterdir(), key=lambda path: path.name)
    folders = (point, run / "stages", run / "probe", run / "rollouts")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    report = build_report(run)
    return {
        "unfinished": unfinished(run.parent),
        "state": read_state(run),
        "scores": [replace(row, run="") for row in read_scores(run / "scores.jsonl")],
        "events": [_timeless(event) for event in read_events(run / "events.jsonl")],
        "metrics": [_timeless(event) for event in read_events(run / "metrics.jsonl")],
        "matrix": [[cell.score for cell in row] for row in report.cells],
        "measures": {
            name: metric.value for name, metric in report.section(Metrics).metrics.items()
        },
        "probe": [
            {k: v for k, v in json.loads(path.read_text()).items() if k != "seconds"}
            for path in sorted((run / "probe").rglob("*.json"))
        ],
        **{
            path.relative_to(run).as_posix(): path.read_bytes()
            for path in files
            if path.name.endswith(KEPT) or path.suffix == ".txt"
        },
    }


def _timeless(event: Event | ScoreRow) -> Any:
    if isinstance(event, StepEvent | CycleEvent | EvaluationEvent):
        event = replace(event, time=None)
    if isinstance(event, CycleEvent):
        return replace(event, seconds={})
    if isinstance(event, RunEvent):
        return replace(event, seconds=0.0, saving_seconds=None, peak_gb=None)
    timed: Any = event
    return replace(timed, seconds=0.0) if hasattr(event, "seconds") else event


def tracked(store: Path, run: Path) -> dict[str, Any]:
    """What MLflow kept of a run: for the sequence and each stage its status and every point.

    But for the minutes that it took; and the number of traces and the artifacts of each.
    """
    from mlflow import MlflowClient

    client, ids = MlflowClient(f"sqlite:///{store}"), json.loads((run / "tracker.json").read_text())
    experiment = client.get_experiment_by_name("killed")
    assert experiment is not None
    own = f"tags.`fastslow.id` LIKE '{ids['identity']}/%'"
    home = [experiment.experiment_id]
    return {
        one.data.tags["fastslow.id"].partition("/")[2]: (
            one.info.status,
            {
                name: [(p.step, p.value) for p in client.get_metric_history(one.info.run_id, name)]
                for name in sorted(one.data.metrics.keys() - {MINUTES})
            },
            len(client.search_traces(locations=home, run_id=one.info.run_id)),
            sorted(file.path for file in client.list_artifacts(one.info.run_id)),
        )
        for one in client.search_runs(home, own)
    }


def digests(values: Mapping[str, Any]) -> dict[str, str]:
    """A SHA-256 of each value."""
    texts = {k: v if isinstance(v, bytes) else repr(v).encode() for k, v in values.items()}
    return {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}


def content(folder: Path) -> dict[str, Any]:
    """Every file and folder under a folder, but for times and what `OWNERS` has."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {
        name: TIME.sub(b"", path.read_bytes()) if path.is_file() else None
        for name, path in sorted(paths.items())
        if not OWNERS.search(name)
    }


def unfinished(folder: Path) -> list[str]:
    """Names under a folder that begin as those of what is still being written."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*tmp-*"))
    return sorted(names)


def faults(folder: Path) -> Iterator[str]:
    """What is half written under a name of its own, right after a kill."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if "tmp-" in name or OWNERS.search(name) or not path.is_file():
            continue
        try:
            if path.suffix == ".json":
                read_json(path)
            elif path.suffix == ".safetensors":
                fingerprint_of_file(path)
            elif path.suffix == ".jsonl":
                for line in path.read_bytes().split(b"\n")[:-1]:
                    json.loads(line)
            if path.name == "seal.json" and (problem := broken_seal(path.parent)) is not None:
                yield f"seal of {path.parent.name}: {problem}"
        except (OSError, ValueError, CheckpointError) as error:
            yield f"{name}: {error}"
