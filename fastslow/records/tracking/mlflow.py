"""MLflow as `tracker.py` sees it: takes messages, each of which may come twice.

The only module that imports mlflow. Every MLflow run it makes carries a tag by which it is found
again, so that a crash between making it and writing down its id makes no second one.
"""

import contextlib
import logging
import os
import sqlite3
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastslow.records.tracking.outbox import Message, Outbox

_PARAMS_A_CALL = 100
"""Parameters MLflow takes in one request."""
LOCK_PATIENCE_S = 1.0
"""How long another program may hold a SQLite file before it counts as locked."""
_TAG = "fastslow.id"
_REFUSALS = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "PERMISSION_DENIED",
    "RESOURCE_DOES_NOT_EXIST",
}
"""Error codes of MLflow after which the same message would be refused again."""


class Refused(Exception):
    """MLflow will never take this message."""


class Unavailable(Exception):
    """MLflow cannot be reached, or its database is locked, broken or gone; it may come back."""


class MlflowStore:
    """A connection to MLflow, made when the first message comes and made again after it broke.

    Args:
        uri: Tracking address.
        experiment: The MLflow experiment, made if it is not there.
        artifacts: Where artifacts of a SQLite store lie.
        root: Folder that paths of messages are relative to.
        outbox: Keeps the ids.
    """

    def __init__(
        self, uri: str, experiment: str, artifacts: Path, root: Path, outbox: Outbox
    ) -> None:
        self._uri, self._experiment, self._artifacts, self._root = uri, experiment, artifacts, root
        self._outbox = outbox
        self._client: Any = None
        self._experiment_id = ""

    def take(self, message: Message) -> None:
        """Do what a message says.

        Raises:
            Refused: It never will be done.
            Unavailable: It may be later.
        """
        # else a server that is gone would hold the run up for minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            if self._client is None:
                self._connect()
            getattr(self, f"_{message['kind']}")(message)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            words = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
            if getattr(error, "error_code", None) in _REFUSALS or isinstance(
                error, FileNotFoundError
            ):
                raise Refused(words) from error
            self._client = None
            raise Unavailable(words) from error

    def _prepare(self, message: Message) -> None:
        """Nothing: whatever comes first makes the store and the experiment."""

    def _connect(self) -> None:
        from mlflow import MlflowClient

        self._require_sqlite()

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        with warnings.catch_warnings():  # MLflow's tables use what SQLAlchemy 2.1 deprecates
            warnings.simplefilter("ignore", DeprecationWarning)
            client = MlflowClient(self._uri)
            experiment = client.get_experiment_by_name(self._experiment)
        if experiment is None:
            place = self._artifacts.as_uri() if self._uri.startswith("sqlite:") else None
            self._experiment_id = client.create_experiment(self._experiment, place)
        else:
            self._experiment_id = experiment.experiment_id
        self._client = client

    def _require_sqlite(self) -> None:
        """Fail at once where a SQLite file is locked or broken: MLflow would try for minutes."""
        path = Path(self._uri.removeprefix("sqlite:///"))
        if not self._uri.startswith("sqlite:///") or not path.exists():
            return
        try:
            with contextlib.closing(sqlite3.connect(path, timeout=LOCK_PATIENCE_S)) as database:
                database.execute("BEGIN IMMEDIATE")
                database.rollback()
        except sqlite3.Error as error:
            raise OSError(f"{path}: {error}") from error

    def _begin(self, message: Message) -> None:
        """Open the run called `key`: the one that is there, else a new one."""
        ids, key = self._outbox.ids, str(message["key"])
        if key in ids and not self._exists(ids[key]):
            if key == "run":
                self._outbox.start_over()  # another database: this one gets everything
            else:
                del ids[key]
            ids = self._outbox.ids
        if key not in ids:
            ids.setdefault("identity", uuid.uuid4().hex)
            self._outbox.save()  # before the run is made: by its tag it is found again
            ids[key] = self._found(f"{ids['identity']}/{key}") or self._made(message)
            self._outbox.save()
        self._client.update_run(ids[key], status="RUNNING")

    def _exists(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def _found(self, tag: str) -> str | None:
        found = self._client.search_runs([self._experiment_id], f"tags.`{_TAG}` = '{tag}'")
        return found[0].info.run_id if found else None

    def _made(self, message: Message) -> str:
        ids, key = self._outbox.ids, message["key"]
        tags: dict[str, str] = {_TAG: f"{ids['identity']}/{key}"}
        if key != "run":
            tags["mlflow.parentRunId"] = ids["run"]
        assert isinstance(message["tags"], Mapping)
        tags |= {name: str(value) for name, value in message["tags"].items()}
        run = self._client.create_run(self._experiment_id, run_name=message["name"], tags=tags)
        return str(run.info.run_id)

    def _end(self, message: Message) -> None:
        self._client.set_terminated(self._run(message), message["status"])

    def _params(self, message: Message) -> None:
        from mlflow.entities import Param

        assert isinstance(message["params"], Mapping)
        flat = [Param(name, str(value)) for name, value in message["params"].items()]
        for start in range(0, len(flat), _PARAMS_A_CALL):
            batch = flat[start : start + _PARAMS_A_CALL]
            self._client.log_batch(self._run(message), params=batch)

    def _metrics(self, message: Message) -> None:
        """The same metric at the same time is one point, however often it comes."""
        from mlflow.entities import Metric

        assert isinstance(message["metrics"], Mapping)
        values = [
            Metric(name, value, message["time"], message["step"])
            for name, value in message["metrics"].items()
        ]
        self._client.log_batch(self._run(message), metrics=values)

    def _artifact(self, message: Message) -> None:
        path = self._root / str(message["path"])
        if path.is_dir():
            self._client.log_artifacts(self._run(message), str(path), path.name)
        else:
            self._client.log_artifact(self._run(message), str(path))

    def _text(self, message: Message) -> None:
        self._client.log_text(self._run(message), message["text"], message["name"])

    def _prompt(self, message: Message) -> None:
        """Register a text as a version of its prompt, unless it is one already."""
        ids, key, name = self._outbox.ids, _text_key(message), message["name"]
        if key in ids:
            return
        assert isinstance(message["tags"], Mapping)
        versions = self._client.search_prompt_versions(name) if self._has_prompt(name) else []
        known = {version.tags.get("text_hash"): version.version for version in versions}
        version = known.get(message["text_hash"])
        if version is None:
            version = self._client.register_prompt(
                name,
                message["template"],
                commit_message=message["words"],
                tags={**message["tags"], "text_hash": message["text_hash"]},
            ).version
        ids[key] = str(version)
        self._outbox.save()

    def _alias(self, message: Message) -> None:
        version = self._outbox.ids.get(_text_key(message))
        if version is not None:  # else its loss was counted
            self._client.set_prompt_alias(message["name"], message["alias"], int(version))

    def _has_prompt(self, name: Any) -> bool:
        return any(found.name == name for found in self._client.search_prompts(f"name = '{name}'"))

    def _run(self, message: Message) -> str:
        run = self._outbox.ids.get(str(message["key"]))
        if run is None:
            raise Refused(f"no MLflow run was opened for {message['key']}")
        return str(run)


def _text_key(message: Message) -> str:
    return f"text-{message['task']}-{message['text_hash']}"
