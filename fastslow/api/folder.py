"""A run folder, to be read: its records as data frames, its report, its policy."""

import html
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastslow.api.frames import events_frame, scores_frame, steps_frame
from fastslow.core.errors import ConfigError
from fastslow.core.files import damage_errors, read_json
from fastslow.core.prompts import PromptProgram
from fastslow.policy.saved import KeptPolicy, read_kept
from fastslow.records.events import TextEvent
from fastslow.records.jsonl import read_events, read_scores
from fastslow.records.lock import read_state
from fastslow.records.run_folder import RunDir, require_no_links

if TYPE_CHECKING:
    from pandas import DataFrame

    from fastslow.loop.answering import Answering
    from fastslow.results.deploy.standing import Standing

T = TypeVar("T")


def open_run(path: str | PathLike[str], *, trust: bool = False) -> "RunFolder":
    """Open a run folder to read it, at any time of the run; nothing is written to it.

    `trust` says that `predict` may use addresses and code which a folder names that you did not
    make; nothing else does.

    Examples:
        >>> run = fastslow.open_run("runs/reference/demo")
        >>> deployed = run.scores.query("prompt_policy == 'live' and cycle.isna()")
        >>> deployed.row.unique().tolist()
        [1, 2, 3]

    Raises:
        CheckpointError: It is not a run folder.
    """
    return RunFolder(Path(path), trust)


