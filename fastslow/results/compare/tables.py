"""A comparison in words and tables; escaping is left to whoever shows it."""

from collections.abc import Callable, Mapping, Sequence

from fastslow.results.compare.data import (
    QUANTITIES,
    ArmComparison,
    Contrast,
    Quantity,
    RunComparison,
)
from fastslow.results.render.layout import Table, Text, row, score_or_dash
from fastslow.results.report.sections.scores import GUESS_NOTE, guess_rows

MAX_SETTINGS = 60
"""Rows of the table of settings; compare.json has all of them."""
MAX_LINES = 40
"""Lines of tasks up to which the first screen has them; of more it has a line an arm."""
MAX_ARMS = 80
"""Lines of arms on it."""
PAIRED = (
    "Value - baseline on the same examples, 95 % intervals; so below. p: of one seed exact McNemar "
    "for 0/1 scores, else normal; of several Student's t; after Holm's correction over the tasks; "
    "! below 5 %. Detectable: the smallest difference found with 80 % power, uncorrected. Power: "
    "how often a comparison with this spread would find the difference named, uncorrected."
)


def verdicts(comparison: RunComparison) -> tuple[str, ...]:
    """One per arm: its differences from the baseline, with uncertainty and what could be missed."""
    return tuple(_verdict(arm, comparison.arms[0].name) for arm in comparison.comparisons)


def _verdict(comparison: ArmComparison, baseline: str) -> str:
    final = comparison.tasks["final"]
    paired = [contrast for contrast in final if contrast.difference is not None]
    if not paired:
        reasons = dict.fromkeys(contrast.reason or "" for contrast in final)
        return f"{comparison.arm} cannot be compared with {baseline}: {'; '.join(reasons)}."
    average = next(metric for metric in comparison.metrics if metric.name == "average_accuracy")
    findings = []
    if average.difference is not None:
        findings.append(f"final average accuracy {average.difference:+z.2f}{_interval(average)}")
    sure = [contrast for contrast in paired if contrast.is_significant]
    for word, sign in (("higher", 1), ("lower", -1)):
        names = [contrast.name for contrast in sure if sign * (contrast.difference or 0) > 0]
        if names:
            findings.append(f"significantly {word} on {', '.join(names)}")
    unclear = [contrast for contrast in paired if not contrast.is_significant]
    if unclear:
        least = max(contrast.smallest_detectable or 0 for contrast in unclear)
        findings.append(
            f"no significant difference on {', '.join(c.name for c in unclear)}, though one "
            f"below {least:.2f} could have been missed{_least_power(unclear)}"
        )
    findings.append(_coverage(comparison))
    return f"{comparison.arm} against {baseline}: {'; '.join(findings)}."


def _least_power(contrasts: Sequence[Contrast]) -> str:
    texts = {c.power: c.power_text for c in contrasts if c.power is not None and c.power_text}
    return texts[min(texts)] if texts else ""


def _coverage(comparison: ArmComparison) -> str:
    """The sources of variance that the intervals of an arm count."""
    if len(comparison.pairs) == 1:
        return "one seed: intervals over examples only"
    return f"{len(comparison.pairs)} seeds: intervals over seeds and examples"


def comparison_tables(comparison: RunComparison) -> list[Table]:
    """All tables in reading order; those without rows are left out."""
    arms = comparison.comparisons
    coverage = _by_arm(arms, lambda arm: [f"{_coverage(arm).capitalize()}."] if arm.pairs else [])
    tables = [
        _runs(comparison),
        _origins(comparison),
        Table(
            "Chance",
            ("guess", *comparison.tasks),
            tuple(guess_rows(comparison.guesses, comparison.tasks)),
            f"Mean test score of the first run that graded it.{GUESS_NOTE}",
        ),
        *(
            _contrasts(
                words,
                [(arm.arm, row) for arm in arms for row in arm.tasks[quantity]],
                f"{coverage} {PAIRED}".strip() if quantity == "final" else coverage,
            )
            for quantity, words in QUANTITIES.items()
        ),
        _contrasts(
            "Metrics",
            [(arm.arm, row) for arm in arms for row in arm.metrics],
            f"{coverage} The tasks are taken as fixed; an interval where a metric is a mean of "
            "paired differences. Uncorrected for their number.".strip(),
        ),
        _contrasts(
            "Drift from the base at the end",
            [(arm.arm, row) for arm in arms for row in arm.drift],
            "Nats per token, under the deployed prompt. Intervals of one seed are those of two "
            "independent means, from their standard errors; of several, over the seeds alone.",
            digits=4,
        ),
        _costs(arms),
        _seeds(arms),
        _settings(comparison),
    ]
    return [table for table in tables if table.rows]


