"""Metrics, texts and files of a run in MLflow, beside the run folder. It never decides anything.

One MLflow run per sequence, one nested run per stage; numeric metrics only. Records in the run
folder are the truth: when MLflow fails, the run goes on, the failure is counted and named once.
Called by `stages.py`, which reads nothing back.
"""

import contextlib
import json
import logging
import math
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from fastslow.policy.render import chat_messages
from fastslow.prompts import Population, PromptProgram
from fastslow.types import Json

_LOG = logging.getLogger(__name__)
_MAX_PARAM = 6000
"""Characters MLflow keeps of a parameter's value."""
_PARAMS_A_CALL = 100
"""Parameters MLflow takes in one request."""
_RAW, _END_RAW = "{% raw %}", "{% endraw %}"
_SPLIT = _END_RAW + "{{ '{%' }}" + _RAW
"""Stands for `{%` inside a raw block, which it could end."""


class Tracker(Protocol):
    """Receives what a run produces, as it is produced."""

    def run(self, name: str, params: Mapping[str, Json]) -> AbstractContextManager[None]:
        """The whole sequence; everything else happens inside."""
        ...

    def stage(self, index: int, task: str) -> AbstractContextManager[None]:
        """One stage, index from 0; what is logged inside belongs to it."""
        ...

    def log(self, metrics: Mapping[str, float | None], step: int) -> None:
        """Keep the finite values of `metrics` at `step`; others are left out."""
        ...

    def artifact(self, path: Path) -> None:
        """Keep a copy of a file, or of a folder with everything in it."""
        ...

    def text(self, name: str, text: str) -> None:
        """Keep `text` as a file called `name`."""
        ...

    def prompts(self, stage: int, task: str, population: Population, live: PromptProgram) -> None:
        """Keep a task's prompt texts as they are after a stage, index from 0."""
        ...


class NullTracker:
    """Tracks nothing: the run folder is enough."""

    @contextlib.contextmanager
    def run(self, name: str, params: Mapping[str, Json]) -> Iterator[None]:
        """Do nothing."""
        yield

    @contextlib.contextmanager
    def stage(self, index: int, task: str) -> Iterator[None]:
        """Do nothing."""
        yield

    def log(self, metrics: Mapping[str, float | None], step: int) -> None:
        """Do nothing."""

    def artifact(self, path: Path) -> None:
        """Do nothing."""

    def text(self, name: str, text: str) -> None:
        """Do nothing."""

    def prompts(self, stage: int, task: str, population: Population, live: PromptProgram) -> None:
        """Do nothing."""


