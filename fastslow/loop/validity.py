"""Studies of signals: reads problems of a run, or of a base model, and judges what was read.

One packed pass per task, prompt and weights. Nothing is drawn or trained, no record is changed.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from fastslow.core.errors import CheckpointError, ConfigError, nearest
from fastslow.core.prompts import Demonstration, PromptProgram
from fastslow.core.seeds import named_random
from fastslow.core.types import Example
from fastslow.loop.build import build_policy, build_signals, build_tasks
from fastslow.loop.launch import connected, run_folder
from fastslow.loop.score_cache import ScoreCache
from fastslow.measure.evaluator import Evaluator
from fastslow.measure.scores.routing_curve import Arm, RoutingCurve, routing_curve
from fastslow.measure.scores.signal_draws import Design, ProblemRow
from fastslow.measure.scores.validity import judge_signals
from fastslow.measure.stats.intervals import cluster_labels
from fastslow.policy.model_store import resolve
from fastslow.policy.placement import pick_device
from fastslow.policy.policy import Policy, load_policy, seed_program
from fastslow.policy.saved import BASE
from fastslow.policy.signals import FREE, SIGNALS, Reading, Signal
from fastslow.records.data import require_same_data
from fastslow.records.events import ScoreRow
from fastslow.records.jsonl import read_scores
from fastslow.records.new_folder import stage_path
from fastslow.records.run_card import read_day, read_dtype
from fastslow.records.run_folder import RunDir
from fastslow.records.trust import load_run
from fastslow.records.validity_file import SignalStudy
from fastslow.task.definition import Task
from fastslow.task.guarded_grader import is_exact
from fastslow.task.splits import spread_answers

MOST_PROBLEMS = 1000
"""Problems of a task that a base model is studied on. Source: ours."""
WORDS = re.compile(r"[^\W\d_]+(?:[ '-][^\W\d_]+){0,3}")
"""A question whose frequency is known: a word, or a name of up to four."""


@dataclass
class _Study:
    """A study in the making."""

    policy: Policy
    signals: Mapping[str, Signal]
    weights: dict[str, str] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    rows: list[ProblemRow] = field(default_factory=list)
    curves: list[RoutingCurve] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def read(
        self,
        task: Task,
        program: PromptProgram,
        examples: Sequence[Example],
        scores: Mapping[str, float] | None,
    ) -> None:
        """Add the problems of a task; without scores the greedy answer is judged by the reading."""
        readings = self.policy.read_prompts(program, examples)
        rarities, is_label_exact = self._rarities(task, examples), is_exact(task.grade)
        self.weights[task.name] = self.policy.weights_fingerprint()
        self.prompts[task.name] = program.text_hash
        self.labels[task.name] = "-ln p(gold answer)" if is_label_exact else "1 - score"
        for example, reading in zip(examples, readings, strict=True):
            score = float(reading.gold_is_greedy) if scores is None else scores[example.id]
            rarity = rarities.get(example.id)
            self.rows.append(
                ProblemRow(
                    example.id,
                    task.name,
                    difficulty=-reading.gold_logprob if is_label_exact else 1 - score,
                    wrong=score < 0.5,
                    signals={
                        name: _value(signal, reading) for name, signal in self.signals.items()
                    },
                    controls={
                        "question_length": float(reading.question_tokens),
                        "question_logprob": -reading.question_logprob,
                    }
                    | ({} if rarity is None else {"word_rarity": rarity}),
                    state=reading.state.numpy(),
                    cluster=example.cluster,
                )
            )

    def _rarities(self, task: Task, examples: Sequence[Example]) -> dict[str, float]:
        """Negated Zipf frequency in English of the questions that are words, by example."""
        try:
            from wordfreq import zipf_frequency
        except ImportError:
            self.absent.append(f"word_rarity on {task.name}: wordfreq is not installed")
            return {}
        words = {e.id: e.question for e in examples if WORDS.fullmatch(e.question)}
        if not words:
            self.absent.append(f"word_rarity on {task.name}: no question is a word")
        return {example: -zipf_frequency(word, "en") for example, word in words.items()}

    def finish(self, model: str, subject: str, primary: str, seed: int) -> SignalStudy:
        """Judge all that was read."""
        overall, tasks = judge_signals(self.rows, Design(primary, FREE, seed=seed))
        return SignalStudy(
            model, subject, primary, self.weights, self.prompts, self.labels, tuple(self.rows),
            overall, tasks, tuple(self.curves), tuple(self.absent),
        )  # fmt: skip


def _value(signal: Signal, reading: Reading) -> float | None:
    """What a signal says of a reading; None in place of what is not a finite number."""
    value = signal(reading)
    return value if value is not None and math.isfinite(value) else None


def study_run(path: Path, stage: int | None, primary: str, trust: bool = False) -> SignalStudy:
    """Study the test problems that a run scored after a stage, by default the last one scored.

    They are read under the deployed prompts, and again under each arm that could route to those.

    Raises:
        CheckpointError: It is not a run folder, is being written, or did not keep that stage.
        ConfigError: There is no such stage or signal.
    """
    RunDir.require(path)
    loaded = load_run(path, trust)
    config = loaded.config
    signals = {**SIGNALS, **build_signals(config.evaluation)}
    require_signal(primary, signals)
    scores = read_scores(path / "scores.jsonl")
    stages = [stage_config.task for stage_config in config.stages]
    folders = [path / stage_path(i, task) for i, task in enumerate(stages)]
    row = _scored_row(path, scores, folders, stage)
    tasks = build_tasks(loaded, config.task_names)
    require_same_data(path, tasks)
    model = resolve(config.model.name, config.model.revision)
    with connected(config), run_folder(config, lambda: RunDir.open(path)):
        policy = build_policy(config, model.path_or_id, read_day(path), read_dtype(path))
        policy.load(folders[row - 1])
        study, arms = _Study(policy, signals), _Arms(policy, scores, folders, row, config.seed)
        for task in tasks.values():
            sizes = config.evaluation
            evaluator = Evaluator(sizes.test_examples, sizes.validation_examples, sizes.split)
            arms.study(study, task, evaluator.test_sample(task))
        if not study.rows:
            raise CheckpointError(
                f"{path}: no score of stage {row} is of the weights and prompts in "
                f"{folders[row - 1]}. They were exchanged; put the right ones back."
            )
        subject = f"{path.name} after stage {row} of {len(stages)}"
        return study.finish(config.model.name, subject, primary, config.seed)


def _scored_row(
    path: Path, scores: Sequence[ScoreRow], folders: Sequence[Path], stage: int | None
) -> int:
    """The number of the stage to study, which was scored and kept."""
    scored = sorted({row.row for row in scores if row.row > 0 and row.cycle is None})
    if stage is not None and not 1 <= stage <= len(folders):
        raise ConfigError(f"signals --stage: expected 1 to {len(folders)}, got {stage}.")
    if not scored or (stage is not None and stage not in scored):
        raise CheckpointError(
            f"{path}: stage {stage or 1} was not scored, so it is not known which answers are "
            f"wrong. Scored: {', '.join(map(str, scored)) or 'none'}. Continue the run with: "
            f"fastslow resume {path}"
        )
    row = stage or scored[-1]
    if not folders[row - 1].is_dir():
        raise CheckpointError(
            f"{folders[row - 1]}: adapter and prompts of stage {row} are not there. Known: "
            f"{', '.join(f.name for f in folders if f.is_dir()) or 'none'}. Put it back, or "
            "give --stage of one that is there."
        )
    return row


class _Pair(NamedTuple):
    """An arm that could answer in place of the deployed one."""

    cheap: str
    strong: str
    weights: str
    """Fingerprint of those of the cheap arm."""
    program: PromptProgram
    """Its prompt."""
    context: Callable[[], AbstractContextManager[None]]
    """Within it the policy has its weights."""


@dataclass
class _Arms:
    """What the records of a run say of each task under several weights and prompts."""

    policy: Policy
    scores: Sequence[ScoreRow]
    folders: Sequence[Path]
    row: int
    seed: int

    def __post_init__(self) -> None:
        self.cache = ScoreCache(self.scores)
        self.weights = {(s.row, s.sample.task): s.sample.weights for s in self.scores}
        """Those that each task was scored with in each row."""

    def look_up(
        self, weights: str, program: PromptProgram, task: Task, examples: Sequence[Example]
    ) -> dict[str, float]:
        """Recorded scores by example."""
        samples = self.cache.look_up(weights, program.text_hash, task.name, examples, "live")
        return {example: sample.score for example, sample in samples.items()}

    def study(self, study: _Study, task: Task, sample: Sequence[Example]) -> None:
        """Read a task's problems as they are deployed, then the arms that were scored on them."""
        with self.policy.adapters.serving(task.name):
            weights, program = self.policy.weights_fingerprint(), self.policy.live_program(task)
            scores = self.look_up(weights, program, task, sample)
            examples = [example for example in sample if example.id in scores]
            if not examples:
                study.absent.append(f"{task.name}: not scored after stage {self.row}")
                return
            study.read(task, program, examples, scores)
        clusters = {e.id: e.cluster for e in examples if e.cluster is not None}
        pairs = self._pairs(task, weights, program)
        if self.row > 1 and len(pairs) < 3:
            name = f"adapter of an earlier stage / of stage {self.row} on {task.name}"
            study.absent.append(f"{name}: no other was scored under this prompt")
        for pair in pairs:
            name = f"{pair.cheap} / {pair.strong} on {task.name}"
            if (pair.weights, pair.program.text_hash) == (weights, program.text_hash):
                study.absent.append(f"{name}: both are the same")
                continue
            cheap_scores = self.look_up(pair.weights, pair.program, task, examples)
            if len(cheap_scores) < len(examples):
                study.absent.append(f"{name}: the former was not scored")
                continue
            with pair.context():
                readings = self.policy.read_prompts(pair.program, examples)
            study.curves.append(
                routing_curve(
                    task.name,
                    self._arm(pair.cheap, pair.program, cheap_scores, examples),
                    self._arm(pair.strong, program, scores, examples),
                    {n: [_value(s, r) for r in readings] for n, s in study.signals.items()},
                    cluster_labels([example.id for example in examples], clusters),
                    self.seed,
                )
            )

    def _pairs(self, task: Task, weights: str, program: PromptProgram) -> list[_Pair]:
        """The arms that a task could be routed from, to the deployed one."""
        serving = partial(self.policy.adapters.serving, task.name)
        base = partial(self.policy.as_of, "base")
        pairs = [
            _Pair("seed prompt", "deployed prompt", weights, seed_program(task), serving),
            _Pair("base", "tuned", BASE, program, base),
        ]
        for row in range(self.row - 1, 0, -1):
            earlier = self.weights.get((row, task.name), weights)
            is_scored = self.look_up(earlier, program, task, task.test)
            if earlier != weights and is_scored and self.folders[row - 1].is_dir():
                names = f"adapter of stage {row}", f"of stage {self.row}"
                return [*pairs, _Pair(*names, earlier, program, partial(self._at, row, task))]
        return pairs

    @contextmanager
    def _at(self, row: int, task: Task) -> Iterator[None]:
        """Within it the policy is that of an earlier row."""
        self.policy.load(self.folders[row - 1])
        try:
            with self.policy.adapters.serving(task.name):
                yield
        finally:
            self.policy.load(self.folders[self.row - 1])

    def _arm(
        self,
        name: str,
        program: PromptProgram,
        scores: Mapping[str, float],
        examples: Sequence[Example],
    ) -> Arm:
        prompts = [self.policy.renderer.prompt_ids(program, e.question) for e in examples]
        return Arm(name, tuple(scores[e.id] for e in examples), fmean(map(len, prompts)))


