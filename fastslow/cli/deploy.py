"""`gate`, `rollback`, `export` and `push`: from a run folder to a policy in use."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fastslow.cli.arguments import Json, Run, Trust, errors, output, run_folder
from fastslow.core.errors import ConfigError
from fastslow.core.text import visible
from fastslow.records.environment import why_not_to_write

NO = 3
"""Exit code when the gate says no."""


def gate(
    run: Run,
    against: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Compare with the policy of this run too, paired."),
    ] = None,
    max_forgetting: Annotated[
        float, typer.Option(metavar="LOSS", help="Largest mean loss over tasks.")
    ] = 0.02,
    max_task_forgetting: Annotated[
        float, typer.Option(metavar="LOSS", help="Largest loss of a single task.")
    ] = 0.05,
    min_score: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK=SCORE", help="Least score of a task; may be repeated."),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Compare the bounds of 95 % intervals in place of the estimates."
        ),
    ] = False,
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute",
            help="Judge again as gate.json says, write nothing, and fail if it says anything else.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Judge whether a run's policy may ship: exit code 0 yes, 3 no.

    A score may have dropped by at most the larger of the option and the noise floor: since its
    own stage, since the base, and since the baseline. What cannot be judged is refused with exit
    code 2. Writes gate/gate.json in the run folder, unless that cannot be written or is kept under
    version control. Needs no model.
    """
    from fastslow.results.deploy.gate import GateOptions, judge, min_scores
    from fastslow.results.deploy.gate_file import (
        recompute_verdict,
        shown_rules,
        verdict_lines,
        verdict_text,
        write_verdict,
    )
    from fastslow.results.report.gate_rules import side_by_side
    from fastslow.results.report.terminal import render_tables

    options = GateOptions(
        max_forgetting=max_forgetting,
        max_task_forgetting=max_task_forgetting,
        min_scores=min_scores(min_score or ()),
        strict=strict,
        against=None if against is None else str(run_folder(against)),
    )
    if recompute and options != GateOptions():
        raise ConfigError(
            "gate --recompute: takes its options from gate.json, got others as well. Leave them "
            "out, or judge again without --recompute."
        )
    if recompute:
        verdict = recompute_verdict(run)
        written = "gate.json: byte-identical when judged again from the files"
    else:
        verdict = judge(run, options)
        reason = why_not_to_write(run)
        written = f"not written: {reason}"
        if reason is None:
            written = f"verdict: {write_verdict(run, verdict)}"
    if as_json:
        print(verdict_text(verdict), end="")
    else:
        for line in verdict_lines(verdict):
            print(line)
        if (table := side_by_side(shown_rules(verdict))).rows:
            output().print(render_tables((), [table]))
        print(visible(written))
    if not verdict.passed:
        raise typer.Exit(NO)


def rollback(
    run: Run,
    to: Annotated[int, typer.Option(metavar="STAGE", help="Stage number, from 1.")],
) -> None:
    """Put the adapter and prompts of a stage in use again.

    Moves nothing: a line in deployed.jsonl says what is in use, and export, gate and report follow
    it. Their scores are those of the stage's row, exactly. Needs no model.
    """
    from fastslow.results.deploy.rollback import roll_back
    from fastslow.results.report import write_report

    standing = roll_back(run, to)
    write_report(run)
    print(
        f"deployed: {visible(standing.run)}, policy after stage {standing.row} of "
        f"{len(standing.stages)} ({visible(str(standing.folder))})"
    )
    for task in standing.tasks:
        assert task.now.score is not None
        print(
            f"  {visible(task.task)}: {task.now.score:.3f} on {task.now.n} examples, "
            f"weights {task.weights}, prompt {visible(str(task.text))}"
        )
    print("Adapter and prompts are those that were scored. Report and gate follow.")


def export(
    run: Run,
    stage: Annotated[
        int | None,
        typer.Option(metavar="N", help="Stage number, from 1 (default: the deployed one)."),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Write the whole model with the adapter folded in.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A new folder (default: export/NNN-TASK in RUN)."),
    ] = None,
    trust: Trust = False,
) -> None:
    """Write a run's policy as files for transformers, vLLM and DSPy.

    A PEFT adapter or a merged model, tokenizer and chat template, prompts as chat messages and as
    DSPy programs, and a model card with the forgetting table and code to use them.
    """
    from fastslow.results.deploy.export import export as write

    folder = write(run, stage=stage, merge=merge, out=out, trust=trust)
    print(f"exported: {visible(str(folder))}; README.md there says how to use it")


def push(
    run: Run,
    address: Annotated[
        str | None,
        typer.Argument(
            metavar="[ADDRESS]",
            help="s3://bucket/prefix, gs://…, hf://owner/name or file://… (default: in the run's "
            "`publish`).",
        ),
    ] = None,
    stage: Annotated[
        int | None, typer.Option(metavar="N", help="Only this stage, from 1, with its adapter.")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="This export of the run in place of its records."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over another run that is there.")
    ] = False,
    trust: Trust = False,
) -> None:
    """Publish a finished run, a stage or an export.

    Records, reports and the adapters of all stages, never resume points. Files that are there
    already are not sent again; manifest.json, written last, has the SHA-256 of each. A repository
    on the hub is made private.
    """
    from rich.progress import Progress

    from fastslow.records.publishing import published_at, push_export, push_run
    from fastslow.records.trust import load_run

    if export is not None and stage is not None:
        raise ConfigError("push: --stage and --export exclude each other. Give one of them.")
    place = address or published_at(load_run(run, trust).config, run)
    with Progress(transient=True, disable=not sys.stderr.isatty(), console=errors()) as progress:
        bar = progress.add_task("push", total=None)

        def show(name: str, size: int) -> None:
            progress.update(bar, description=visible(name), advance=size)

        if export is not None:
            sent = push_export(run, export, place, show, force=force)
        else:
            sent = push_run(run, place, show, stage=stage, force=force)
    print(f"published: {visible(place)}, {sent} files sent; manifest.json there lists all")
