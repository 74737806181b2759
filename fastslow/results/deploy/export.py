"""Export: a stage's policy as files that transformers, vLLM and DSPy load.

An adapter folder of PEFT, or with `merge` a whole model; tokenizer with the chat template by which
the run rendered, a generation config that ends completions as the run did, each task's prompt as
chat messages and as a DSPy program, and a model card. What is exported was compared with what was
scored. No pickle is read or written.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastslow.config.loading.load import LoadedConfig
from fastslow.core.errors import CheckpointError, ConfigError
from fastslow.core.files import make_folder, read_json
from fastslow.core.text import visible
from fastslow.measure.evaluator import Evaluator
from fastslow.policy import model_store
from fastslow.policy.policy import seed_program
from fastslow.policy.saved import KeptPolicy, read_kept
from fastslow.records.deployments import deployments
from fastslow.records.events import FiguresEvent
from fastslow.records.jsonl import read_events, read_scores
from fastslow.records.run_card import read_day, read_dtype
from fastslow.records.trust import load_run
from fastslow.results.deploy.export_data import Export, ExportedTask
from fastslow.results.deploy.export_files import (
    lora_rank,
    write_adapters,
    write_index,
    write_model,
    write_router,
    write_texts,
    write_tokenizer,
)
from fastslow.results.deploy.model_card import CARD_FILE, card
from fastslow.results.deploy.standing import Standing, TaskStanding, read_standing, verify_kept
from fastslow.task.registry import build_task, find_task


def export(
    run: Path,
    *,
    stage: int | None = None,
    merge: bool = False,
    out: Path | None = None,
    trust: bool = False,
) -> Path:
    """Write a stage's policy to a new folder, which it returns: all of it or nothing.

    `stage` counts from 1, None takes the deployed one; `merge` folds the adapter into the whole
    model. The default of `out` is `export/NNN-TASK` in the run folder, `-merged` behind it. For
    `trust` see `load_run`.

    Raises:
        CheckpointError: It is not a run folder, the stage was not kept, its files or a task are not
            those that were scored, or `out` exists or cannot be written.
        ConfigError: Every task has an adapter of its own, which cannot be merged into one model.
        ModelError: The base model cannot be found or read.
        TaskError: A task cannot be built any more.
    """
    content = _read(run, load_run(run, trust), stage, merge)
    name = content.standing.folder.name + ("-merged" if merge else "")
    root, inner = (run, f"export/{name}") if out is None else (out.parent, out.name)
    with _new_folder(root, inner) as folder:
        write_adapters(content, folder)
        write_router(content, folder)
        renderer, settings = write_tokenizer(content, folder)
        if merge:
            write_model(content, folder, settings)
        write_texts(content, folder, renderer.answer_prefix, settings.eos_token_id)
        (folder / CARD_FILE).write_text(card(content, lora_rank(content)), encoding="utf-8")
        write_index(content, folder)
    return root / inner


def _read(run: Path, loaded: LoadedConfig, stage: int | None, merge: bool) -> Export:
    """Everything that is exported, compared with what was scored."""
    standing = read_standing(run, stage)
    if stage is None and standing.state != "finished" and not deployments(run):
        raise CheckpointError(
            f"{run}: the run is {standing.state}, so it has no last stage yet. Name a complete one "
            f"with --stage, or continue with: fastslow resume {run}"
        )
    policy = read_kept(standing.folder)
    verify_kept(standing, policy)
    model = loaded.config.model
    if standing.stages != tuple(visit.task for visit in loaded.config.stages):
        raise CheckpointError(
            f"{run}: run.json and config.json name other stages, got "
            f"{visible(', '.join(standing.stages))}. One was edited: restore it from a copy."
        )
    tasks = tuple(_task(standing, policy, loaded, task) for task in standing.trained)
    if merge and len({task.standing.weights for task in tasks}) > 1:
        raise ConfigError(
            "export --merge: the tasks of this run have adapters of their own "
            "(slow.adapter_policy: new-per-stage), which one model cannot hold. Export without "
            "--merge; a server loads them side by side."
        )
    return Export(
        standing=standing,
        tasks=tasks,
        model_name=model.name,
        base=model_store.resolve(model.name, model.revision),
        dtype=read_dtype(run) or model.dtype,
        template_arguments=model.chat_template_kwargs,
        day=read_day(run),
        packages=read_json(run / "environment.json").get("packages", {}),
        router=None if merge else _router(standing),
        is_merged=merge,
    )


def _router(standing: Standing) -> dict[str, float] | None:
    """Accuracy by task of the router by means after the stage; None where it was not measured."""
    events = read_events(standing.path / "events.jsonl")
    accuracies = {
        event.of: metric.value
        for event in events
        if isinstance(event, FiguresEvent) and (event.kind, event.row) == ("router", standing.row)
        for metric in event.figures
        if metric.name == "nearest_mean/accuracy" and metric.value is not None
    }
    return accuracies or None


def _task(
    standing: Standing, policy: KeptPolicy, loaded: LoadedConfig, scored: TaskStanding
) -> ExportedTask:
    name = scored.task
    use = loaded.config.task_use(name).use
    task = build_task(name, use, loaded.task_params[name])
    program = policy.live.get(name) or seed_program(task)
    if task.version != scored.version or program.text_hash != scored.text:
        raise CheckpointError(
            f"{standing.path}: task {name!r} is not what was scored any more, got {task.version} "
            f"with prompt {program.text_hash}, expected {scored.version} with {scored.text}. "
            "Export with the version of the task that the run used."
        )
    sizes = loaded.config.evaluation
    evaluator = Evaluator(sizes.test_examples, sizes.validation_examples, sizes.split)
    questions = {e.id: e.question for e in evaluator.test_sample(task) if e.id in scored.scores}
    if not questions:
        raise CheckpointError(
            f"{standing.path}: task {name!r} has none of the examples that were scored. Export "
            "with the version of the task that the run used."
        )
    best = max(questions, key=lambda example: scored.scores[example])
    completion = next(
        row.sample.completion
        for row in read_scores(standing.path / "scores.jsonl")
        if (row.row, row.cycle, row.sample.task) == (standing.row, None, name)
        and (row.sample.example, row.sample.text_hash) == (best, scored.text)
    )
    definition, adapter = find_task(use or name), policy.adapter_of(name)
    return ExportedTask(scored, task, definition, program, adapter, questions[best], completion)


@contextmanager
def _new_folder(root: Path, name: str) -> Iterator[Path]:
    """A folder that becomes `name` under `root` when everything in it was written."""
    target = root / name
    if os.path.lexists(target):
        raise CheckpointError(
            f"{target}: exists already, and an export overwrites nothing. Remove it, or name "
            "another folder with --out."
        )
    staging = None
    try:
        parent = make_folder(root, Path(name).parent)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=parent))
        staging.chmod(0o755)
        yield staging
        staging.rename(target)
    except OSError as error:
        raise CheckpointError(
            f"{target}: the export cannot be written, got {error}. Check free space and "
            "permissions; nothing was left behind."
        ) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
