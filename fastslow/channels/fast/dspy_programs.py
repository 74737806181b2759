"""Texts as files of DSPy: one state per candidate, and which one is deployed.

    from fastslow.channels.fast.dspy_programs import load_program

    program = load_program("runs/RUN/stages/000-TASK/programs/TASK")
    with dspy.context(lm=lm):
        program(question="…").answer

The files are what `dspy.Module.save` writes as JSON: states, which run no code. That is the form to
keep and to pass on. The deployed program is also there as `dspy.load` wants it:

    import dspy
    import fastslow.channels.fast.dspy_bridge  # the module's class, and the adapter it renders with

    program = dspy.load("runs/RUN/stages/000-TASK/programs/TASK/live", allow_pickle=True)

That is a pickle, and opening one runs code of whoever wrote it: open only those of your own runs.
We open none. Called by the loop after each stage, and by the export, which writes no pickle.
"""

import json
from pathlib import Path

from fastslow.channels.fast.dspy_bridge import PromptModule
from fastslow.channels.fast.scorer import isolated
from fastslow.core.errors import CheckpointError
from fastslow.core.prompts import PromptProgram
from fastslow.policy.policy import Policy

INDEX_FILE = "index.json"
LIVE_FOLDER = "live"


def save_programs(policy: Policy, folder: Path) -> None:
    """Write every task's texts to `folder/<task>/<text hash>.json`, and an index of them.

    The index names the file of the text that is deployed (`live`) and, for each file, where the
    text came from and its mean score on the last anchor set. `folder/<task>/live/` holds the
    deployed program once more, whole, for `dspy.load`.
    """
    for task, population in sorted(policy.populations.items()):
        own = folder / task
        own.mkdir(parents=True)
        live = policy.live.get(task, population[0].program)
        texts = {}
        for candidate in population:
            program = candidate.program
            texts[program.text_hash] = program.to_json()["lineage"], candidate.mean
            _save(program, own)
        if live.text_hash not in texts:
            _save(live, own)
        with isolated():  # DSPy warns of what the docstring above says
            PromptModule(live).save(own / LIVE_FOLDER, save_program=True)
        index = {
            "live": f"{live.text_hash}.json",
            "texts": [
                {"file": f"{text_hash}.json", "lineage": lineage, "mean_score": mean}
                for text_hash, (lineage, mean) in texts.items()
            ],
        }
        (own / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def save_deployed(program: PromptProgram, folder: Path) -> None:
    """Write one text, the deployed one, to a new folder, as `load_program` takes it."""
    folder.mkdir(parents=True)
    _save(program, folder)
    file = f"{program.text_hash}.json"
    text = {"file": file, "lineage": program.to_json()["lineage"], "mean_score": None}
    index = json.dumps({"live": file, "texts": [text]}, indent=1)
    (folder / INDEX_FILE).write_text(index + "\n", encoding="utf-8")


def load_program(path: str | Path) -> PromptModule:
    """The program in a file that `save_programs` wrote; of a folder, the one that is deployed.

    It renders its calls as the run did, whatever adapter DSPy is configured with. Loaded by
    DSPy's own `Module.load`; no code in the file is run.

    Raises:
        CheckpointError: There is no such program.
    """
    file = Path(path)
    module = PromptModule(PromptProgram(""))
    try:
        if file.is_dir():
            file = file / str(json.loads((file / INDEX_FILE).read_bytes())["live"])
        module.load(file)
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise CheckpointError(
            f"{file}: no saved program, got {type(err).__name__}: {err}. Expected a JSON file, or "
            "a folder with index.json, under stages/*/programs/ of a run."
        ) from err
    return module


def _save(program: PromptProgram, folder: Path) -> None:
    PromptModule(program).save(folder / f"{program.text_hash}.json")