def study_model(
    model: str, task: Task, demonstrations: int, draw: int, primary: str
) -> SignalStudy:
    """Study a base model on the problems of a task, under demonstrations of its train split.

    They are drawn by `draw`, with the answers spread, and are not among the problems; of these at
    most `MOST_PROBLEMS`.

    Raises:
        ConfigError: There is no such signal, or the grader asks for more than the gold answer.
        ModelError: The model cannot be loaded.
    """
    require_signal(primary, SIGNALS)
    if not is_exact(task.grade):
        raise ConfigError(
            f"signals --task {task.name}: its grader takes other answers than the gold one, so "
            "which answers are wrong is not known before some are drawn. Take a task graded by "
            "exact_match, or train a run and give its folder: fastslow signals RUN"
        )
    pool = list(task.train)
    named_random(draw, "signals", task.name).shuffle(pool)
    examples = spread_answers(pool)[:demonstrations]
    shown_ids = {example.id for example in examples}
    program = PromptProgram(
        seed_program(task).instruction,
        tuple(Demonstration(example.question, example.answer) for example in examples),
    )
    problems = [e for e in (*task.test, *task.validation, *task.train) if e.id not in shown_ids]
    place = resolve(model)
    policy = load_policy(place.path_or_id, revision=place.revision, device=pick_device("auto"))
    renderer, limit = policy.renderer, policy.context_length
    longest = max(
        len(renderer.prompt_ids(program, e.question)) + len(renderer.answer_ids(e.answer))
        for e in problems[:MOST_PROBLEMS]
    )
    if limit is not None and longest > limit:
        raise ConfigError(
            f"signals --demonstrations {demonstrations}: a problem of {task.name} takes {longest} "
            f"tokens with its answer, and the model takes {limit}. Show fewer, or none."
        )
    study = _Study(policy, SIGNALS)
    study.absent.append("pairs of arms: a base model has one, a run may have more")
    if len(problems) > MOST_PROBLEMS:
        study.absent.append(
            f"{len(problems) - MOST_PROBLEMS} of {len(problems)} problems: too many"
        )
    study.read(task, program, problems[:MOST_PROBLEMS], None)
    subject = f"base under {len(examples)} demonstrations, draw {draw}"
    return study.finish(model, subject, primary, draw)


def require_signal(name: str, signals: Mapping[str, Signal]) -> None:
    """Make sure that there is a signal of this name.

    Raises:
        ConfigError: There is none; names the nearest.
    """
    if name not in signals:
        raise ConfigError(
            f"signals --primary: expected the name of a signal, got {name!r}."
            f"{nearest(name, signals)} List your own under evaluation.signals of the run."
        )