class MlflowTracker:
    """Tracks in MLflow, by default in a SQLite file that needs no server.

    The MLflow ids are kept in a file of the run folder, so a resumed run goes on in the same
    MLflow runs. `num_failures` says how many calls were lost.
    """

    def __init__(
        self, folder: Path, ids: Path, uri: str | None = None, experiment: str = "fastslow"
    ) -> None:
        """Remember where to track; nothing is imported or opened before `run`.

        Args:
            folder: Where `mlflow.db` and `mlflow-artifacts/` lie when `uri` is None.
            ids: JSON file that keeps the ids of the MLflow runs, inside the run folder.
            uri: An MLflow tracking address; None is the SQLite file in `folder`.
            experiment: The MLflow experiment, made if it is not there.
        """
        self.num_failures = 0
        self._folder, self._ids_path, self._experiment = folder.resolve(), ids, experiment
        self._uri = uri or f"sqlite:///{self._folder / 'mlflow.db'}"
        self._ids: dict[str, str] = {}
        self._run_name = ""
        self._client: Any = None
        self._failures: tuple[type[Exception], ...] = (OSError, json.JSONDecodeError)
        self._open_runs: list[str | None] = []

    def prepare(self) -> None:
        """Make the store and the experiment if they are not there.

        Processes that make the same SQLite file at the same time disturb each other.
        """
        self._try("open the store", self._connect)

    @contextlib.contextmanager
    def run(self, name: str, params: Mapping[str, Json]) -> Iterator[None]:
        """Open the parent run, or the one kept in the ids file; closed when the block ends.

        Args:
            name: Shown in MLflow; the name of the run folder.
            params: The configuration; nested mappings become dotted names.
        """
        self._run_name = name
        self._try("open the store", self._connect)
        self._try("read the ids of an earlier part", self._read_ids)
        is_new = "run" not in self._ids
        with self._open("run", name, {}):
            if is_new:
                self._try("log the parameters", lambda: self._log_params(params))
            yield

    @contextlib.contextmanager
    def stage(self, index: int, task: str) -> Iterator[None]:
        """Open the nested run of a stage, or the one kept in the ids file."""
        tags = {"mlflow.parentRunId": self._ids.get("run", ""), "task": task, "stage": str(index)}
        with self._open(f"stage-{index}", f"{index}-{task}", tags):
            yield

    def log(self, metrics: Mapping[str, float | None], step: int) -> None:
        """Keep the finite values of `metrics` at `step` in the innermost open run."""

        def call() -> None:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            values = [
                Metric(_name(key), float(value), now, step)
                for key, value in metrics.items()
                if value is not None and math.isfinite(value)
            ]
            self._store.log_batch(self._innermost, metrics=values)

        self._try("log metrics", call)

    def artifact(self, path: Path) -> None:
        """Keep a copy of a file or folder in the innermost open run."""

        def call() -> None:
            if path.is_dir():
                self._store.log_artifacts(self._innermost, str(path), path.name)
            else:
                self._store.log_artifact(self._innermost, str(path))

        self._try(f"keep {path.name}", call)

    def text(self, name: str, text: str) -> None:
        """Keep `text` as a file called `name` in the innermost open run."""
        self._try(f"keep {name}", lambda: self._store.log_text(self._innermost, text, name))

    def prompts(self, stage: int, task: str, population: Population, live: PromptProgram) -> None:
        """Keep each text as one version of the prompt `<run>.<task>`; none twice.

        The alias `stage-<number>`, counted from 1, goes to the text that is deployed after it.
        """
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{self._run_name}.{task}")
        programs = {c.program.text_hash: c.program for c in population} | {live.text_hash: live}
        for text_hash, program in programs.items():
            key = f"text-{task}-{text_hash}"
            if key not in self._ids:
                self._try(f"keep the text {text_hash}", partial(self._register, key, name, program))

        def name_live() -> None:
            version = self._ids.get(f"text-{task}-{live.text_hash}")
            if version is not None:  # else its loss was counted above
                self._store.set_prompt_alias(name, f"stage-{stage + 1}", int(version))

        self._try(f"name the text of stage {stage + 1}", name_live)

    def _register(self, key: str, name: str, program: PromptProgram) -> None:
        lineage = {k: str(v) for k, v in asdict(program.lineage).items() if v is not None}
        made = self._store.register_prompt(
            name,
            prompt_template(program),
            commit_message=f"{program.lineage.optimizer}, {len(program.demonstrations)} examples",
            tags=lineage | {"text_hash": program.text_hash},
        )
        self._keep_id(key, str(made.version))

    def _keep_id(self, key: str, value: str) -> None:
        self._ids[key] = value
        self._ids_path.write_text(json.dumps(self._ids, indent=2) + "\n")

    @property
    def _store(self) -> Any:
        if self._client is None:
            raise ConnectionError("the store is not open")
        return self._client

    @property
    def _innermost(self) -> str:
        if not self._open_runs or self._open_runs[-1] is None:
            raise ConnectionError("no MLflow run is open")
        return self._open_runs[-1]

    def _try(self, what: str, call: Callable[[], None]) -> None:
        """The boundary: whatever MLflow, its database or the disk raises ends here, counted."""
        try:
            call()
        except self._failures as error:
            self.num_failures += 1
            if self.num_failures == 1:
                _LOG.warning(
                    "tracking: could not %s, got %s: %s. The run goes on and its records are in "
                    "the run folder; further failures are only counted.",
                    what,
                    type(error).__name__,
                    str(error).split("\n", 1)[0][:200],
                )

    def _connect(self) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        self._failures = (*self._failures, MlflowException, SQLAlchemyError)
        with warnings.catch_warnings():  # MLflow's tables use what SQLAlchemy 2.1 deprecates
            warnings.simplefilter("ignore", DeprecationWarning)
            client = MlflowClient(self._uri)
            experiment = client.get_experiment_by_name(self._experiment)
        if experiment is None:
            is_local = self._uri.startswith("sqlite:")
            place = (self._folder / "mlflow-artifacts").as_uri() if is_local else None
            self._experiment_id = client.create_experiment(self._experiment, place)
        else:
            self._experiment_id = experiment.experiment_id
        self._client = client

    def _read_ids(self) -> None:
        if self._ids_path.exists():
            self._ids = json.loads(self._ids_path.read_bytes())

    @contextlib.contextmanager
    def _open(self, key: str, name: str, tags: Mapping[str, str]) -> Iterator[None]:
        """Inside, the innermost run is the one called `key` in the ids file, or lost."""
        self._open_runs.append(None)
        self._try(f"open the MLflow run {name}", lambda: self._begin(key, name, tags))
        status = "FAILED"
        try:
            yield
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            opened = self._open_runs.pop()
            if opened is not None:
                self._try(
                    f"close the MLflow run {name}",
                    lambda: self._store.set_terminated(opened, status),
                )

    def _begin(self, key: str, name: str, tags: Mapping[str, str]) -> None:
        if key in self._ids:
            self._store.update_run(self._ids[key], status="RUNNING")
        else:
            run = self._store.create_run(self._experiment_id, run_name=name, tags=dict(tags))
            self._keep_id(key, run.info.run_id)
        self._open_runs[-1] = self._ids[key]

    def _log_params(self, params: Mapping[str, Json]) -> None:
        from mlflow.entities import Param

        flat = [Param(_name(key), str(value)[:_MAX_PARAM]) for key, value in _flatten(params)]
        for start in range(0, len(flat), _PARAMS_A_CALL):
            batch = flat[start : start + _PARAMS_A_CALL]
            self._store.log_batch(self._innermost, params=batch)


def prompt_template(program: PromptProgram) -> list[dict[str, str]]:
    """A text as MLflow's chat template, with one variable: `question`.

    Braces that MLflow would take for a variable or for Jinja are kept from it by writing the whole
    as Jinja with raw blocks, so that `format(question=…)` gives the messages we render.
    """
    *shown, _ = chat_messages(program, "")
    has_braces = any(mark in m["content"] for m in shown for mark in ("{{", "{%", "{#"))
    if not has_braces:
        return [*shown, {"role": "user", "content": "{{question}}"}]
    raw = [{**m, "content": f"{_RAW}{m['content'].replace('{%', _SPLIT)}{_END_RAW}"} for m in shown]
    return [*raw, {"role": "user", "content": "{{question}}"}]


def _flatten(params: Mapping[str, Json], prefix: str = "") -> Iterator[tuple[str, Json]]:
    for key, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _name(text: str) -> str:
    """A name that MLflow accepts."""
    return re.sub(r"[^A-Za-z0-9_./ -]", "_", text)[:250]