class RunFolder:
    """A run as its folder has it, read anew at each access: it may be training still.

    Stages count from 1 here, as in reports, in command lines and in `scores.row`; 0 is the base.
    Every access raises `CheckpointError` where a file that it reads is missing or damaged.
    """

    def __init__(self, path: Path, trust: bool = False) -> None:
        RunDir.require(path)
        self._trust = trust
        self.path = path
        """The folder."""

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @property
    def state(self) -> str:
        """`running`, `finished`, `failed`, `interrupted` by a signal, or `died`."""
        return self._read(read_state)

    @property
    def config(self) -> dict[str, Any]:
        """The complete configuration, as config.json has it; docs/config.md lists the keys."""
        config: dict[str, Any] = self._read(read_json, "config.json")
        return config

    @property
    def scores(self) -> "DataFrame":
        """Every graded completion, a line each.

        `row` of the score matrix (0 the base, i after stage i); `cycle` within a stage, from 1,
        missing at its end; `task`, `example`; `score` in [0, 1], higher is better; `sample`, above
        0 where the base was scored again; `prompt_policy`, the role of the prompt (`seed`, `own`,
        `live`, `reopt`), and `text_hash`, its hash; `weights`, the fingerprint of the adapter;
        `completion`, `tokens` in it, `reason` of the grade; `gold`, hash of the gold answer;
        `reused`, whether nothing was drawn for it; `cluster` of the example; `version` of the task.
        """
        return scores_frame(self._read(read_scores, "scores.jsonl"))

    @property
    def events(self) -> "DataFrame":
        """Everything else that was recorded, a line each; a column is empty where a kind has none.

        `event` is the kind: `cycle` (rollouts and seconds by channel), `population` and `text`
        (prompts), `remedy`, `drift` (`value` in nats per token), `figures`, `evaluation`
        (`rollouts`, `seconds`), `guess`, `data`, `run` and others. `fastslow.records.events`
        describes every field.
        """
        return events_frame(self._read(read_events, "events.jsonl"))

    @property
    def metrics(self) -> "DataFrame":
        """Every optimizer update, a line each.

        `stage`, `cycle`, `step` within the stage, all from 1; `time` in seconds since 1970; a
        column per figure of the slow channel, as `slow/reward` in [0, 1] or `slow/loss`.
        """
        return steps_frame(self._read(read_events, "metrics.jsonl"))

    @property
    def matrix(self) -> "DataFrame":
        """The score matrix, means in [0, 1]: a line per stage, `base` first, a column per task.

        Examples:
            >>> run = fastslow.open_run("runs/reference/demo")
            >>> list(run.matrix.index)
            ['base', '1 country_continent', '2 word_valence', '3 word_language']
        """
        import pandas

        from fastslow.results.report.build import build_report
        from fastslow.results.report.section import stage_label

        report = build_report(self.path)
        labels = [stage_label(index, task) for index, task in enumerate(report.card.stages)]
        cells = [[cell.score for cell in row] for row in report.cells]
        return pandas.DataFrame(cells, ["base", *labels], list(report.card.tasks), dtype=float)

    @property
    def report(self) -> dict[str, Any]:
        """What report.json says, computed from the records; docs/report-schema.md has its keys.

        Examples:
            >>> run = fastslow.open_run("runs/reference/demo")
            >>> sorted(run.report["metrics"]["average_accuracy"])
            ['formula', 'reason', 'value']
        """
        from fastslow.results.report.build import build_report
        from fastslow.results.report.write import report_json

        report: dict[str, Any] = json.loads(report_json(build_report(self.path)))
        return report

    def show(self, *, full: bool = False) -> None:
        """Print the report, as `fastslow report` does: one screen, or every table and prompt."""
        from rich.console import Console

        from fastslow.results.report import build_report, render_terminal

        report = render_terminal(build_report(self.path), full=full)
        Console(highlight=False, force_jupyter=False).print(report)

    def _repr_html_(self) -> str:
        """The report's page in a frame of its own, where no script runs; notebooks show it."""
        from fastslow.results.report.build import build_report
        from fastslow.results.report.page import page

        report = build_report(self.path)
        text = html.escape(page(report, report.drawings()))
        return f'<iframe sandbox width="100%" height="600" srcdoc="{text}"></iframe>'

    @property
    def prompts(self) -> dict[int, dict[str, PromptProgram]]:
        """By stage, the prompt that each task was deployed with after it.

        A task whose prompt no stage has chosen so far has none: it is asked with its seed prompt.

        Examples:
            >>> prompts = fastslow.open_run("runs/reference/demo").prompts
            >>> list(prompts[2])
            ['country_continent', 'word_valence']
            >>> [len(prompt.demonstrations) > 0 for prompt in prompts[2].values()]
            [True, True]
        """
        prompts: dict[int, dict[str, PromptProgram]] = {}
        present: dict[str, PromptProgram] = {}
        for event in self._read(read_events, "events.jsonl"):
            if isinstance(event, TextEvent):
                present = {**present, event.task: event.program}
                prompts[event.stage + 1] = present
        return prompts

    def adapter(self, stage: int | None = None, task: str | None = None) -> Path:
        """Folder of the PEFT adapter after a stage, by default of the one that is deployed.

        Where every task keeps an adapter of its own (slow.adapter_policy: new-per-stage), that of
        the task named, by default the stage's.

        Raises:
            CheckpointError: The folder does not hold that stage: it is a copy of records alone.
            ConfigError: There is no adapter, since the slow channel was off.
        """
        standing, policy = self._kept(stage)
        folder = policy.adapter_of(task or standing.stages[standing.row - 1])
        if folder is None:
            raise ConfigError(f"{self.path}: no adapter, got slow = null in this run.")
        return folder

    def predict(
        self,
        task: str,
        questions: Sequence[str],
        stage: int | None = None,
        max_tokens: int | None = None,
    ) -> list[str]:
        """Answers to questions of a task, greedy, under the adapter and prompt it is deployed with.

        The same as were scored, for questions that were. The model is loaded at the first call.
        `stage` is as in `adapter`; `max_tokens` limits an answer, by default as the task does,
        whose data must be there then.

        Raises:
            ConfigError: The run has no such task.
            CheckpointError: As `adapter`, or its files are not those that were scored.
            ModelError: The base model is not on this machine.
        """
        _, policy = self._kept(stage)
        return self._answering.answers(policy, task, questions, max_tokens)

    @cached_property
    def _answering(self) -> "Answering":
        from fastslow.api.words import quiet

        with quiet():
            from fastslow.loop.answering import Answering

            return Answering(self.path, self._trust)

    def _read(self, read: Callable[[Path], T], name: str = "") -> T:
        """What `read` makes of a file of the folder, or of the folder; no link is followed."""
        require_no_links(self.path)
        with damage_errors(self.path / name, "cannot be read"):
            return read(self.path / name)

    def _kept(self, stage: int | None) -> "tuple[Standing, KeptPolicy]":
        """How the run stood after a stage, and its policy's files, which fit the records."""
        from fastslow.results.deploy.standing import read_standing, verify_kept

        standing = read_standing(self.path, stage)
        policy = read_kept(standing.folder)
        verify_kept(standing, policy)
        return standing, policy
