"""How an export is used: a few lines for transformers, vLLM and DSPy, run in the export's folder.

The lines are in `templates/`. Those for transformers and DSPy are executed by the tests. Those for
vLLM are not: their names are those of its documentation.
"""

from pathlib import Path

from fastslow.policy.engine.settings import vllm_rank
from fastslow.results.deploy.export_data import Export, ExportedTask
from fastslow.results.deploy.standing import TaskStanding
from fastslow.results.render.layout import brackets, difference, score_or_dash
from fastslow.results.render.markdown import code, code_cell, inline

TEMPLATES = Path(__file__).parent / "templates"
PORT = 8000
"""Where `vllm serve` listens."""


def served_name(adapter: str | None) -> str:
    """The name under which a server offers an adapter, or the model itself."""
    return "policy" if adapter in (None, ".") else str(adapter).rpartition("/")[2]


def snippets(export: Export, task: ExportedTask, rank: int | None) -> dict[str, str]:
    """Lines of use, by the name of their template; without `vllm` where the rank is too high.

    `transformers` and `vllm` ask one question of a task; `router`, where there is one, finds the
    task first; `serve` is the command that serves the
    export, for the lines of `dspy`, which ask it of any server that speaks OpenAI's chat API.
    """
    adapter = export.adapter_of(task)
    max_rank = vllm_rank(rank) if rank is not None and export.adapters else None
    names = ["transformers", "vllm", "serve", "dspy"]
    if export.router is not None:
        names.append("router")
    if adapter is not None and rank is not None and max_rank is None:
        names.remove("vllm")
    base = 'json.load(open(f"{folder}/export.json"))["base"]'
    values = {
        "export": export,
        "task": task,
        "adapter": adapter,
        "source": "folder" if export.is_merged else base,
        "max_rank": max_rank,
        "port": PORT,
    }
    return {name: render(f"{name}.jinja", **values) for name in names}


def render(template: str, **values: object) -> str:
    """A text from a template of this package, without the line break at its end.

    Nothing is escaped but what goes through a filter: `code` and `inline` for Markdown, `ascii` for
    a Python literal.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ascii": ascii,
        "code": code,
        "code_cell": code_cell,
        "inline": inline,
        "score": lambda cell: score_or_dash(cell.score) + brackets(cell.interval),
        "change": lambda c: inline(difference(c.difference) if c.difference else c.reason or "-"),
        "chance": lambda scored: inline(_chance(scored)),
        "served_name": served_name,
    }
    return environment.get_template(template).render(values)


def _chance(scored: TaskStanding) -> str:
    """What guessing scores on a task, and whether its score is no better."""
    if scored.guess is None:
        return "not graded"
    text = f"{scored.guess.constant_score:.2f} ({score_or_dash(scored.guess.uniform_score)})"
    return f"{text}, not above" if scored.is_above_chance is False else text
