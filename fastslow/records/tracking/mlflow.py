"""The tracker MLflow: one run per sequence, one nested run per stage.

The run of the sequence has all that is measured of the rows of the score matrix, over the number of
the row, the data with its fingerprints, and evaluation datasets; those of stages have what channels
report, and traces of some rollouts. Only this and `mlflow_entities.py` import mlflow. Every MLflow
run carries a tag by which it is found again, so that a resumed run continues in the same MLflow
runs; what comes again is not sent twice.
"""

import contextlib
import json
import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastslow.core.prompts import PromptProgram
from fastslow.core.tracker import Status, TaskSplit, TrackedRun, TrackedSample, Tracker
from fastslow.core.types import Json
from fastslow.policy.render import chat_messages
from fastslow.records.row_metrics import FORMULAS
from fastslow.records.tracking.mlflow_entities import (
    dataset_inputs,
    evaluation_records,
    log_trace,
)
from fastslow.records.tracking.mlflow_store import require_store
from fastslow.records.tracking.points import Points

_PARAMS_A_CALL = 100
"""Parameters MLflow takes in one request."""
_MAX_PARAM = 6000
"""Characters MLflow keeps of a parameter's value."""
_TAG = "fastslow.id"
_REFUSALS = ("BAD_REQUEST", "INVALID_PARAMETER_VALUE", "PERMISSION_DENIED")
"""Error codes of MLflow that say nothing about the connection."""
_STATUSES: Mapping[Status, str] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
_RAW, _END_RAW = "{% raw %}", "{% endraw %}"
_SPLIT = _END_RAW + "{{ '{%' }}" + _RAW
"""Stands for `{%` inside a raw block, which it could end."""


NOTE = "Over the rows of the score matrix (step 0 is the base):\n\n" + "\n".join(
    f"- {name}: {formula}" for name, formula in FORMULAS.items()
)
"""What MLflow shows about a run beside its figures."""


