"""How an export is used: a few lines for transformers, vLLM and DSPy, run in the export's folder.

The lines for transformers and DSPy are executed by the tests. Those for vLLM are not: their names
are those of its documentation.
"""

from dataclasses import dataclass
from pathlib import Path

from fastslow.results.render.markdown import code, inline

TEMPLATES = Path(__file__).parent / "templates"

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of `max_lora_rank` that vLLM takes. Source: vllm/config/lora.py."""
PORT = 8000
"""Where `vllm serve` listens."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The values that the lines hold."""

    task: str
    question: str
    """An example to ask; untrusted text."""
    max_tokens: int
    """Limit of a completion of this task."""
    adapter: str | None
    """Folder of the task's adapter, relative to the export; None where there is none to load."""
    rank: int | None
    """Highest rank of the export's adapters; None without any."""
    adapters: tuple[str, ...]
    """Folders of all adapters, relative to the export."""
    is_model: bool
    """Whether the export holds the whole model, so that no base is needed."""
    dtype: str
    """Number format of the weights in the run."""


def served_name(adapter: str | None) -> str:
    """The name under which a server offers an adapter, or the model itself."""
    return "policy" if adapter in (None, ".") else str(adapter).rpartition("/")[2]


def vllm_rank(rank: int) -> int | None:
    """The smallest `max_lora_rank` of vLLM that takes an adapter; None where all are too small."""
    return next((allowed for allowed in VLLM_RANKS if allowed >= rank), None)


def transformers_snippet(use: Usage) -> str:
    """Ask one question with transformers, and PEFT where there is an adapter."""
    return _filled("transformers.jinja", use)


def vllm_snippet(use: Usage) -> str | None:
    """Ask one question with vLLM; None where its highest LoRA rank is too low."""
    if use.adapter is None or use.rank is None:
        return _filled("vllm.jinja", use, rank=None)
    rank = vllm_rank(use.rank)
    return None if rank is None else _filled("vllm.jinja", use, rank=rank)


def serve_command(use: Usage, base: str) -> str:
    """The command that serves the export for the lines of `dspy_snippet`."""
    rank = None if use.rank is None else vllm_rank(use.rank)
    return _filled("serve.jinja", use, base=base, rank=rank)


def dspy_snippet(use: Usage) -> str:
    """Ask one question through the DSPy program, of any server that speaks OpenAI's chat API."""
    return _filled("dspy.jinja", use, port=PORT)


def _filled(template: str, use: Usage, **values: object) -> str:
    source = "folder" if use.is_model else 'json.load(open(f"{folder}/export.json"))["base"]'
    return render(template, use=use, source=source, **values)


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
    filters = {"ascii": ascii, "code": code, "inline": inline, "served_name": served_name}
    environment.filters |= filters
    return environment.get_template(template).render(values)
