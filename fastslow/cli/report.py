"""`report`, `probe`, `track` and `prompts`: commands on a run folder."""

import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastslow.cli.arguments import (
    Full,
    Json,
    Paper,
    Run,
    Trust,
    output,
    print_json,
    print_report,
    run_folder,
)
from fastslow.core.distributed import is_leader
from fastslow.core.errors import CheckpointError, ConfigError, FastSlowError
from fastslow.core.files import is_folder
from fastslow.core.text import shorten, visible
from fastslow.records.environment import why_not_to_write

if TYPE_CHECKING:
    from fastslow.config.loading.load import LoadedConfig
    from fastslow.core.types import Example

Folder = Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where runs were made.")]


def runs(folder: Folder = Path("runs"), as_json: Json = False) -> None:
    """List runs: state, stages done, score so far, start, size.

    Runs of an ablation lie a folder deeper and are only counted; give that folder to list them.
    States: running, finished, failed, interrupted (by a signal) and died (killed); the last two can
    be resumed. The score is the mean over all tasks in the last whole row of the matrix.
    """
    from fastslow.results.listing import list_runs, listing_lines

    if not is_folder(folder):
        raise CheckpointError(
            f"{folder}: no such folder. Give the one that holds runs: `runs_dir` of their "
            "configuration."
        )
    listed = list_runs(folder)
    deeper = Counter(card.parent.parent for card in folder.glob("*/*/run.json"))
    if as_json:
        inner_runs = {str(path): count for path, count in sorted(deeper.items())}
        runs = [
            {
                **asdict(run),
                "path": str(run.path),
                "started": run.started and run.started.isoformat(),
            }
            for run in listed
        ]
        print_json({"folder": str(folder), "runs": runs, "deeper": inner_runs})
        return
    if not listed and not deeper:
        print(f"{visible(str(folder))}: no runs")
    for line in listing_lines(listed) if listed else ():
        print(line)
    for inner, count in sorted(deeper.items()):
        print(f"in {visible(str(inner))}: {count} run{'s' * (count > 1)}")
    for run in listed:
        if run.reason:
            print(f"{visible(run.path.name)}: {visible(run.reason)}", file=sys.stderr)


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN RUN…", help="Run folders; the first is the baseline."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="Also write compare.html, .md and .json, scores.csv and figures/ there.",
        ),
    ] = None,
    full: Full = False,
    paper: Paper = None,
    as_json: Json = False,
) -> None:
    """Compare runs with the first one, example by example. Needs no model.

    Differences of final scores, of what was learned and forgotten, of drift and cost, with 95 %
    intervals and exact tests. Runs that differ in nothing but their seed count as one arm.
    """
    from fastslow.api import comparison
    from fastslow.results.compare.tables import comparison_tables, first_screen, origin_sentence
    from fastslow.results.compare.write import comparison_for_paper, json_text
    from fastslow.results.report.terminal import render_tables

    result = comparison.compare(*map(run_folder, runs), out=out)
    written = result.written
    if paper is not None:
        comparison_for_paper(result.comparison, paper)
        written = (*written, paper)
    if as_json:
        print(json_text(result.comparison), end="")
        return
    if full:
        output().print(render_tables(result.verdict, comparison_tables(result.comparison)))
    else:
        sentences, table = first_screen(result.comparison)
        output().print(render_tables(sentences, [table]))
        if differing := origin_sentence(result.comparison):
            output().print(render_tables([differing], ()))
        print("every table: --full; as a page: --out FOLDER")
    for path in written:
        print(f"written: {visible(str(path))}")


