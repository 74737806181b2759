"""What became of each task: learned, forgotten or kept, with paired differences."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from fastslow.core.types import Json, Metric
from fastslow.measure.scores.all_metrics import task_metrics
from fastslow.measure.scores.guessing import Guess
from fastslow.records.cells import Cell, Comparison
from fastslow.results.render import drawing
from fastslow.results.render.encoding import ends
from fastslow.results.render.layout import (
    Table,
    Text,
    difference_text,
    metric_text,
    row,
    score_or_dash,
)
from fastslow.results.report.gate_rules import judge_losses, side_by_side
from fastslow.results.report.section import Records, Section

TERMS = ("forgetting_chaudhry", "forgetting_relative", "min_acc", "retention_gain")
"""Terms of each task that have a column; report.json has all."""


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """What happened to one task."""

    task: str
    version: str | None
    """`definition@version`; None when it was never scored."""
    learned_row: int | None
    """The row after its stage; None for a held-out task."""
    base: Cell
    """Row 0."""
    learned: Cell | None
    """The row after its stage; None for a held-out task."""
    final: Cell
    """The last row."""
    gain: Comparison
    """Learned minus base."""
    change: Comparison
    """Final minus learned; negative = forgot."""
    net: Comparison
    """Final minus base."""
    terms: Mapping[str, Metric]
    """What the task gives to each mean over tasks; nothing for a held-out one."""
    noise_floor: Metric
    """How far repeated evaluations of the base lie apart."""
    guess: Guess | None
    """What guessing scores; None where it was not graded."""
    is_above_chance: bool | None
    """Whether the score after its stage is significantly above both guesses; None without them."""

    @property
    def is_learned(self) -> bool:
        """Whether its stage raised the score significantly, to above chance where that is known."""
        gain = self.gain.difference
        is_rise = self.learned_row is not None and gain is not None and gain.is_rise
        return is_rise and self.is_above_chance is not False


class Tasks(Section):
    """Every task of the matrix, in its order."""

    chapter = "scores"
    drawing_name = "tasks"

    def __init__(self, records: Records) -> None:
        versions = {row.sample.task: row.sample.version for row in records.scores}
        self.num_stages = len(records.card.stages)
        self.summaries = [
            _summary(records, task, versions.get(task)) for task in records.card.tasks
        ]

    def outcomes(self) -> list[tuple[TaskSummary, str, str]]:
        """Each task with its kind of outcome (a class of style.css) and the words for it."""
        return [(summary, *_outcome(summary, self.num_stages)) for summary in self.summaries]

    def to_json(self) -> Mapping[str, object]:
        return {"per_task": {summary.task: _task_json(summary) for summary in self.summaries}}

    def tables(self) -> Iterator[Table]:
        header = ("task", "n", "base", "learned", "final", "in a word")
        yield Table(
            "Tasks",
            (*header, "learned - base", "final - learned", "detectable drop"),
            tuple(_task_row(summary, words) for summary, _, words in self.outcomes()),
            "Learned: significantly above the base, and above chance where guessing was graded. "
            "Paired over the same examples, 95 % intervals, uncorrected for the number of tasks. ! "
            "significant at 5 % (exact McNemar for 0/1 scores, else the interval). Detectable "
            "drop: the smallest one that would be found with 80 % power.",
        )

    def short_table(self, *, with_scores: bool) -> Table:
        """A line a task for one screen; `with_scores` in place of the matrix."""
        scores = ("base", "learned", "end", "guess") if with_scores else ()
        return Table(
            "Learned, forgot, kept",
            ("task", "in a word", *scores, "since then", "kept", "detectable"),
            tuple(
                row(
                    summary.task,
                    words,
                    *(_scores(summary) if with_scores else ()),
                    *_kept(summary),
                )
                for summary, _, words in self.outcomes()
            ),
            "Since then: score at the end - right after its stage, paired, 95 % interval; ! "
            "significant. Kept: of the gain. Detectable: smallest drop found with 80 % power.",
        )

    def draw(self) -> drawing.Drawing:
        return drawing.draw(
            self.drawing_name,
            "What became of each task",
            "Score with the untouched base, right after the task's own stage, and at the end."
            + drawing.GREY_CAPTION * any(summary.guess for summary in self.summaries),
            self._paint,
            height=1.2 + 0.45 * len(self.summaries[: drawing.MAX_TASKS]),
        )

    def _paint(self, figure: drawing.Figure) -> None:
        axes, summaries = figure.add_subplot(), self.summaries[: drawing.MAX_TASKS]
        for number, summary in enumerate(summaries):
            points = (
                ("base", summary.base, -0.2, drawing.MUTED, "o", drawing.PAPER),
                ("learned", summary.learned, 0.0, drawing.ACCENT, "s", drawing.ACCENT),
                ("final", summary.final, 0.2, drawing.INK, "D", drawing.INK),
            )
            for name, cell, shift, colour, marker, fill in points:
                if cell is None or cell.score is None:
                    continue
                y, first = number + shift, None if number else name
                drawing.interval_line(axes, y, ends(cell.interval), colour)
                axes.plot(cell.score, y, marker, color=colour, mfc=fill, label=first, clip_on=False)
            if (guess := summary.guess) is not None:
                drawing.guess_marks(axes, guess, number, 0.4)
        names = [drawing.label(summary.task) for summary in summaries]
        drawing.named_rows(axes, range(len(names)), names, "score, with 95 % interval")
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        drawing.legend(axes)


def _summary(records: Records, task: str, version: str | None) -> TaskSummary:
    table, last = records.table, len(records.card.stages)
    learned, floor = table.learned_row(task), records.noise_floor
    guess = records.guesses.get(task)
    scores = {} if learned is None else table.deployed(learned, task)
    return TaskSummary(
        task=task,
        version=version,
        learned_row=learned,
        base=table.cell(0, task),
        learned=None if learned is None else table.cell(learned, task),
        final=table.cell(last, task),
        gain=table.compare(task, 0, learned),
        change=table.compare(task, learned, last),
        net=table.compare(task, 0, last),
        terms={} if learned is None else task_metrics(records.matrix, learned, noise_floor=floor),
        noise_floor=table.base_floor(task),
        guess=guess,
        is_above_chance=guess.is_below(scores, table.clusters.get(task))
        if guess and scores
        else None,
    )


def _task_json(summary: TaskSummary) -> dict[str, object]:
    return {
        "version": summary.version,
        "learned_row": summary.learned_row,
        "base": summary.base.score,
        "learned": summary.learned.score if summary.learned else None,
        "final": summary.final.score,
        "gain": _comparison_json(summary.gain),
        "change": _comparison_json(summary.change),
        "net": _comparison_json(summary.net),
        "terms": summary.terms,
        "noise_floor": summary.noise_floor,
        "above_chance": summary.is_above_chance,
        "is_learned": summary.is_learned,
    }


def _comparison_json(comparison: Comparison) -> Mapping[str, Json]:
    if comparison.difference is None:
        return {"value": None, "reason": comparison.reason}
    fields = asdict(comparison.difference)
    return {"value": fields.pop("mean"), **fields}


def _scores(summary: TaskSummary) -> list[str]:
    """Base, learned and final score, and the best guess."""
    cells, guess = (summary.base, summary.learned, summary.final), summary.guess
    scores = [cell.score if cell else None for cell in cells]
    return [score_or_dash(score) for score in (*scores, guess.best if guess else None)]


def _kept(summary: TaskSummary) -> tuple[Text | str, ...]:
    """The change since its stage, the share of its gain that is kept, the detectable drop."""
    change, share = summary.change.difference, summary.terms.get("retention_gain")
    since = "-" if change is None else replace(_comparison_text(summary.change), reason="")
    return since, score_or_dash(share.value if share else None), _detectable(summary)


def _task_row(summary: TaskSummary, words: str) -> tuple[Text, ...]:
    cells = (summary.base, summary.learned, summary.final)
    return row(
        summary.task,
        summary.final.n or summary.base.n,
        *(score_or_dash(cell.score if cell else None) for cell in cells),
        words,
        _comparison_text(summary.gain),
        _comparison_text(summary.change),
        _detectable(summary),
    )


def _comparison_text(comparison: Comparison) -> Text:
    change = comparison.difference
    if change is None:
        return Text("", "dim", reason=comparison.reason or "not measured")
    mark = "!" if change.is_drop or change.is_rise else ""
    return difference_text(change, mark, "strong" if change.is_drop else "plain")


def _outcome(summary: TaskSummary, last: int) -> tuple[str, str]:
    gain, change = summary.gain.difference, summary.change.difference
    if summary.learned_row is None:
        return "unknown", "held out"
    if gain is None:
        return "unknown", "not measured"
    if not summary.is_learned:
        return "not-learned", "○ not above chance" if gain.is_rise else "○ not learned"
    if summary.learned_row == last:
        return "last", "▲ learned last"
    if change is None:
        return "unknown", "▲ learned"
    if change.is_drop:
        return "forgot", "▼ forgot"
    if change.is_rise:
        return "improved", "▲ improved"
    return "kept", "● kept"


class Drops(Section):
    """What report and `fastslow gate`, by its default limits, conclude from the same losses."""

    chapter = ""

    def __init__(self, records: Records) -> None:
        summaries = records.section(Tasks).summaries
        changes = {s.task: change for s in summaries if (change := s.change.difference) is not None}
        floors = {summary.task: summary.noise_floor.value for summary in summaries}
        self.losses = judge_losses(("forgetting", "task_forgetting"), changes, floors)

    def tables(self) -> Iterator[Table]:
        yield side_by_side(self.losses)


class Forgetting(Section):
    """The terms of each trained task; their JSON is that of `Tasks`."""

    chapter = "forgetting"

    def __init__(self, records: Records) -> None:
        self.summaries = [s for s in records.section(Tasks).summaries if s.terms]

    def tables(self) -> Iterator[Table]:
        yield Table(
            "Forgetting by task",
            ("task", *TERMS, "detectable drop", "noise floor"),
            tuple(
                row(
                    summary.task,
                    *(metric_text(summary.terms[name]) for name in TERMS),
                    _detectable(summary),
                    metric_text(summary.noise_floor),
                )
                for summary in self.summaries
            ),
            "Each task's part of the mean of that name. Detectable drop: the smallest one that "
            "would be found with 80 % power. Noise floor: max - min over repeated evaluations of "
            "the base.",
        )


def _detectable(summary: TaskSummary) -> str:
    change = summary.change.difference
    return "-" if change is None else f"{change.smallest_detectable:.2f}"
