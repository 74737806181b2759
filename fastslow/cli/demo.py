"""`demo`: the demonstration, from nothing to the report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastslow.cli.train import resume, train
from fastslow.core.text import visible

if TYPE_CHECKING:
    from fastslow.config.models import RunConfig

DEMO = ("configs/experiments/demo.yaml",)
TINY = ("configs/tests/tiny-sft.yaml", "model.name=tiny-random", "tracking=null")
"""What `train` is called with."""


def demo(
    tiny: Annotated[
        bool,
        typer.Option("--tiny", help="A random model of 0.1 MB: seconds, no download."),
    ] = False,
) -> None:
    """Train three tasks on a small real model, then report.

    Fetches the model once and makes a run in ./runs, as `fastslow train` does from
    configs/experiments/demo.yaml. One that was stopped before is continued.
    """
    from fastslow.config.loading.load import load_config
    from fastslow.policy.model_fetch import fetch

    file, *overrides = words = list(TINY if tiny else DEMO)
    config = load_config([Path(file)], overrides).config
    fetch(config.model.name, log=lambda line: print(line, flush=True))
    if run := _stopped(config):
        print(f"continuing {visible(str(run))}", flush=True)
        resume(run)
    else:
        train(words)
    if tiny:
        print(
            "These weights are random, so the scores mean nothing. With a real model: fastslow demo"
        )


def _stopped(config: "RunConfig") -> Path | None:
    """The newest run of this configuration that a signal or a crash of the machine ended."""
    from fastslow.config.loading.load import config_hash
    from fastslow.records.lock import read_state

    def state(run: Path) -> str:
        try:
            return read_state(run)
        except (OSError, ValueError, LookupError, TypeError):
            return "damaged"

    name = f"*-{config.name}-{config_hash(config)}*/run.json"
    runs = [card.parent for card in Path(config.runs_dir).glob(name)]
    stopped = [run for run in runs if state(run) in ("interrupted", "died")]
    return max(stopped, key=lambda run: (run / "run.json").stat().st_mtime, default=None)
