"""Prompts as files of DSPy: one state per prompt, and which one is deployed.

    from fastslow.channels.fast.dspy_programs import load_program

    program = load_program("runs/RUN/stages/000-TASK/programs/TASK")
    with dspy.context(lm=lm):
        program(question="…").answer

The files are states in JSON, as `dspy.Module.save` writes them, and run no code. That is the form
to keep and to pass on. The deployed prompt is also there in the form that `dspy.load` needs:

    import dspy
    import fastslow.channels.fast.dspy_bridge  # the module's class, and the adapter it renders with

    program = dspy.load("runs/RUN/stages/000-TASK/programs/TASK/live", allow_pickle=True)

That is a pickle, and opening one runs code of whoever wrote it: open only those of your own runs.
fastslow opens none, and the export writes none.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from fastslow.channels.fast.dspy_bridge import PromptModule
from fastslow.channels.fast.scorer import isolated
from fastslow.core.errors import CheckpointError
from fastslow.core.files import read_json
from fastslow.core.prompts import PromptProgram
from fastslow.policy.policy import Policy

INDEX_FILE = "index.json"
LIVE_FOLDER = "live"


def save_programs(policy: Policy, folder: Path) -> None:
    """Write every task's prompts to `folder/<task>/<text hash>.json`, and an index of them.

    The index names the file of the deployed prompt (`live`) and, for each file, where the prompt
    came from and its mean score on the last anchor set. `folder/<task>/live/` holds the deployed
    prompt once more, as a whole program, for `dspy.load`.
    """
    for task, population in sorted(policy.populations.items()):
        task_folder = folder / task
        task_folder.mkdir(parents=True)
        live = policy.live.get(task, population[0].program)
        scores = {candidate.program: candidate.mean for candidate in population}
        _save_texts(task_folder, live, scores)
        with isolated():  # DSPy warns of what the docstring above says
            PromptModule(live).save(task_folder / LIVE_FOLDER, save_program=True)


def save_deployed(program: PromptProgram, folder: Path) -> None:
    """Write one prompt, the deployed one, to a new folder, as `load_program` reads it."""
    folder.mkdir(parents=True)
    _save_texts(folder, program, {program: None})


def load_program(path: str | Path) -> PromptModule:
    """The prompt in a file that `save_programs` wrote; of a folder, the deployed one.

    It renders its calls as the run did, whichever adapter DSPy is configured with. Loaded by
    DSPy's task_folder `Module.load`; no code in the file is run.

    Raises:
        CheckpointError: There is no such prompt.
    """
    file = Path(path)
    module = PromptModule(PromptProgram(""))
    try:
        if file.is_dir():
            file = file / str(read_json(file / INDEX_FILE)["live"])
        module.load(file)
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise CheckpointError(
            f"{file}: no saved program, got {type(err).__name__}: {err}. Expected a JSON file, or "
            "a folder with index.json, under stages/*/programs/ of a run."
        ) from err
    return module


def _save_texts(
    folder: Path, live: PromptProgram, scores: Mapping[PromptProgram, float | None]
) -> None:
    """A file for each prompt, the deployed one among them, and the index of those with a score."""
    for program in {program.text_hash: program for program in (*scores, live)}.values():
        PromptModule(program).save(folder / f"{program.text_hash}.json")
    texts = [
        {
            "file": f"{program.text_hash}.json",
            "lineage": asdict(program.lineage),
            "mean_score": score,
        }
        for program, score in scores.items()
    ]
    index = {"live": f"{live.text_hash}.json", "texts": texts}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
