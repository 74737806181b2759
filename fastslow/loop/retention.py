"""Benchmarks of lm-evaluation-harness on every kept stage of a run, with the base loaded once.

The harness takes the model that is in memory, and the adapter of each stage is put on it in turn.
Before it is scored a stage proves that its adapter is at work: its log-probabilities must differ
from the base's.
"""

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastslow.core.errors import CheckpointError, ConfigError, EvaluationError, nearest
from fastslow.core.types import TokenIds
from fastslow.loop.build import build_policy
from fastslow.policy.model_store import resolve
from fastslow.policy.placement import repeat_exactly
from fastslow.policy.policy import Policy
from fastslow.records.new_folder import stage_path
from fastslow.records.run_card import read_day, read_dtype
from fastslow.records.trust import load_run
from fastslow.results.retention import RetentionStudy, Scores

PROOF = "The capital of France is Paris. Two and two make four. Water boils at one hundred degrees."
"""Read by the base and by each stage; any text would do."""
BATCH = 8
"""Rows of a pass of the harness."""


def study_retention(
    run: Path,
    benchmarks: Sequence[str],
    *,
    definitions: Path | None = None,
    stages: Sequence[int] = (),
    limit: int | None = None,
    trust: bool = False,
    say: Callable[[str], None] = lambda words: None,
) -> RetentionStudy:
    """Score the base and kept stages of a run on benchmarks.

    Args:
        run: The run folder.
        benchmarks: Names of tasks or groups that the harness knows.
        definitions: A folder with more of them; Python in it runs with your rights.
        stages: Numbers of stages, from 1; none are all that were kept.
        limit: Examples of each benchmark; None takes all.
        trust: See `load_run`.
        say: Is told what is scored next.

    Raises:
        ConfigError: The harness is not installed, or knows no such benchmark; the run trains no
            weights, or has no such stage.
        CheckpointError: See `load_run`; or a stage was not kept.
        EvaluationError: An adapter changes nothing.
    """
    if find_spec("lm_eval") is None:
        raise ConfigError(
            "retention: needs lm-evaluation-harness, which is not installed. Install it with: "
            "pip install 'fastslow[retention]'"
        )
    loaded = load_run(run, trust)
    config = loaded.config
    if config.slow is None:
        raise ConfigError("retention: this run trains no weights, so its base is all there is.")
    folders = _folders(run, [stage.task for stage in config.stages], stages)
    manager = _manager(benchmarks, definitions)
    model = resolve(config.model.name, config.model.revision)
    policy = build_policy(config, model.path_or_id, read_day(run), read_dtype(run))
    repeat_exactly(policy.device)
    ids = tuple(policy.tokenizer(PROOF, add_special_tokens=False)["input_ids"])
    say("base")
    with policy.as_of("base"):
        proof = _logprobs(policy, ids)
        scores = {0: _score(policy, benchmarks, manager, limit)}
    shifts: dict[int, float] = {}
    for stage, folder in folders.items():
        say(f"stage {stage}")
        policy.load(folder)
        pairs = zip(_logprobs(policy, ids), proof, strict=True)
        shifts[stage] = max(abs(logprob - base) for logprob, base in pairs)
        if not shifts[stage]:
            raise EvaluationError(
                f"retention: the adapter in {folder} changes nothing, the base answers just so. "
                "Its weights are zero or were not applied; scores would be the base's."
            )
        scores[stage] = _score(policy, benchmarks, manager, limit)
    return RetentionStudy(
        run=run.name,
        model=config.model.name,
        harness=version("lm_eval"),
        stages={stage: config.stages[stage - 1].task for stage in folders},
        shifts=shifts,
        scores=scores,
    )


def _folders(run: Path, tasks: Sequence[str], stages: Sequence[int]) -> dict[int, Path]:
    """The folder of each stage asked for, which was kept."""
    folders = {i: run / stage_path(i - 1, task) for i, task in enumerate(tasks, start=1)}
    for stage in stages:
        if stage not in folders:
            raise ConfigError(f"retention --stage: expected 1 to {len(tasks)}, got {stage}.")
        if not folders[stage].is_dir():
            raise CheckpointError(
                f"{folders[stage]}: this stage was not kept, or is not there yet."
            )
    chosen = {i: path for i, path in folders.items() if path.is_dir() and i in (stages or folders)}
    if not chosen:
        raise CheckpointError(f"{run}: no stage is kept in its folder. Wait for the first to end.")
    return chosen


def _manager(benchmarks: Sequence[str], definitions: Path | None) -> Any:
    """What knows the benchmarks by name."""
    from lm_eval.tasks import TaskManager

    folder = None if definitions is None else str(definitions)
    if folder is not None:  # the harness takes seconds to read the definitions of its own
        manager = TaskManager(include_path=folder, include_defaults=False)
        if set(benchmarks) <= set(manager.all_subtasks):
            return manager
    manager = TaskManager(include_path=folder)
    for name in benchmarks:
        if name not in manager.all_tasks:
            raise ConfigError(
                f"retention --suite: no benchmark {name!r}.{nearest(name, manager.all_tasks)} "
                "`lm-eval ls tasks` lists them; --definitions FOLDER has it find yours."
            )
    return manager


def _logprobs(policy: Policy, ids: TokenIds) -> Sequence[float]:
    """Log-probability of each token but the first, in nats."""
    [logprobs] = policy.scorer.logprobs([ids[:1]], [ids[1:]])
    return logprobs


def _score(policy: Policy, benchmarks: Sequence[str], manager: Any, limit: int | None) -> Scores:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    with _quiet():
        results = simple_evaluate(
            HFLM(pretrained=policy.module, tokenizer=policy.tokenizer, batch_size=BATCH),
            tasks=list(benchmarks),
            task_manager=manager,
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
        )
    assert results is not None, "the harness gives none to any but the first process"
    return _by_metric(results["samples"])


def _by_metric(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> Scores:
    """Values of single examples, of metrics that are means of them; the first filter's."""
    scores: dict[tuple[str, str], dict[str, float]] = {}
    for benchmark, rows in sorted(samples.items()):
        for sample in rows:
            if sample["filter"] != rows[0]["filter"]:
                continue
            for metric in sample["metrics"]:
                if isinstance(value := sample[metric], int | float):
                    scores.setdefault((benchmark, metric), {})[str(sample["doc_id"])] = float(value)
    return scores


@contextlib.contextmanager
def _quiet() -> Any:
    """Without the harness's log, which says nothing that fastslow does not."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
