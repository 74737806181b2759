"""The files of a study of signals: signals.html, signals.csv, a line a problem, signals.json."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from fastslow.core.types import Json
from fastslow.measure.scores.routing_curve import RoutingCurve
from fastslow.measure.scores.signal_draws import CHANCE_AUROC, FORMULAS, RIDGE
from fastslow.measure.scores.validity import Validity
from fastslow.records.validity_file import SignalStudy, Verdict, Verdicts, write_verdicts
from fastslow.results.render import drawing
from fastslow.results.render.encoding import ends, plain, with_limits
from fastslow.results.render.html import render
from fastslow.results.render.writing import csv_text, require_no_run, write_files
from fastslow.results.signals.tables import headline, pair_name, study_tables

MAX_CURVES = 8
"""Pairs of arms that are drawn, of those that differ; the tables have all of them."""
DRAWN = ("first_logprob", "best order")
"""Curves drawn next to that of the primary signal."""


def write_signals(study: SignalStudy, folder: Path) -> tuple[Path, ...]:
    """Write the three files into a folder, made if need be.

    Raises:
        ConfigError: It is a run folder, among whose own files these would lie.
        CheckpointError: It cannot be written.
    """
    advice = "Leave --out out to write to its signals/, or give another folder."
    require_no_run("--out", folder, advice)
    verdicts = {
        name: Verdict(name, validity.earned, validity.reason)
        for name, validity in study.overall.signals.items()
        if name != RIDGE
    }
    texts = {"signals.csv": rows_csv(study), "signals.html": page(study)}
    written = write_files(folder, {name: text.encode() for name, text in texts.items()})
    file = write_verdicts(folder, Verdicts(study.model, verdicts), details(study))
    return (*written, file)


def details(study: SignalStudy) -> dict[str, Json]:
    """All numbers of a study but those of each problem."""
    names = ("subject", "primary", "weights", "prompts", "labels", "absent")
    return {name: plain(getattr(study, name)) for name in names} | {
        "formulas": dict(FORMULAS),
        "overall": _validity_json(study.overall),
        "tasks": {task: _validity_json(validity) for task, validity in study.tasks.items()},
        "routing": [_curve_json(curve) for curve in study.curves],
    }


def _validity_json(validity: Validity) -> Json:
    signals: dict[str, Json] = {}
    for name, signal in validity.signals.items():
        signals[name] = {
            "role": signal.role,
            "opponents": list(signal.opponents),
            "p_value": plain(signal.p_value),
            "earned": signal.earned,
            "reason": signal.reason,
            "figures": {f: _limits(e.metric, e.interval) for f, e in signal.figures.items()},
        }
    names = ("tasks", "examples", "wrong", "controls", "notes")
    return {name: plain(getattr(validity, name)) for name in names} | {"signals": signals}


def _limits(*figure: Any) -> dict[str, Json]:
    """A figure and its interval; formulas stand elsewhere, once."""
    limits = cast("dict[str, Json]", plain(with_limits(*figure)))
    return {name: value for name, value in limits.items() if name != "formula"}


def _curve_json(curve: RoutingCurve) -> Json:
    arms = {"cheap": curve.cheap, "strong": curve.strong}
    return {
        "task": curve.task,
        **{
            side: {"name": a.name, "prompt_tokens": plain(a.prompt_tokens)}
            for side, a in arms.items()
        },
        "eligible": curve.eligible,
        "worse_frac": plain(curve.worse_frac),
        "gains": {name: _limits(gain.metric, gain.interval) for name, gain in curve.gains.items()},
        "tokens": plain(curve.tokens),
        "accuracy": plain(curve.accuracy),
    }


def rows_csv(study: SignalStudy) -> str:
    """The text of signals.csv."""
    signals = list(dict.fromkeys(name for row in study.rows for name in row.signals))
    controls = list(dict.fromkeys(name for row in study.rows for name in row.controls))
    header = ["task", "example", "difficulty", "wrong", *signals]
    header += [f"unfamiliarity/{name}" for name in controls]
    lines = [
        [
            row.task,
            row.example,
            row.difficulty,
            None if row.wrong is None else int(row.wrong),
            *(row.signals.get(name) for name in signals),
            *(row.controls.get(name) for name in controls),
        ]
        for row in study.rows
    ]
    return csv_text(header, lines)


def page(study: SignalStudy) -> str:
    """The text of signals.html."""
    return render(
        "signals.html",
        {
            "title": f"{study.primary} on {study.model} · fastslow signals",
            "study": study,
            "headline": headline(study),
            "drawings": tuple(_drawings(study)),
            "tables": study_tables(study),
        },
    )


def _drawings(study: SignalStudy) -> Iterator[drawing.Drawing]:
    yield _aurocs(study)
    curves = [c for c in study.curves if any(g.metric.value is not None for g in c.gains.values())]
    for number, curve in enumerate(curves[:MAX_CURVES]):
        yield _curve(curve, study.primary, number)


def _aurocs(study: SignalStudy) -> drawing.Drawing:
    """AUROC of every signal with its interval, over all tasks."""
    figures = {
        name: (figure.metric.value, ends(figure.interval))
        for name, signal in study.overall.signals.items()
        if (figure := signal.figures["auroc"]).metric.value is not None
    }

    def paint(figure: drawing.Figure) -> None:
        axes = figure.add_subplot()
        for y, (name, (value, limits)) in enumerate(figures.items()):
            colour = drawing.ACCENT if name == study.primary else drawing.MUTED
            drawing.interval_line(axes, y, limits, colour)
            axes.plot(value, y, "o", color=colour)
        axes.axvline(CHANCE_AUROC, color=drawing.MUTED, lw=0.8, ls=(0, (4, 3)))
        names = [drawing.label(name) for name in figures]
        drawing.named_rows(axes, range(len(names)), names, "AUROC for wrong answers")
        axes.set_ylim(len(names) - 0.4, -0.6)

    return drawing.draw(
        "signals-auroc",
        "Which signals tell wrong answers",
        "AUROC with 95 % interval, the mean over tasks. Blue: the primary signal. Dashed: chance. "
        "Whether a signal is better than another is read from the paired differences.",
        paint,
        height=0.9 + 0.19 * len(figures),
    )


def _curve(curve: RoutingCurve, primary: str, number: int) -> drawing.Drawing:
    """Mean score by what routing costs, for the primary signal, confidence and the best order."""
    is_priced = curve.cheap.prompt_tokens != curve.strong.prompt_tokens
    size = len(curve.cheap.scores)
    x = curve.tokens if is_priced else tuple(k / size for k in range(size + 1))
    names = [name for name in dict.fromkeys((primary, *DRAWN)) if name in curve.accuracy]

    def paint(figure: drawing.Figure) -> None:
        axes = figure.add_subplot()
        for index, name in enumerate(names):
            colour = drawing.series(index)["color"]
            axes.plot(x, curve.accuracy[name], color=colour, label=drawing.label(name))
        line = curve.accuracy["best order"]
        ends_of_chance = (
            (curve.cheap.prompt_tokens, curve.strong.prompt_tokens) if is_priced else (0, 1)
        )
        axes.plot(ends_of_chance, (line[0], line[-1]), color=drawing.MUTED, ls=":", label="chance")
        axes.set_xlabel("mean prompt tokens" if is_priced else "share sent to the latter")
        axes.set_ylabel("score")
        drawing.legend(axes, 2)

    return drawing.draw(
        f"signals-routing-{number + 1}",
        drawing.label(curve.task) + f": {curve.cheap.name} / {curve.strong.name}",
        f"{pair_name(curve)}: mean score when the hardest problems go to the latter."
        + (" Not an eligible pair." * (not curve.eligible)),
        paint,
    )
