"""The model card of an export: content, scores, forgetting, use and limits.

Its words are in `templates/card.jinja`. Text from outside (names, sources, questions, completions)
is escaped as in report.md.
"""

import re
from pathlib import Path

from fastslow.policy.model_store import MODELS
from fastslow.results.deploy.export_data import Export
from fastslow.results.deploy.snippets import VLLM_RANKS, render, snippets
from fastslow.results.render.layout import Table, Text, brackets, difference, shown
from fastslow.results.render.markdown import table_lines
from fastslow.results.report.tables import HEADLINE

CARD_FILE = "README.md"


def card(export: Export, rank: int | None) -> str:
    """The text of README.md.

    Args:
        export: The export.
        rank: Highest rank of its adapters; None without any.

    Returns:
        Markdown with a YAML head that model hubs read; ends with a newline.
    """
    task = export.tasks[-1]
    model = MODELS.get(export.model_name)
    text = render(
        "card.jinja",
        export=export,
        standing=export.standing,
        task=task,
        rank=rank,
        highest_rank=VLLM_RANKS[-1],
        licence=base_licence(export),
        requirement=model.requirement if model else None,
        scores="\n".join(table_lines(_scores(export))),
        metrics="\n".join(table_lines(_metrics(export))),
        texts="\n".join(table_lines(_texts(export))),
        data="\n".join(table_lines(_data(export))),
        lines=snippets(export, task, rank),
    )
    return text + "\n"


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