class MlflowTracker(Tracker):
    """Tracks in MLflow; without an address in `folder`, in a SQLite file that needs no server."""

    def __init__(self, folder: Path, uri: str | None = None, experiment: str = "fastslow") -> None:
        place = folder.resolve()
        self._uri = uri or f"sqlite:///{place / 'mlflow.db'}"
        self._artifacts = place / "mlflow-artifacts"
        self._experiment = experiment
        self._experiment_id = ""
        self._connection: Any = None
        self._run: TrackedRun | None = None
        self._tasks: dict[int, str] = {}
        self._ids: dict[int | None, str] = {}
        """Ids of MLflow runs by stage; None for the whole sequence's."""
        self._points: dict[str, Points] = {}
        """By id, what an MLflow run has."""

    def prepare(self) -> None:
        """Make store and experiment: processes that make one SQLite file disturb each other."""
        with self._client():
            pass

    def begin(self, run: TrackedRun) -> None:
        """Open the run's MLflow run, or the one made for it before, with its parameters."""
        from mlflow.entities import Param
        from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

        self._run = run
        flat = {_name(key): str(value)[:_MAX_PARAM] for key, value in _flatten(run.config)}
        with self._client() as client:
            run_id = self._run_id(client, None)
            there = client.get_run(run_id).data  # a resumed run keeps those it began with
            params = [Param(n, value) for n, value in flat.items() if n not in there.params]
            for start in range(0, len(params), _PARAMS_A_CALL):
                client.log_batch(run_id, params=params[start : start + _PARAMS_A_CALL])
            if MLFLOW_RUN_NOTE not in there.tags:
                client.set_tag(run_id, MLFLOW_RUN_NOTE, NOTE)

    def begin_stage(self, stage: int, task: str) -> None:
        """Open the nested run of a stage, or the one made for it before."""
        self._tasks[stage] = task
        with self._client() as client:
            self._run_id(client, stage)

    def data(self, splits: Sequence[TaskSplit]) -> None:
        """Name the data that the run uses, and keep what is scored as evaluation datasets.

        Runs on the same data share them.
        """
        with self._client() as client:
            client.log_inputs(self._run_id(client, None), dataset_inputs(splits))
            for split in splits:
                if not split.examples:
                    continue
                name = f"{_asset(split.task)}-{split.fingerprint}-{len(split.examples)}"
                same = client.search_datasets(filter_string=f"name = '{name}'")
                dataset = same[0] if same else client.create_dataset(name, self._experiment_id)
                store = client._tracking_client.store  # datasets themselves ask the global address
                store.upsert_dataset_records(dataset.dataset_id, evaluation_records(split))
                experiments = store.get_dataset_experiment_ids(dataset.dataset_id)
                if self._experiment_id not in experiments:
                    client.add_dataset_to_experiments(dataset.dataset_id, [self._experiment_id])

    def samples(self, stage: int, task: str, samples: Sequence[TrackedSample]) -> None:
        """Keep rollouts as traces of the stage's run."""
        from mlflow.tracing.client import TracingClient

        assert self._run is not None
        with self._client() as client:
            run_id, tracing = self._run_id(client, stage), TracingClient(self._uri)
            place = self._experiment_id, run_id, self._run.identity
            for traced in samples:
                log_trace(tracing, *place, task, traced)

    def log(self, metrics: Mapping[str, float], step: int, time: float, stage: int | None) -> None:
        """Keep values in the run of the stage, but for those it has."""
        from mlflow.entities import Metric

        with self._client() as client:
            run_id = self._run_id(client, stage)
            named = {_name(key): value for key, value in metrics.items()}
            new = self._points[run_id].new(named, step, stage).items()
            points = [Metric(name, value, int(time * 1000), step) for name, value in new]
            client.log_batch(run_id, metrics=points)

    def artifact(self, path: Path, stage: int | None) -> None:
        """Keep a copy of a file or folder in the run of the stage."""
        with self._client() as client:
            run_id = self._run_id(client, stage)
            if path.is_dir():
                client.log_artifacts(run_id, str(path), path.name)
            else:
                client.log_artifact(run_id, str(path))

    def prompts(
        self, stage: int, task: str, prompts: Sequence[PromptProgram], live: PromptProgram
    ) -> None:
        """Keep each text as one version of the prompt `<run>.<task>`; none twice.

        Where another run has that name, the run's identity stands behind it.

        The alias `stage-<number>`, counted from 1, goes to the text that is deployed after it. The
        experiment and the stage's run show them.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.prompt.constants import PROMPT_EXPERIMENT_IDS_TAG_KEY
        from mlflow.tracing.constant import TraceTagKey

        assert self._run is not None
        programs = {program.text_hash: program for program in (*prompts, live)}
        refusal: Exception | None = None
        with self._client() as client:
            name, versions = self._own_prompt(client, task)
            numbers = {version.tags.get("text_hash"): version.version for version in versions}
            for text_hash, program in programs.items():
                if text_hash in numbers:
                    continue
                lineage = {k: str(v) for k, v in asdict(program.lineage).items() if v is not None}
                words = f"{program.lineage.optimizer}, {len(program.demonstrations)} examples"
                tags = {**lineage, "text_hash": text_hash, _TAG: self._run.identity}
                template = prompt_template(program)
                try:
                    version = client.register_prompt(name, template, words, tags)
                except MlflowException as error:  # too long, say; the others are kept all the same
                    if error.error_code not in _REFUSALS:
                        raise
                    refusal = error
                else:
                    numbers[text_hash] = version.version
            if live.text_hash in numbers:
                number = int(numbers[live.text_hash])
                client.set_prompt_alias(name, f"stage-{stage + 1}", number)
                if self._tasks.get(stage) == task:  # MLflow's own way takes its global address
                    link = json.dumps([{"name": name, "version": str(number)}])
                    client.set_tag(self._run_id(client, stage), TraceTagKey.LINKED_PROMPTS, link)
            _wait_for_links()
            if numbers:  # no version without a prompt to tag
                ids = f",{self._experiment_id},"
                client.set_prompt_tag(name, PROMPT_EXPERIMENT_IDS_TAG_KEY, ids)
        if refusal is not None:
            raise refusal

    def _own_prompt(self, client: Any, task: str) -> tuple[str, Sequence[Any]]:
        """Name and versions of a task's prompt; one of another run of this name is left alone."""
        assert self._run is not None
        identity, name = self._run.identity, _asset(f"{self._run.name}.{task}")
        while True:
            is_new = all(entry.name != name for entry in client.search_prompts(f"name = '{name}'"))
            versions = [] if is_new else client.search_prompt_versions(name)
            if all(version.tags.get(_TAG, identity) == identity for version in versions):
                return name, versions
            name = f"{name}.{identity}"

    def end_stage(self, stage: int, status: Status) -> None:
        """Close the nested run."""
        with self._client() as client:
            client.set_terminated(self._run_id(client, stage), _STATUSES[status])

    def end(self, status: Status) -> None:
        """Close the run, and nested ones that a kill left open."""
        with self._client() as client:
            run_id = self._run_id(client, None)
            nested = f"tags.`mlflow.parentRunId` = '{run_id}' and attributes.status = 'RUNNING'"
            for run in client.search_runs([self._experiment_id], nested):
                client.set_terminated(run.info.run_id, "FINISHED")
            client.set_terminated(run_id, _STATUSES[status])

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        """The connection to MLflow, made again after it broke."""
        # else a server that is gone would hold the run up for minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            if self._connection is None:
                self._connection = self._connect()
            yield self._connection
        except (MlflowException, SQLAlchemyError, OSError) as error:
            if getattr(error, "error_code", None) not in _REFUSALS:
                self._connection = None
                self._ids.clear()
            raise

    def _connect(self) -> Any:
        from mlflow import MlflowClient

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        with warnings.catch_warnings():  # MLflow's tables use what SQLAlchemy 2.1 deprecates
            warnings.simplefilter("ignore", DeprecationWarning)
            require_store(self._uri)
            client = MlflowClient(self._uri)
            experiment = client.get_experiment_by_name(self._experiment)
        if experiment is None:
            place = self._artifacts.as_uri() if self._uri.startswith("sqlite:") else None
            self._experiment_id = client.create_experiment(self._experiment, place)
        else:
            self._experiment_id = experiment.experiment_id
        return client

    def _run_id(self, client: Any, stage: int | None) -> str:
        """The MLflow run of a stage: the one found by its tag, or a new one."""
        if stage not in self._ids:
            assert self._run is not None
            tag = f"{self._run.identity}/{'run' if stage is None else f'stage-{stage}'}"
            runs = client.search_runs([self._experiment_id], f"tags.`{_TAG}` = '{tag}'")
            if runs:
                run_id = runs[0].info.run_id
                if run_id not in self._points:
                    self._points[run_id] = Points(
                        (point.key, point.step, point.value)
                        for name in runs[0].data.metrics
                        for point in client.get_metric_history(run_id, name)
                        if stage is None or point.timestamp > self._run.since * 1000
                    )
                client.update_run(run_id, status="RUNNING")
            else:
                name, tags = self._run.name, {_TAG: tag}
                if stage is not None:
                    task = self._tasks[stage]
                    name = f"{stage + 1}-{task}"
                    tags |= {"task": task, "stage": str(stage + 1)}
                    tags["mlflow.parentRunId"] = self._run_id(client, None)
                run = client.create_run(self._experiment_id, run_name=name, tags=tags)
                run_id = run.info.run_id
                self._points[run_id] = Points()
            self._ids[stage] = run_id
        return self._ids[stage]


