"""What a comparison says in words and tables; escaping is left to whoever shows it."""

from collections.abc import Sequence

from fastslow.core.types import Json
from fastslow.results.compare.data import QUANTITIES, ArmComparison, Comparison, Contrast
from fastslow.results.render.layout import Table, Text, score_or_dash

MAX_SETTINGS = 60
"""Rows of the table of settings; compare.json has all of them."""
PAIRED = (
    "Value - baseline on the same examples, 95 % intervals; so below. p: exact McNemar for one "
    "pair of 0/1 scores, else normal, after Holm's correction over the tasks; ! below 5 %. "
    "Detectable: the smallest difference found with 80 % power, uncorrected."
)


def verdicts(found: Comparison) -> tuple[str, ...]:
    """One per arm: what differs from the baseline, with uncertainty, and what could be missed."""
    return tuple(_verdict(comparison, found.arms[0].name) for comparison in found.comparisons)


def _verdict(found: ArmComparison, baseline: str) -> str:
    final = found.tasks["final"]
    paired = [contrast for contrast in final if contrast.difference is not None]
    if not paired:
        reasons = dict.fromkeys(contrast.reason or "" for contrast in final)
        return f"{found.arm} cannot be compared with {baseline}: {'; '.join(reasons)}."
    average = next(metric for metric in found.metrics if metric.name == "average_accuracy")
    parts = []
    if average.difference is not None:
        parts.append(f"final average accuracy {average.difference:+.2f}{_interval(average)}")
    words = {True: "higher", False: "lower"}
    for is_higher, word in words.items():
        names = [
            contrast.name
            for contrast in paired
            if contrast.is_beyond_chance and ((contrast.difference or 0) > 0) is is_higher
        ]
        if names:
            parts.append(f"{word} beyond chance on {', '.join(names)}")
    unclear = [contrast for contrast in paired if not contrast.is_beyond_chance]
    if unclear:
        least = max(contrast.smallest_detectable or 0 for contrast in unclear)
        parts.append(
            f"no difference beyond chance on {', '.join(c.name for c in unclear)}, though one "
            f"below {least:.2f} could have been missed"
        )
    if len(found.pairs) > 1:
        parts.append(f"over examples, these {len(found.pairs)} seeds taken as fixed")
    return f"{found.arm} against {baseline}: {'; '.join(parts)}."


def comparison_tables(found: Comparison) -> list[Table]:
    """All tables in reading order; those without rows are left out."""
    made = [
        _runs(found),
        *(
            _contrasts(
                words,
                [(c.arm, row) for c in found.comparisons for row in c.tasks[quantity]],
                PAIRED if quantity == "final" else "",
            )
            for quantity, words in QUANTITIES.items()
        ),
        _contrasts(
            "Metrics",
            [(c.arm, row) for c in found.comparisons for row in c.metrics],
            "95 % intervals with the tasks taken as fixed, where a metric is a mean of paired "
            "differences. Uncorrected for their number.",
        ),
        _contrasts(
            "Drift from the base at the end",
            [(c.arm, row) for c in found.comparisons for row in c.drift],
            "Nats per token, under the deployed text. Not paired: intervals are those of two "
            "independent means, from their standard errors.",
            digits=4,
        ),
        _costs(found),
        _seeds(found),
        _settings(found),
    ]
    return [table for table in made if table.rows]


def _runs(found: Comparison) -> Table:
    return Table(
        "Runs",
        ("arm", "run", "seed", "state", "configuration"),
        tuple(
            (
                Text(arm.name + (" (baseline)" if number == 0 else "")),
                Text(run.run),
                Text(str(run.seed)),
                Text(run.report.state),
                Text(run.report.config_hash, is_code=True),
            )
            for number, arm in enumerate(found.arms)
            for run in arm.runs
        ),
        _notes(found),
    )


def _notes(found: Comparison) -> str:
    """Each note once, with the arms it is about unless it is about all."""
    said = []
    for note in dict.fromkeys(note for c in found.comparisons for note in c.notes):
        arms = [c.arm for c in found.comparisons if note in c.notes]
        about = "" if len(arms) == len(found.comparisons) else f"{', '.join(arms)}: "
        said.append(f"{about}{note}")
    return " ".join(said)


