"""The model card of an export: content, scores, forgetting, use and limits.

Text from outside (names, sources, questions, completions) is escaped as in report.md.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastslow.policy.model_store import MODELS
from fastslow.results.deploy.export_data import Export
from fastslow.results.deploy.snippets import (
    VLLM_RANKS,
    Usage,
    dspy_snippet,
    serve_command,
    transformers_snippet,
    vllm_snippet,
)
from fastslow.results.render.layout import Table, Text, brackets, difference, shown
from fastslow.results.render.markdown import code, inline, table_lines
from fastslow.results.report.tables import HEADLINE

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
"""Limits that every card names."""


def card(export: Export, rank: int | None) -> str:
    """The text of README.md.

    Args:
        export: The export.
        rank: Highest rank of its adapters; None without any.

    Returns:
        Markdown with a YAML head that model hubs read; ends with a newline.
    """
    standing = export.standing
    lines = [
        *_head(export),
        f"# {inline(standing.run)}",
        "",
        f"{_what(export)} Made by fastslow: the policy after stage {standing.row} of "
        f"{len(standing.stages)}; stages until then: {_listed(standing.stages[: standing.row])}.",
        "",
        *table_lines(_scores(export)),
        *table_lines(_metrics(export)),
        *_usage(export, rank),
        *table_lines(_texts(export)),
        *table_lines(_data(export)),
        "## Base model",
        "",
        *_base(export),
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in _limits(rank)),
        "",
        "## Where it comes from",
        "",
        f"Run {code(standing.run)}, configuration {code(standing.config_hash)}. Made with "
        + _listed([f"{name} {v}" for name, v in sorted(export.packages.items()) if v])
        + ". `export.json` has the fingerprints of weights and texts, which are those of the "
        "run's score records, and the SHA-256 of every file here.",
    ]
    return "\n".join(lines) + "\n"


def _head(export: Export) -> Iterator[str]:
    """The part that model hubs read. A base is named where the hub has it under that name."""
    yield "---"
    yield "library_name: " + ("transformers" if export.is_merged else "peft")
    if not export.base.local:
        yield f"base_model: {export.base.path_or_id}"
    licence = base_licence(export)
    if licence is not None:
        yield f"license: {licence.lower()}"
    yield "pipeline_tag: text-generation"
    yield "tags: [continual-learning, lora, fastslow]"
    yield "---"


def base_licence(export: Export) -> str | None:
    """SPDX identifier of the base's licence: of a named model, or as its card here says."""
    if export.model_name in MODELS:
        return MODELS[export.model_name].license
    if not export.base.local:
        return None
    try:
        text = (Path(export.base.path_or_id) / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    if head is None:
        return None
    licence = re.search(r"^license: *([A-Za-z0-9.+-]{1,60}) *$", head[1], re.MULTILINE)
    return licence[1] if licence else None


def _what(export: Export) -> str:
    if export.is_merged:
        return "A language model with its LoRA adapter folded in, and a prompt text per task."
    if export.adapters:
        kind = "A LoRA adapter" if len(export.adapters) == 1 else "LoRA adapters, one per task"
        return f"{kind}, and a prompt text per task."
    return "A prompt text per task, for a base model whose weights were not changed."


def _scores(export: Export) -> Table:
    rows = []
    for task in export.standing.tasks:
        change, net = task.change, task.net
        since = change.difference or None
        rows.append(
            (
                Text(task.task),
                Text("no stage" if task.learned_row is None else f"stage {task.learned_row}"),
                Text(str(task.now.n)),
                Text(shown(task.base.score) + brackets(task.base.interval)),
                Text(shown(task.now.score) + brackets(task.now.interval), "strong"),
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


def _metrics(export: Export) -> Table:
    metrics = [export.standing.metrics[name] for name in HEADLINE]
    return Table(
        "Metrics",
        ("metric", "value", "formula, or why there is no value"),
        tuple(
            (
                Text(metric.name, is_code=True),
                Text("undefined" if metric.value is None else f"{metric.value:.3f}"),
                Text(metric.formula, is_code=True)
                if metric.reason is None
                else Text(metric.reason),
            )
            for metric in metrics
        ),
    )


def _usage(export: Export, rank: int | None) -> Iterator[str]:
    task = export.tasks[-1]
    use = Usage(
        task=task.name,
        question=task.question,
        max_tokens=task.task.max_tokens,
        adapter=export.adapter_of(task),
        rank=rank,
        adapters=tuple(export.adapters),
        is_model=export.is_merged,
        dtype=export.dtype,
    )
    yield "## Use"
    yield ""
    yield (
        f"Run in this folder. The lines ask task {code(task.name)} a question of its test sample; "
        f"the run recorded the completion {code(task.completion)}. `prompts/TASK.json` has "
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
    if not export.is_merged:
        yield "BASE is the model named below, or its folder. Then:"
        yield ""
    yield from _fenced("python", dspy_snippet(use))


def _fenced(language: str, text: str) -> Iterator[str]:
    """A code block. Its lines hold text from outside only as ASCII literals within a line."""
    yield f"```{language}"
    yield text
    yield "```"
    yield ""


def _texts(export: Export) -> Table:
    return Table(
        "Texts",
        ("task", "text", "demonstrations", "longest completion", "adapter"),
        tuple(
            (
                Text(task.name),
                Text(task.program.text_hash, is_code=True),
                Text(str(len(task.program.demonstrations))),
                Text(f"{task.task.max_tokens} tokens"),
                Text(export.adapter_of(task) or "-", is_code=True),
            )
            for task in export.tasks
        ),
        "prompts/TASK.json has each text as chat messages, programs/TASK as a DSPy program.",
    )


def _data(export: Export) -> Table:
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
            for task in export.tasks
        ),
    )


def _base(export: Export) -> Iterator[str]:
    licence = base_licence(export)
    origin = ""
    if listed := MODELS.get(export.model_name):
        origin = (
            f", carried by {code(listed.requirement)} of the Python package index as a 4-bit file "
            "and converted to float32"
        )
    revision = f", revision {code(export.base.revision)}" if export.base.revision else ""
    yield (
        f"{code(export.model_name)}{revision}{origin}. Licence: "
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