def first_screen(comparison: RunComparison) -> tuple[Sequence[str], Table]:
    """Sentences and a table for one screen: verdicts and each task, or of many a line an arm."""
    tasks = _short_table(comparison)
    if len(tasks.rows) <= MAX_LINES:
        return verdicts(comparison), tasks
    arms = comparison.comparisons
    sure = [[c.difference or 0.0 for c in arm.tasks["final"] if c.is_significant] for arm in arms]
    higher, lower = (sum(any(sign * d > 0 for d in of_arm) for of_arm in sure) for sign in (1, -1))
    sentence = (
        f"{len(arms)} against {comparison.arms[0].name}: {higher} significantly higher on a task, "
        f"{lower} lower."
    )
    return [sentence], _overview(arms)


def _overview(arms: Sequence[ArmComparison]) -> Table:
    rows = []
    for arm in arms[:MAX_ARMS]:
        metrics = {contrast.name: contrast for contrast in arm.metrics}
        sure = [c.difference or 0.0 for c in arm.tasks["final"] if c.is_significant]
        counts = [sum(sign * value > 0 for value in sure) or "-" for sign in (1, -1)]
        detectable = [c.smallest_detectable or 0.0 for c in arm.tasks["final"] if c.n]
        rows.append(
            row(
                arm.arm,
                *_value_and_interval(metrics["average_accuracy"]),
                *_value_and_interval(metrics["bwt_gem"]),
                *counts,
                score_or_dash(max(detectable, default=None)),
            )
        )
    cut = f" The first {MAX_ARMS} of {len(arms)} arms." if len(arms) > MAX_ARMS else ""
    return Table(
        "Each arm against the baseline",
        ("arm", "at the end", "95 %", "forgetting", "95 %", "higher", "lower", "detectable"),
        tuple(rows),
        "Value - baseline of the averages, with intervals; of forgetting (bwt_gem), positive = "
        "less of it. Higher, lower: tasks whose score at the end differs at 5 % after Holm's "
        f"correction over the tasks. Detectable: on every task, with 80 % power.{cut}",
    )


def _value_and_interval(contrast: Contrast) -> tuple[Text, Text]:
    if contrast.difference is None:
        return Text("", "dim", reason=contrast.reason or "not measured"), Text("")
    return Text(f"{contrast.difference:+z.2f}"), Text(_interval(contrast).strip())


def _short_table(comparison: RunComparison) -> Table:
    """Final scores and forgetting of each task."""
    names: Mapping[Quantity, str] = {"final": "at the end", "change": "forgetting"}
    return _contrasts(
        "Score at the end, and forgetting",
        [
            (f"{arm.arm}: {words}", contrast)
            for arm in comparison.comparisons
            for quantity, words in names.items()
            for contrast in arm.tasks[quantity]
            if contrast.difference is not None
        ],
        "Value - baseline on the same examples, 95 % intervals; ! below 5 % after Holm's "
        "correction over the tasks. Of forgetting, positive = less of it.",
    )


def _runs(comparison: RunComparison) -> Table:
    return Table(
        "Runs",
        ("arm", "run", "seed", "state", "configuration"),
        tuple(
            row(
                arm.name + (" (baseline)" if number == 0 else ""),
                run.run,
                run.seed,
                run.report.card.state,
                Text(run.report.card.config_hash, is_code=True),
            )
            for number, arm in enumerate(comparison.arms)
            for run in arm.runs
        ),
        _by_arm(comparison.comparisons, lambda arm: arm.notes),
    )


def _origins(comparison: RunComparison) -> Table:
    rows = [
        row(Text(name, is_code=True), *(", ".join(values) for values in by_arm))
        for name, by_arm in comparison.origins.items()
    ]
    return Table(
        "Made with",
        ("what", *(arm.name for arm in comparison.arms)),
        tuple(rows),
        "Versions, machine, commit and data where they are not the same in all runs: a difference "
        "of scores can come from these too. Data: fingerprint of questions and answers of a split; "
        "test examples that contradict each other are refused.",
    )


def origin_sentence(comparison: RunComparison) -> str:
    """Names of all that differs but the configuration, in a sentence; empty where nothing does."""
    if not comparison.origins:
        return ""
    return f"Not made with the same: {', '.join(comparison.origins)} (--full has the values)."


