"""The model card of an export: content, scores, forgetting, use and limits.

Its words are in `templates/card.jinja`. Text from outside (names, sources, questions, completions)
is escaped as in report.md.
"""

import re
from pathlib import Path

from fastslow.policy.engine.settings import VLLM_RANKS
from fastslow.policy.model_store import MODELS, WheelModel
from fastslow.results.deploy.export_data import Export
from fastslow.results.deploy.snippets import render, snippets
from fastslow.results.report.sections.metrics import HEADLINE

CARD_FILE = "README.md"


def card(export: Export, rank: int | None) -> str:
    """The text of README.md: Markdown with a YAML head that model hubs read.

    `rank` is the highest of the export's adapters.
    """
    task = export.tasks[-1]
    model = MODELS.get(export.model_name)
    text = render(
        "card.jinja",
        export=export,
        standing=export.standing,
        metrics=[export.standing.metrics[name] for name in HEADLINE],
        task=task,
        rank=rank,
        highest_rank=VLLM_RANKS[-1],
        licence=base_licence(export),
        requirement=model.requirement if isinstance(model, WheelModel) else None,
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
