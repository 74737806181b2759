"""Metrics, texts and files of a run in MLflow, beside the run folder. It never decides anything.

One MLflow run per sequence, one nested run per stage; numeric metrics only. Records in the run
folder are the truth: when MLflow fails, the run goes on, the failure is counted and named once, and
what MLflow missed is sent when it is back. Called by `loop/stages.py`, which reads nothing back.
"""

import contextlib
import logging
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from fastslow.config.models import RunConfig
from fastslow.core.prompts import Population, PromptProgram
from fastslow.core.types import Json
from fastslow.policy.render import chat_messages
from fastslow.records.tracking.mlflow import MlflowStore, Refused, Unavailable
from fastslow.records.tracking.outbox import Outbox

_LOG = logging.getLogger(__name__)
_MAX_PARAM = 6000
"""Characters MLflow keeps of a parameter's value."""
RETRY_S = 30.0
"""While MLflow is away it is asked again after so long, and at the end of every stage."""
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

    What is tracked goes to `tracking.jsonl` in the run folder first and to MLflow from there, so
    that nothing is lost while MLflow is away, and a resumed run, which goes on in the same MLflow
    runs, says nothing twice.
    """

    def __init__(
        self, folder: Path, run_folder: Path, uri: str | None = None, experiment: str = "fastslow"
    ) -> None:
        """Remember where to track; nothing is imported or opened before `run`.

        Args:
            folder: Where `mlflow.db` and `mlflow-artifacts/` lie when `uri` is None.
            run_folder: Gets `tracking.jsonl`, and `tracker.json` with the ids of the MLflow runs.
            uri: An MLflow tracking address; None is the SQLite file in `folder`.
            experiment: The MLflow experiment, made if it is not there.
        """
        self.num_failures = 0
        """Messages that MLflow refused for good, and attempts that found it away."""
        self._run_folder = run_folder
        self._outbox = Outbox(run_folder / "tracking.jsonl", run_folder / "tracker.json")
        place = folder.resolve()
        self._store = MlflowStore(
            uri or f"sqlite:///{place / 'mlflow.db'}",
            experiment,
            place / "mlflow-artifacts",
            run_folder,
            self._outbox,
        )
        self._run_name = ""
        self._open_runs: list[str] = []
        self._away_since = float("-inf")

    @property
    def num_pending(self) -> int:
        """Messages that wait for MLflow to come back."""
        return self._outbox.num_pending

    def prepare(self) -> None:
        """Make the store and the experiment if they are not there.

        Processes that make the same SQLite file at the same time disturb each other.
        """
        with self._surviving("open the store"):
            try:
                self._store.take({"kind": "prepare"})
            except Refused as error:
                self._count(f"the experiment was refused, {error}")

    @contextlib.contextmanager
    def run(self, name: str, params: Mapping[str, Json]) -> Iterator[None]:
        """Open the parent run, or the one kept in the ids file; closed when the block ends.

        Args:
            name: Shown in MLflow; the name of the run folder.
            params: The configuration; nested mappings become dotted names.
        """
        self._run_name = name
        with self._surviving("read what an earlier part left"):
            self._outbox.open()
        try:
            with self._open("run", name, {}):
                flat = {_name(key): str(value)[:_MAX_PARAM] for key, value in _flatten(params)}
                self._tell("params", params=flat)
                yield
        finally:
            if self.num_pending:
                _LOG.warning(
                    "tracking: %d messages to MLflow are kept in %s. To send them once it is back: "
                    "fastslow resume %s",
                    self.num_pending,
                    self._run_folder / "tracking.jsonl",
                    self._run_folder,
                )

    @contextlib.contextmanager
    def stage(self, index: int, task: str) -> Iterator[None]:
        """Open the nested run of a stage, or the one kept in the ids file."""
        with self._open(f"stage-{index}", f"{index}-{task}", {"task": task, "stage": str(index)}):
            yield

    def log(self, metrics: Mapping[str, float | None], step: int) -> None:
        """Keep the finite values of `metrics` at `step` in the innermost open run."""
        values = {
            _name(key): float(value)
            for key, value in metrics.items()
            if value is not None and math.isfinite(value)
        }
        self._tell("metrics", step=step, metrics=values, time=int(time.time() * 1000))

    def artifact(self, path: Path) -> None:
        """Keep a copy of a file or folder in the innermost open run."""
        inside = path.is_relative_to(self._run_folder)
        place = path.relative_to(self._run_folder) if inside else path.resolve()
        self._tell("artifact", path=str(place))

    def text(self, name: str, text: str) -> None:
        """Keep `text` as a file called `name` in the innermost open run."""
        self._tell("text", name=name, text=text)

    def prompts(self, stage: int, task: str, population: Population, live: PromptProgram) -> None:
        """Keep each text as one version of the prompt `<run>.<task>`; none twice.

        The alias `stage-<number>`, counted from 1, goes to the text that is deployed after it.
        """
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{self._run_name}.{task}")
        programs = {c.program.text_hash: c.program for c in population} | {live.text_hash: live}
        for text_hash, program in programs.items():
            lineage = {k: str(v) for k, v in asdict(program.lineage).items() if v is not None}
            self._tell(
                "prompt",
                name=name,
                task=task,
                text_hash=text_hash,
                template=prompt_template(program),
                words=f"{program.lineage.optimizer}, {len(program.demonstrations)} examples",
                tags=lineage,
            )
        self._tell(
            "alias", name=name, task=task, text_hash=live.text_hash, alias=f"stage-{stage + 1}"
        )

    @contextlib.contextmanager
    def _open(self, key: str, name: str, tags: Mapping[str, str]) -> Iterator[None]:
        """Inside, the innermost run is the one called `key` in the ids file."""
        self._open_runs.append(key)
        self._tell("begin", name=name, tags=dict(tags))
        status = "FAILED"
        try:
            yield
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            for left in self._outbox.left_open():
                if left not in self._open_runs:
                    self._tell("end", key=left, status="FINISHED")
            self._tell("end", status=status)
            self._open_runs.pop()

    def _tell(self, kind: str, **values: Json) -> None:
        with self._surviving("keep a message"):
            self._outbox.add({"kind": kind, "key": self._open_runs[-1], **values})
        self._deliver(is_last=kind == "end")

    def _deliver(self, is_last: bool) -> None:
        """Hand on what waits; while MLflow is away only now and then, and at every end."""
        if not is_last and time.monotonic() - self._away_since < RETRY_S:
            return
        with self._surviving("send a message"):
            for message in self._outbox.pending():
                try:
                    self._store.take(message)
                except Refused as error:
                    self._count(f"{message['kind']} refused, {error}. It is not in MLflow")
                self._outbox.mark()
            self._away_since = float("-inf")

    @contextlib.contextmanager
    def _surviving(self, what: str) -> Iterator[None]:
        """The boundary: whatever MLflow, its database or the disk raises ends here, counted."""
        try:
            yield
        except (Unavailable, OSError, ValueError) as error:
            self._away_since = time.monotonic()
            self._count(f"could not {what}, got {error}. What waits is sent later")

    def _count(self, words: str) -> None:
        self.num_failures += 1
        if self.num_failures == 1:
            _LOG.warning(
                "tracking: %s. The run goes on and its records are in the run folder; further "
                "failures are only counted.",
                words,
            )


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


def build_tracker(config: RunConfig, run_path: Path) -> Tracker:
    """The run's tracker; one that does nothing when it is off."""
    if config.tracking is None:
        return NullTracker()
    experiment = config.tracking.experiment or config.name
    return MlflowTracker(Path(config.runs_dir), run_path, config.tracking.uri, experiment)