def _by_arm(
    arms: Sequence[ArmComparison], notes_of: Callable[[ArmComparison], Sequence[str]]
) -> str:
    """Each note once, with the arms it is about unless it is about all."""
    notes = []
    for note in dict.fromkeys(note for arm in arms for note in notes_of(arm)):
        names = [arm.arm for arm in arms if note in notes_of(arm)]
        about = "" if len(names) == len(arms) else f"{', '.join(names)}: "
        notes.append(f"{about}{note}")
    return " ".join(notes)


def _contrasts(
    title: str, rows: Sequence[tuple[str, Contrast]], note: str, digits: int = 2
) -> Table:
    has_tests = any(contrast.p_holm is not None for _, contrast in rows)
    tests = ("p (Holm)", "n", "detectable") if has_tests else ()
    cells = []
    for arm, c in rows:
        last = (_p_value(c.p_holm), c.n or "-", score_or_dash(c.smallest_detectable))
        numbers = (_number(c.baseline, digits), _number(c.value, digits), _difference(c, digits))
        cells.append(row(c.name, arm, *numbers, *(last if has_tests else ())))
    header = ("of", "arm", "baseline", "value", "value - baseline", *tests)
    return Table(title, header, tuple(cells), note)


def _p_value(value: float | None) -> str:
    if value is None:
        return "-"
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def _number(value: float | None, digits: int) -> Text:
    return Text("-", "dim") if value is None else Text(f"{value:.{digits}f}")


def _difference(contrast: Contrast, digits: int) -> Text:
    if contrast.difference is None:
        return Text("" if contrast.reason else "-", "dim", reason=contrast.reason or "")
    mark = "!" if contrast.is_significant else ""
    text = f"{contrast.difference:+z.{digits}f}{mark}{_interval(contrast, digits)}"
    text += contrast.power_text
    reason = contrast.reason if contrast.low is None else None
    return Text(text, "strong" if contrast.is_significant else "plain", reason=reason or "")


def _interval(contrast: Contrast, digits: int = 2) -> str:
    if contrast.low is None or contrast.high is None:
        return ""
    return f" [{contrast.low:+z.{digits}f}, {contrast.high:+z.{digits}f}]"


def _costs(arms: Sequence[ArmComparison]) -> Table:
    rows = []
    for arm in arms:
        for c in arm.costs:
            if c.baseline is not None and c.value is not None and c.difference is not None:
                ratio = f"{c.value / c.baseline:.2f}" if c.baseline else "-"
                amounts = (f"{c.baseline:.0f}", f"{c.value:.0f}", f"{c.difference:+.0f}")
                rows.append(row(c.name, arm.arm, *amounts, ratio))
    return Table(
        "Cost",
        ("of", "arm", "baseline", "value", "value - baseline", "times the baseline"),
        tuple(rows),
        "Counted, so without intervals; of several seeds the mean. Seconds of different machines, "
        "or of a busy one, say little.",
    )


def _seeds(arms: Sequence[ArmComparison]) -> Table:
    rows = []
    for arm in arms:
        groups = (*arm.tasks.items(), ("metric", arm.metrics))
        for quantity, c in ((name, c) for name, contrasts in groups for c in contrasts):
            if c.seed_differences and c.sign_flip_p is not None:
                each = ", ".join(f"{value:+z.2f}" for value in c.seed_differences)
                note = f" ({c.sign_flip_note})" if c.sign_flip_note else ""
                rows.append(row(c.name, quantity, arm.arm, each, f"{c.sign_flip_p:.3f}{note}"))
    return Table(
        "Over seeds",
        ("of", "quantity", "arm", "difference under each seed", "p of an exact sign-flip test"),
        tuple(rows),
        "The test takes the signs of the seeds' differences for coin flips, and assumes no "
        "distribution. Uncorrected.",
    )


def _settings(comparison: RunComparison) -> Table:
    rows = [
        row(Text(key, is_code=True), *("-" if v is None or v == [] else str(v) for v in values))
        for key, values in comparison.settings.items()
    ]
    cut = f"The first {MAX_SETTINGS} of {len(rows)}." if len(rows) > MAX_SETTINGS else ""
    return Table(
        "Settings that differ",
        ("key", *(arm.name for arm in comparison.arms)),
        tuple(rows[:MAX_SETTINGS]),
        f"Of each arm's first run; - is none. {cut}".strip(),
    )