def _wait_for_links() -> None:
    """Wait for MLflow's threads that link new prompts to its global experiment.

    They write the tag that we set, and two at once are an error, or theirs stays.
    """
    for thread in threading.enumerate():
        if thread.name.startswith("link_prompt_to_experiment"):
            thread.join()


def prompt_template(program: PromptProgram) -> list[dict[str, str]]:
    """A text as MLflow's chat template, with one variable: `question`.

    Braces that MLflow would take for a variable or for Jinja are kept from it by writing the whole
    as Jinja with raw blocks, so that `format(question=…)` gives the messages we render.
    """
    *turns, _ = chat_messages(program, "")
    has_braces = any(mark in m["content"] for m in turns for mark in ("{{", "{%", "{#"))
    if not has_braces:
        return [*turns, {"role": "user", "content": "{{question}}"}]
    raw = [{**m, "content": f"{_RAW}{m['content'].replace('{%', _SPLIT)}{_END_RAW}"} for m in turns]
    return [*raw, {"role": "user", "content": "{{question}}"}]


def _flatten(params: Mapping[str, Json], prefix: str = "") -> Iterator[tuple[str, Json]]:
    for key, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _asset(text: str) -> str:
    """A name for a prompt or a dataset."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)


def _name(text: str) -> str:
    """A name that MLflow accepts."""
    return re.sub(r"[^A-Za-z0-9_./ -]", "_", text)[:250]
