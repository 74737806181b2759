"""What the arenas say together: whether two channels beat each simpler way, and what to do."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from benchmarks import ablations
from benchmarks.ablations import COMMANDS, GOALS, QUESTIONS, goal_lines, is_kept, made, run_rows
from fastslow.measure.stats.over_seeds import SeedEstimate
from fastslow.results.ablation.arm_figures import arm_figures
from fastslow.results.ablation.records import average_guess
from fastslow.results.ablation.records_file import read_records_file
from fastslow.results.ablation.result import Result
from fastslow.results.ablation.tables import tables
from fastslow.results.render.layout import Table, Text
from fastslow.results.render.markdown import table_lines

OPPONENTS: Mapping[str, tuple[str, ...]] = {
    "the base": ("base",),
    "prompts alone": ("few-shot", "fast-only"),
    "weights alone": ("slow-only",),
    "gold answers": ("sft",),
    "weights with replay": ("slow-replay",),
    "best prompt, then weights": ("fast-then-slow",),
    "all tasks in rotation": ("joint",),
}
"""Simpler ways in words, and what the ablations call them."""
BOUNDS = ("the base", "all tasks in rotation")
"""Of these, what is no choice for tasks that come one after the other."""

NEARNESS = "KL, times that of weights alone"
"""The column beside the differences of scores."""


def arena_lines() -> list[str]:
    """Every kept ablation: its question, its arms, its claims, two figures, and what follows."""
    lines: list[str] = []
    for name in filter(is_kept, QUESTIONS):
        home = ablations.ABLATIONS / name
        result = read_records_file(home / "records.jsonl")
        lines += [f"## {QUESTIONS[name]}", ""]
        lines += [f"Made by `{COMMANDS[name]}`, kept as `runs/reference/ablations/{name}`."]
        lines += [made(home, result), "", *advice(result)]
        lines += goal_lines(GOALS.get(name, ()), result)
        for table in (arms_with_minutes(result, name), claims_in_short(result)):
            if table is not None:
                lines += [f"#{a}" if a.startswith("## ") else a for a in table_lines(table)]
        lines += _figures(home, result)
        lines += [f"Every table, as CSV and LaTeX too, and figure: [{name}]({_at(home)}).", ""]
    return lines


def _figures(home: Path, result: Result) -> list[str]:
    lines = []
    for drawing in arm_figures(result):
        where = _at(home, f"figures/{drawing.name}.svg")
        lines += [f"![{drawing.title}]({where})", "", drawing.caption, ""]
    return lines


def _at(home: Path, file: str = "ablation.md") -> str:
    """A file of a kept ablation, seen from docs/."""
    return f"../runs/reference/{home.parent.name}/{home.name}/{file}"


def payoff(shown: Mapping[str, str]) -> Table:
    """A row for every kept arena: two channels minus each simpler way.

    Args:
        shown: Names of ablations, and what their rows are called.
    """
    rows, apart = [], 0.0
    for name in filter(is_kept, shown):
        result = read_records_file(ablations.ABLATIONS / name / "records.jsonl")
        if result.config.claims is None:
            continue
        first, planned = result.config.claims.fast_slow, len(result.config.seeds)
        seeds = len({run.seed for run in result.records if run.arm == first})
        of_planned = f"{seeds} of {planned}" if seeds < planned else str(seeds)
        cells = [_cell(result, words, seeds) for words in OPPONENTS]
        apart = max(apart, _budgets_apart(result))
        rows.append((Text(shown[name], "strong"), Text(of_planned), *cells, _nearness(result)))
    return Table(
        "When do two channels beat a simpler way?",
        ("arena", "seeds", *(f"minus {words}" for words in OPPONENTS), NEARNESS),
        tuple(rows),
        "Average test score after the last stage, two channels in turn minus the other way, "
        "paired by seed and example [95 % interval]. The base and gold answers, which are "
        "fine-tuned on, need no rollouts; the other budgets are within "
        f"{math.ceil(round(100 * apart, 6))} % of that of two channels. Bold: the interval, "
        "uncorrected for the number of comparisons, is on one side of zero; above it two channels "
        "are better. One seed: over examples alone, which decides nothing. In rotation: several "
        "short visits to each task in place of one. (g): that way itself is not told apart from "
        "guessing, or is below it, where guessing was graded. -: not an arm of that arena, or not "
        "run yet. KL to the base, in nats per token on the tasks, where both ways score alike, if "
        "they ever do; bold: the interval is on one side of 1, below it two channels stay nearer.",
    )


def _nearness(result: Result) -> Text:
    """Times the KL of weights alone, if both ever score alike."""
    claim = next(claim for claim in result.claims if claim.name == "lower_kl")
    if claim.effect is None or claim.low is None or claim.high is None:
        return Text("-")
    cell = f"x {claim.effect:.2g} [{claim.low:.2g}, {claim.high:.2g}]"
    return Text(cell, "strong" if claim.high < 1 or claim.low > 1 else "plain")


def arms_with_minutes(result: Result, name: str) -> Table:
    """One table of an arena: what every arm scored, forgot and took, and what guessing scores."""
    minutes: dict[str, list[float]] = {}
    for run in run_rows(ablations.ABLATIONS / name):
        if run["seconds"]:
            minutes.setdefault(run["arm"], []).append(float(run["seconds"]) / 60)
    table = tables(result)[0]
    took = [minutes.get(row[0].text) for row in table.rows]
    cells = [Text("-" if each is None else f"{fmean(each):.1f}") for each in took]
    rows = tuple((*row, cell) for row, cell in zip(table.rows, cells, strict=True))
    note = f"{table.note} Minutes are those of a run, on average."
    return replace(table, header=(*table.header, "minutes"), rows=rows, note=note)


def claims_in_short(result: Result) -> Table | None:
    """The claims with their answers and effects; None where none was put to the test."""
    table = next((table for table in tables(result) if table.header[0] == "claim"), None)
    if table is None:
        return None
    return replace(table, header=table.header[:4], rows=tuple(row[:4] for row in table.rows))


def _budgets_apart(result: Result) -> float:
    """The largest distance of an opponent's rollouts from two channels', as a share of these."""
    claims, total = result.config.claims, {a.arm: a.rollouts.get("total") for a in result.arms}
    ours = total[claims.fast_slow] if claims else None
    others = [total.get(arm) for arms in OPPONENTS.values() for arm in arms]
    return max((abs(other / ours - 1) for other in others if other and ours), default=0.0)


def advice(result: Result) -> list[str]:
    """What a reader should do on tasks like these, as far as the intervals say; none if nothing."""
    claims = result.config.claims
    if claims is None or not result.differences:
        return []
    answers: dict[str, list[str]] = {"better than": [], "worse than": [], "not told apart from": []}
    found = {words: _difference(result, arms) for words, arms in OPPONENTS.items()}
    for words, estimate in found.items():
        if estimate is not None:
            answers[_answer(estimate)].append(words)
    parts = [f"{how} {_listed(words)}" for how, words in answers.items() if words]
    seeds = len({run.seed for run in result.records if run.arm == claims.fast_slow})
    told = f"Two channels in turn are {'; '.join(parts)}."
    if guessing := [words for words in OPPONENTS if _only_guesses(result, words)]:
        told += f" Not told apart from guessing, or below it: {_listed(guessing)}."
    if seeds < (planned := len(result.config.seeds)):
        told += f" So far that is under {seeds} of {planned} seeds."
    worse, better, alike = (
        [words for words in answers[how] if words not in BOUNDS]
        for how in ("better than", "worse than", "not told apart from")
    )
    what = "Nothing follows for tasks like these."
    if better:
        what = f"On tasks like these, try {_listed(better, 'or')} first, which scored higher."
    elif alike:
        pairs = [(e.low, e.high) for words in alike if (e := found[words])]
        most = max(1.0 if end is None else abs(end) for pair in pairs for end in pair)
        what = (
            f"Differences of up to {min(1.0, most):.2f} are not excluded, so which of these is "
            "best is open; while it is, try the simpler way first."
        )
    elif worse:
        what = "On tasks like these, let the channels take turns."
    return [f"**What to do.** {told} {what}", ""]


def _difference(result: Result, arms: tuple[str, ...]) -> SeedEstimate | None:
    for found in result.differences:
        if found.minus in arms and found.metric == "average_accuracy":
            return None if isinstance(found.estimate, str) else found.estimate
    return None


def _answer(estimate: SeedEstimate) -> str:
    if estimate.sd is None:
        return "not told apart from"
    if estimate.low is not None and estimate.low > 0:
        return "better than"
    if estimate.high is not None and estimate.high < 0:
        return "worse than"
    return "not told apart from"


def _only_guesses(result: Result, words: str) -> bool:
    """Whether a way that trains ends no higher than guessing, as far as its interval says."""
    chance = average_guess(result.records)
    if chance is None or words in BOUNDS:
        return False
    most = max(score for score in chance if score is not None)
    scores = (a.metrics["average_accuracy"] for a in result.arms if a.arm in OPPONENTS[words])
    lows = [score.low for score in scores if not isinstance(score, str) and score.low is not None]
    return any(low <= most for low in lows)


def _cell(result: Result, words: str, seeds: int) -> Text:
    """Two channels minus one way, with its own number of seeds where that is not the row's."""
    estimate = _difference(result, OPPONENTS[words])
    if estimate is None:
        return Text("-")
    low, high = _short(estimate.low), _short(estimate.high)
    num = len(estimate.per_seed)
    alone = ", one seed" if num == 1 else f", {num} seeds" * (num != seeds)
    return Text(
        f"{estimate.mean:+.2f} [{low}, {high}]{alone}{' (g)' * _only_guesses(result, words)}",
        "plain" if _answer(estimate) == "not told apart from" else "strong",
    )


def _short(end: float | None) -> str:
    return "?" if end is None else f"{end:+z.2f}"


def _listed(words: list[str], joint: str = "and") -> str:
    *first, last = words
    return f"{', '.join(first)} {joint} {last}" if first else last