def _contrasts(
    title: str, rows: Sequence[tuple[str, Contrast]], note: str, digits: int = 2
) -> Table:
    has_tests = any(row.p_holm is not None for _, row in rows)
    tests = ("p (Holm)", "n", "detectable") if has_tests else ()
    made = []
    for arm, row in rows:
        figures = (_number(row.baseline, digits), _number(row.value, digits))
        last: tuple[Text, ...] = ()
        if has_tests:
            last = (
                Text(_p_value(row.p_holm)),
                Text(str(row.n) if row.n else "-"),
                Text(score_or_dash(row.smallest_detectable)),
            )
        made.append((Text(row.name), Text(arm), *figures, _difference(row, digits), *last))
    header = ("of", "arm", "baseline", "value", "value - baseline", *tests)
    return Table(title, header, tuple(made), note)


def _p_value(value: float | None) -> str:
    if value is None:
        return "-"
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def _number(value: float | None, digits: int) -> Text:
    return Text("-", "dim") if value is None else Text(f"{value:.{digits}f}")


def _difference(row: Contrast, digits: int) -> Text:
    if row.difference is None:
        return Text(row.reason or "-", "dim")
    mark = "!" if row.is_beyond_chance else ""
    text = f"{row.difference:+.{digits}f}{mark}{_interval(row, digits)}"
    if row.low is None and row.reason:
        text += f" ({row.reason})"
    return Text(text, "strong" if row.is_beyond_chance else "plain")


def _interval(row: Contrast, digits: int = 2) -> str:
    if row.low is None or row.high is None:
        return ""
    return f" [{row.low:+.{digits}f}, {row.high:+.{digits}f}]"


def _costs(found: Comparison) -> Table:
    rows = []
    for comparison in found.comparisons:
        for row in comparison.costs:
            if row.baseline is None or row.value is None or row.difference is None:
                continue
            ratio = f"{row.value / row.baseline:.2f}" if row.baseline else "-"
            rows.append(
                (
                    Text(row.name),
                    Text(comparison.arm),
                    Text(f"{row.baseline:.0f}"),
                    Text(f"{row.value:.0f}"),
                    Text(f"{row.difference:+.0f}"),
                    Text(ratio),
                )
            )
    return Table(
        "Cost",
        ("of", "arm", "baseline", "value", "value - baseline", "times the baseline"),
        tuple(rows),
        "Counted, so without intervals; of several seeds the mean. Seconds of different machines, "
        "or of a busy one, say little.",
    )


def _seeds(found: Comparison) -> Table:
    rows = []
    for comparison in found.comparisons:
        for quantity, contrasts in comparison.tasks.items():
            for row in contrasts:
                if row.seed_differences and row.sign_flip_p is not None:
                    each = ", ".join(f"{value:+.2f}" for value in row.seed_differences)
                    note = f" ({row.sign_flip_note})" if row.sign_flip_note else ""
                    p_value = Text(f"{row.sign_flip_p:.3f}{note}")
                    names = (Text(row.name), Text(quantity), Text(comparison.arm))
                    rows.append((*names, Text(each), p_value))
    return Table(
        "Over seeds",
        ("task", "what", "arm", "difference under each seed", "p of an exact sign-flip test"),
        tuple(rows),
        "The intervals above take the seeds as fixed; this does not.",
    )


def _settings(found: Comparison) -> Table:
    rows = [
        (Text(key, is_code=True), *(Text(_plain(value)) for value in values))
        for key, values in found.settings.items()
    ]
    cut = f"The first {MAX_SETTINGS} of {len(rows)}." if len(rows) > MAX_SETTINGS else ""
    return Table(
        "Settings that differ",
        ("key", *(arm.name for arm in found.arms)),
        tuple(rows[:MAX_SETTINGS]),
        f"Of each arm's first run; - is none. {cut}".strip(),
    )


def _plain(value: Json) -> str:
    return "-" if value is None or value == [] else str(value)