def report(
    run: Run,
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute",
            help="Compute every figure from the raw records again, write nothing, and fail if "
            "report.json says anything else.",
        ),
    ] = False,
    full: Full = False,
    paper: Paper = None,
    as_json: Json = False,
) -> None:
    """Write a run's forgetting report again, and print it. Needs no model.

    Into a folder that cannot be written, or is kept under version control, nothing is written.
    """
    from fastslow.results.report import (
        build_report,
        recompute_report,
        report_for_paper,
        save_report,
    )
    from fastslow.results.report.write import report_json

    if recompute:
        if differences := recompute_report(run):
            raise CheckpointError(
                f"{run / 'report.json'}: not what the records say, got {len(differences)} "
                f"differences, report.json -> recomputed: {visible('; '.join(differences[:5]))}. "
                "Records or report were edited, or another version wrote it; write it again with: "
                f"fastslow report {run}"
            )
        print(f"{visible(str(run / 'report.json'))}: byte-identical when recomputed from records")
        return
    reason, built = why_not_to_write(run), build_report(run)
    if reason is None:
        save_report(built)
    if paper is not None:
        report_for_paper(built, paper)
    if as_json:
        print(report_json(built), end="")
        return
    print_report(run, built, full=full)
    if paper is not None:
        print(f"for a paper: {visible(str(paper))}")
    if reason is not None:
        print(f"not written again: {reason}")


def probe(
    run: Run,
    task: Annotated[
        str, typer.Option(metavar="NAME", help="A task that no stage of the run visits.")
    ],
    stage: Annotated[
        int | None, typer.Option(metavar="N", help="Stage number, from 1 (default: last).")
    ] = None,
    trust: Trust = False,
) -> None:
    """Measure whether a run's weights can still learn.

    Trains on a new task from these weights and from the base, then reports. Settings are those of
    the run's `probe` section, or its defaults; the curves are kept in the run folder under probe/.
    """
    from fastslow.loop.launch import probe as start
    from fastslow.results.report import write_report

    start(run, task, stage, trust)
    if is_leader():
        write_report(run)
    print_report(run)


def track(run: Run, trust: Trust = False) -> None:
    """Send a run's records to its trackers again.

    For what one of them missed while it was away or locked. Nothing is there twice.
    """
    from fastslow.records.run_folder import RunDir
    from fastslow.records.tracking.build import build_tracking
    from fastslow.records.trust import load_run

    loaded = load_run(run, trust)
    config = loaded.config
    if not config.trackers:
        raise ConfigError(f"{run}: tracking is null in this run, so it has no tracker to send to.")
    with RunDir.open(run):
        tracking = build_tracking(config, run)
        tracking.send_run(_scored_examples(run, loaded))
    names = ", ".join(tracker.name for tracker in tracking.trackers)
    print(f"sent to {visible(names)}: {visible(str(run))}")


def _scored_examples(run: Path, loaded: "LoadedConfig") -> "dict[str, tuple[Example, ...]]":
    """By task, the test examples that a run scores; none where the data is not here as it was."""
    from fastslow.loop.build import build_tasks
    from fastslow.measure.evaluator import Evaluator
    from fastslow.records.data import require_same_data

    config = loaded.config
    try:
        tasks = build_tasks(loaded, config.task_names)
        require_same_data(run, tasks)
    except FastSlowError as error:
        print(f"sent without evaluation datasets: {shorten(str(error), 300)}", file=sys.stderr)
        return {}
    sizes = config.evaluation
    evaluator = Evaluator(sizes.test_examples, sizes.validation_examples, sizes.split)
    return {name: evaluator.test_sample(task) for name, task in tasks.items()}


def prompts(
    run: Run,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="How two prompts differ; each a hash or, say, stage-1."),
    ] = None,
    trace: Annotated[
        str | None, typer.Option(metavar="PROMPT", help="Show where a prompt came from.")
    ] = None,
) -> None:
    """Show a run's prompts with their scores.

    Best first, after every fast phase; `*` marks the prompt that its stage deployed.
    """
    from fastslow.results.report.prompt_history import (
        diff_lines,
        overview_lines,
        read_prompts,
        trace_lines,
    )

    history = read_prompts(run, with_seeds=trace is not None)
    if diff is not None:
        lines = diff_lines(history, *diff)
    elif trace is not None:
        lines = trace_lines(history, trace)
    else:
        lines = overview_lines(history)
    for line in lines:
        print(line)
