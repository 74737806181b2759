"""HTML pages that display untrusted text without obeying it, from the templates of this package.

Owns escaping: everything a template prints is made visible and escaped, unless it is `Markup` that
this package made. No script, nothing from the network, and a policy in the page that forbids both.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from fastslow.core.text import visible
from fastslow.results.render.drawing import Drawing
from fastslow.results.render.layout import Text, footnoted, is_figure_like

TEMPLATES = Path(__file__).parent / "templates"
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)
"""Content-Security-Policy: styles in the page itself, and nothing else."""
MAX_CELL = 2000
"""Characters of one table cell."""


def render(template: str, values: Mapping[str, Any]) -> str:
    """A page from a template and its values; every value that is missing is an error.

    The page has `POLICY`, unless `values` has another `policy`.
    """
    page: str = _environment().get_template(template).render({"policy": POLICY, **values})
    return page.rstrip("\n") + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible_value,
    )
    filters = (lines, breakable, inline_svg, main, aside, footnoted)
    environment.filters |= {f.__name__: f for f in filters}
    environment.tests |= {"figure_like": is_figure_like}
    environment.globals["style"] = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    return environment


def _visible_value(value: object) -> object:
    """Last thing done to a value before it is escaped: no control or invisible characters."""
    return value if hasattr(value, "__html__") else visible(str(value)[: 10 * MAX_CELL])


def lines(text: Iterable[str]) -> Markup:
    """Lines of untrusted text, one under the other."""
    return Markup("\n").join(escape(visible(line)) for line in text)


def breakable(name: str) -> Markup:
    """An untrusted name that may be broken after its underscores, slashes and hyphens."""
    pieces = re.split(r"(?<=[_/-])(?=.)", visible(name[:MAX_CELL]))
    return Markup("<wbr>").join(escape(piece) for piece in pieces)


def inline_svg(drawing: Drawing) -> Markup:
    """A figure of ours as part of the page; Matplotlib escaped its labels."""
    return Markup(drawing.inline)


def main(cell: Text) -> str:
    """The cell without the interval behind it."""
    text = cell.text[:MAX_CELL]
    return text.split(" [")[0] if is_figure_like(cell) else text


def aside(cell: Text) -> str:
    """The interval behind the figure of a cell, or nothing."""
    _, bracket, interval = cell.text.partition(" [")
    return f"[{interval}" if bracket and is_figure_like(cell) else ""
