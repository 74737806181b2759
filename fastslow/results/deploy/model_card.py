"""The model card of an export: what it is, what it forgot, how it is used, and its limits.

Text from outside (names, sources, questions, completions) is escaped as in report.md.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastslow.policy.model_store import MODELS
from fastslow.results.deploy.exported import Exported, ExportedTask
from fastslow.results.deploy.snippets import (
    VLLM_RANKS,
    Usage,
    dspy_snippet,
    serve_command,
    transformers_snippet,
    vllm_snippet,
)
from fastslow.results.render.layout import Table, Text, brackets, difference, score_or_dash
from fastslow.results.render.markdown import code, inline, table_lines
from fastslow.results.report.sections.metrics import HEADLINE

CARD_FILE = "README.md"
LIMITS = (
    "Scores were drawn greedily, with the chat template and the end tokens that lie here. Other "
    "decoding (temperature, a repetition penalty, another number format, quantization) gives other "
    "completions, and other scores.",
    "A score holds for the text of its task. Without the text, or with another one, the weights "
    "alone score differently.",
    "Scores of tasks that are not listed were not measured. Nothing here was tested for safety; "
    "what the base model must not be used for, this must not be used for either.",
    "Differences are paired over test examples with 95 % intervals, not corrected for the number "
    "of tasks. One run shows nothing about other seeds.",
    "Texts can quote training examples: demonstrations do.",
)
"""What every card says."""


def card(made: Exported, rank: int | None) -> str:
    """The text of README.md.

    Args:
        made: The export.
        rank: Highest rank of its adapters; None without any.

    Returns:
        Markdown with a YAML head that model hubs read; ends with a newline.
    """
    standing = made.standing
    lines = [
        *_head(made),
        f"# {inline(standing.run)}",
        "",
        f"{_what(made)} Made by fastslow: the policy after stage {standing.row} of "
        f"{len(standing.stages)}; stages until then: {_listed(standing.stages[: standing.row])}.",
        "",
        *table_lines(_scores(made)),
        *table_lines(_metrics(made)),
        *_usage(made, rank),
        *table_lines(_texts(made)),
        *table_lines(_data(made)),
        "## Base model",
        "",
        *_base(made),
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in _limits(rank)),
        "",
        "## Where it comes from",
        "",
        f"Run {code(standing.run)}, configuration {code(standing.config_hash)}. Made with "
        + _listed([f"{name} {v}" for name, v in sorted(made.packages.items()) if v])
        + ". `export.json` has the fingerprints of weights and texts, which are those of the "
        "run's score records, and the SHA-256 of every file here.",
    ]
    return "\n".join(lines) + "\n"


def _head(made: Exported) -> Iterator[str]:
    """What model hubs read. A base is named where the hub has it under that name."""
    yield "---"
    yield "library_name: " + ("transformers" if made.is_merged else "peft")
    if not made.base.local:
        yield f"base_model: {made.base.path_or_id}"
    licence = base_licence(made)
    if licence is not None:
        yield f"license: {licence.lower()}"
    yield "pipeline_tag: text-generation"
    yield "tags: [continual-learning, lora, fastslow]"
    yield "---"


def base_licence(made: Exported) -> str | None:
    """SPDX identifier of the base's licence: of a named model, or as its card here says."""
    if made.model_name in MODELS:
        return MODELS[made.model_name].license
    if not made.base.local:
        return None
    try:
        text = (Path(made.base.path_or_id) / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = (
        re.search(r"^license: *([A-Za-z0-9.+-]{1,60}) *$", head[1], re.MULTILINE) if head else None
    )
    return found[1] if found else None


def _what(made: Exported) -> str:
    if made.is_merged:
        return "A language model with its LoRA adapter folded in, and a prompt text per task."
    if made.adapters:
        kind = "A LoRA adapter" if len(made.adapters) == 1 else "LoRA adapters, one per task"
        return f"{kind}, and a prompt text per task."
    return "A prompt text per task, for a base model whose weights were not changed."


def _scores(made: Exported) -> Table:
    rows = []
    for task in made.standing.tasks:
        change, net = task.change, task.net
        since = change.difference or None
        rows.append(
            (
                Text(task.task),
                Text("no stage" if task.learned_row is None else f"stage {task.learned_row}"),
                Text(str(task.now.n)),
                Text(score_or_dash(task.base.score) + brackets(task.base.interval)),
                Text(score_or_dash(task.now.score) + brackets(task.now.interval), "strong"),
                Text(difference(net.difference) if net.difference else net.reason or "-"),
                Text(difference(since) if since else change.reason or "-"),
                Text("-" if since is None else f"{since.smallest_detectable:.2f}"),
            )
        )
    return Table(
        "Scores and forgetting",
        (
            "task",
            "learned in",
            "n",
            "base",
            "score",
            "since the base",
            "since its best stage",
            "detectable drop",
        ),
        tuple(rows),
        "Scores are means over n test examples, in [0, 1], with 95 % intervals; differences are "
        "paired, negative is a loss. Detectable drop: the smallest one that would be found with "
        "80 % power. Tasks of no stage are held out, or come later in the run.",
    )


def _metrics(made: Exported) -> Table:
    metrics = [made.standing.metrics[name] for name in HEADLINE]
    return Table(
        "Metrics",
        ("metric", "value", "formula, or why there is no value"),
        tuple(
            (
                Text(metric.name, is_code=True),
                Text("undefined" if metric.value is None else f"{metric.value:.3f}"),
                Text(metric.reason or "")
                if metric.value is None
                else Text(metric.formula, is_code=True),
            )
            for metric in metrics
        ),
    )


def usage_of(made: Exported, task: ExportedTask, rank: int | None) -> Usage:
    """What the snippets of one task need to know."""
    return Usage(
        task=task.name,
        question=task.shown.question,
        max_tokens=task.task.max_tokens,
        adapter=made.adapter_of(task),
        rank=rank,
        adapters=tuple(made.adapters),
        is_model=made.is_merged,
        dtype=made.dtype,
    )


def _usage(made: Exported, rank: int | None) -> Iterator[str]:
    task = made.tasks[-1]
    use = usage_of(made, task, rank)
    yield "## Use"
    yield ""
    yield (
        f"Run in this folder. The lines ask task {code(task.name)} a question of its test sample; "
        f"the run recorded the completion {code(task.shown.completion)}. `prompts/TASK.json` has "
        "the chat messages of each task's text, the limit of its completions, and its adapter."
    )
    yield ""
    yield "With transformers:"
    yield ""
    yield from _fenced("python", transformers_snippet(use))
    vllm = vllm_snippet(use)
    if vllm is None:
        yield (
            f"vLLM takes adapters up to rank {VLLM_RANKS[-1]}; this one has rank {rank}. Export "
            "with `--merge`."
        )
        yield ""
    else:
        yield "With vLLM (names as in its documentation; the tests of fastslow do not run it):"
        yield ""
        yield from _fenced("python", vllm)
    yield "With DSPy, of a server such as vLLM's:"
    yield ""
    yield from _fenced("bash", serve_command(use, "BASE"))
    if not made.is_merged:
        yield "BASE is the model named below, or its folder. Then:"
        yield ""
    yield from _fenced("python", dspy_snippet(use))


def _fenced(language: str, text: str) -> Iterator[str]:
    """A code block. Its lines hold text from outside only as ASCII literals within a line."""
    yield f"```{language}"
    yield text
    yield "```"
    yield ""


def _texts(made: Exported) -> Table:
    return Table(
        "Texts",
        ("task", "text", "demonstrations", "longest completion", "adapter"),
        tuple(
            (
                Text(task.name),
                Text(task.program.text_hash, is_code=True),
                Text(str(len(task.program.demonstrations))),
                Text(f"{task.task.max_tokens} tokens"),
                Text(made.adapter_of(task) or "-", is_code=True),
            )
            for task in made.tasks
        ),
        "prompts/TASK.json has each text as chat messages, programs/TASK as a DSPy program.",
    )


def _data(made: Exported) -> Table:
    return Table(
        "Training data",
        ("task", "definition", "training examples", "source and licence"),
        tuple(
            (
                Text(task.name),
                Text(task.task.version),
                Text(str(len(task.task.train))),
                Text(task.definition.source),
            )
            for task in made.tasks
        ),
    )


def _base(made: Exported) -> Iterator[str]:
    licence = base_licence(made)
    named = MODELS.get(made.model_name)
    origin = (
        f", carried by {code(named.requirement)} of the Python package index as a 4-bit file and "
        "converted to float32"
        if named
        else ""
    )
    revision = f", revision {code(made.base.revision)}" if made.base.revision else ""
    yield (
        f"{code(made.model_name)}{revision}{origin}. Licence: "
        + (f"{inline(licence)}." if licence else "not stated in its folder; see its own card.")
        + " What was scored holds for these very weights; `export.json` has where they lay."
    )


def _limits(rank: int | None) -> Sequence[str]:
    if rank is None:
        return LIMITS
    return (
        *LIMITS,
        f"Servers must accept LoRA adapters of rank {rank}. vLLM computes in 16 bits unless told "
        "otherwise, which can change a completion here and there.",
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(inline(name) for name in names)
