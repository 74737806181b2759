"""fastslow: continual learning for language models through two channels.

The slow channel makes minimal LoRA updates, the fast channel evolves task prompts, and after
every stage a forgetting evaluator replays all tasks. From a shell start with `fastslow --help`;
from Python:

    >>> import fastslow
    >>> run = fastslow.open_run("runs/reference/demo")
    >>> run.state
    'finished'
    >>> run.matrix.index[0]  # a row per stage below it, a column per task
    'base'

Importing the package is fast: torch and the rest come with the first call that needs them. Errors
that are not bugs of ours are `FastSlowError`s, with a message that says what to do.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastslow.core.errors import FastSlowError
from fastslow.core.library_switches import SWITCHES, set_switches

if TYPE_CHECKING:
    from fastslow.api.ablation import AblationResult, ablate, open_ablation
    from fastslow.api.checks import CheckResult, check
    from fastslow.api.comparison import ComparisonResult, compare
    from fastslow.api.folder import RunFolder, open_run
    from fastslow.api.runs import fetch_model, resume, train

set_switches(SWITCHES)

__version__ = version("fastslow")

__all__ = [
    "AblationResult",
    "CheckResult",
    "ComparisonResult",
    "FastSlowError",
    "RunFolder",
    "__version__",
    "ablate",
    "check",
    "compare",
    "fetch_model",
    "open_ablation",
    "open_run",
    "resume",
    "train",
]

_MODULES = {
    "ablation": ("AblationResult", "ablate", "open_ablation"),
    "checks": ("CheckResult", "check"),
    "comparison": ("ComparisonResult", "compare"),
    "folder": ("RunFolder", "open_run"),
    "runs": ("fetch_model", "resume", "train"),
}
"""Modules of `fastslow.api` and what they bring; each is imported when it is first asked for."""
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A name of the Python interface, out of its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.api.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The names for completion, those that are not imported yet too."""
    return sorted(__all__)
