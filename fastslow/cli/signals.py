"""`signals`: whether signals of difficulty tell more than what is free."""

from pathlib import Path
from typing import Annotated

import typer

from fastslow.cli.arguments import Trust, output, run_folder
from fastslow.cli.tasks import build_named
from fastslow.core.distributed import is_leader
from fastslow.core.errors import ConfigError
from fastslow.core.text import visible
from fastslow.policy.signals import PRIMARY


def signals(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="A run folder, or --model and --task.")
    ] = None,
    stage: Annotated[
        int | None,
        typer.Option(metavar="N", help="Stage number, from 1 (default: the last scored one)."),
    ] = None,
    primary: Annotated[
        str, typer.Option(metavar="SIGNAL", help="The signal to judge, named before looking.")
    ] = PRIMARY,
    model: Annotated[
        str | None, typer.Option(metavar="DIR", help="A base model in place of a run.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="NAME", help="The task that it is studied on.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A parameter of the task; may be repeated."),
    ] = None,
    demonstrations: Annotated[
        int, typer.Option(min=0, help="Shown to the base model, from the train split.")
    ] = 6,
    draw: Annotated[int, typer.Option(min=0, help="Which demonstrations are drawn.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where files go (default: signals/ in RUN)."),
    ] = None,
    trust: Trust = False,
) -> None:
    """Judge signals of difficulty.

    On the policy of a run, or on a base model: does a signal tell wrong answers better than the
    best free baseline, is it difficulty or familiarity that it follows, what would routing by it
    gain? One pass over each problem; nothing is drawn. Writes signals.html, signals.csv and
    signals.json, which keys that act on a signal take.
    """
    from fastslow.loop.validity import study_model, study_run
    from fastslow.records.validity_file import FOLDER
    from fastslow.results.report.terminal import render_tables
    from fastslow.results.signals.tables import headline, validity_table
    from fastslow.results.signals.write import write_signals

    if run is not None and (model, task, param) == (None, None, None):
        path = run_folder(run)
        study, folder = study_run(path, stage, primary, trust), out or path / FOLDER
    elif run is None and stage is None and model and task and out:
        built = build_named(task, param or [], allow_code=False)
        study, folder = study_model(model, built, demonstrations, draw, primary), out
    else:
        raise ConfigError(
            "signals: give the folder of a run, or --model DIR, --task NAME and --out FOLDER "
            "without a run and --stage. `fastslow signals --help` lists the options."
        )
    if not is_leader():
        return
    written = write_signals(study, folder)
    table = validity_table(study.overall, study, brief=True)
    output().print(render_tables([headline(study)], [table]))
    for file in written:
        print(f"written: {visible(str(file))}")
