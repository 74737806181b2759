"""How far the weights moved from the base, and whether that goes with forgetting."""

from collections.abc import Iterator, Mapping, Sequence

from fastslow.core.types import Metric
from fastslow.measure.model.divergences import forgetting_on_kl
from fastslow.measure.scores.matrix import ScoreMatrix
from fastslow.records.events import NEUTRAL, DriftEvent
from fastslow.results.render import drawing
from fastslow.results.render.layout import Table, Text, figure_row, metric_text, row
from fastslow.results.report.section import Records, Section

ENTROPY = "Nats per generated token at temperature 1."
NOTES = {
    "kl_fst": "KL(tuned || base) in nats per generated token on the task's test inputs, sampled "
    "from the tuned policy, both given the same prompt.",
    "kl_razor": "KL(base || tuned) in nats per generated token on the task's test inputs, sampled "
    "from the base, both given the same prompt.",
    "kl_system": "KL(tuned, deployed prompt || base, seed prompt), estimator k3 at tokens the "
    "former draws: what weights and prompt did together. Not comparable with the exact "
    "divergences.",
    "entropy": f"Of the tuned policy, at tokens it draws. {ENTROPY}",
    "entropy_base": f"Of the base, at tokens it draws. {ENTROPY}",
    "neutral_ce_delta": "Cross-entropy of fixed prose of no task, adapter on minus off, in nats "
    "per token; positive = general language got worse. Brackets: standard error over passages.",
}
HIDDEN = ("neutral_ce_tuned", "neutral_ce_base")
"""Halves of a difference that has a table; report.json has them."""
PROMPTS = {"with_text": "deployed prompt", "without_text": "seed prompt"}


class Drift(Section):
    """Divergences, entropies and cross-entropies, and the fit of forgetting on KL."""

    chapter = "drift"
    drawing_name = "kl"

    def __init__(self, records: Records) -> None:
        order = {task: position for position, task in enumerate(records.card.tasks)}

        def place(event: DriftEvent) -> tuple[str, int, str, int, str]:
            return event.name, event.row, event.text, order.get(event.task, len(order)), event.task

        last = {(e.name, e.row, e.task, e.text): e for e in records.events_of(DriftEvent)}
        self.matrix, self.events = records.matrix, sorted(last.values(), key=place)
        self.fit = _fit(records.matrix, divergences(self.events, "kl_razor"))
        """Parabola of forgetting on KL over the later stages."""

    def to_json(self) -> Mapping[str, object]:
        return {"drift": self.events, "kl_fit": self.fit}

    def tables(self) -> Iterator[Table]:
        for name in dict.fromkeys(event.name for event in self.events):
            if name not in HIDDEN:
                yield self._table(name)
        if self.events:
            yield Table(
                "Forgetting on KL",
                ("figure", "value", "formula"),
                tuple(figure_row(m.name, m.formula, metric_text(m, 3)) for m in self.fit.values()),
                "Points: per later stage and earlier task, kl_razor on the stage's own inputs and "
                "what the earlier task has lost since it was learned. A description of these "
                "points, not a law.",
            )

    def _table(self, name: str) -> Table:
        events = [event for event in self.events if event.name == name]
        by_place = {(e.row, e.text, e.task): e for e in events}
        columns = [c for c in (*self.matrix.tasks, NEUTRAL) if any(e.task == c for e in events)]
        lines = dict.fromkeys((event.row, event.text) for event in events)
        has_prompt = columns != [NEUTRAL]
        rows = [
            row(
                i,
                *((PROMPTS[text],) if has_prompt else ()),
                *(_cell(by_place.get((i, text, column))) for column in columns),
            )
            for i, text in lines
        ]
        header = ("after stage", *(("prompt",) if has_prompt else ()), *columns)
        return Table(f"Drift from the base: {name}", header, tuple(rows), NOTES.get(name, ""))

    def draw(self) -> drawing.Drawing | None:
        kl, lines = divergences(self.events, "kl_fst"), {}
        for number, task in enumerate(self.matrix.tasks[: drawing.MAX_TASKS]):
            points = [
                (value, score, row)
                for row, scores in enumerate(self.matrix.rows)
                if (value := kl.get((row, task))) is not None
                and (score := scores[number]) is not None
            ]
            if points:
                lines[task] = points
        if not lines:
            return None

        is_long = self.matrix.num_stages > drawing.MAX_STAGES

        def paint(figure: drawing.Figure) -> None:
            axes = figure.add_subplot()
            for task, points in lines.items():
                x, y, _ = zip(*points, strict=True)
                look = drawing.series(self.matrix.tasks.index(task)) | {"lw": 0.9}
                if is_long:
                    look |= {"marker": ""}
                axes.plot(x, y, label=drawing.label(task), **look)
                look = {"textcoords": "offset points", "fontsize": 7, "color": drawing.MUTED}
                for value, score, stage in points[-1:] if is_long else points:
                    axes.annotate(str(stage), (value, score), (4, 3), **look)
            axes.set_xlabel("KL(tuned ‖ base), nats per generated token")
            axes.set_xlim(left=min(0.0, *(p[0] for points in lines.values() for p in points)))
            axes.grid(visible=True, axis="x")
            drawing.score_axis(axes, "test score")
            drawing.legend(axes)

        return drawing.draw(
            self.drawing_name,
            "KL against score",
            "Divergence from the base (kl_fst) on each task's test inputs under the deployed "
            "prompt, and the task's score; the small numbers are the stages. Up and to the left is "
            "more score for less change.",
            paint,
            height=2.7 + 0.18 * ((len(lines) + 2) // 3),
        )


def divergences(events: Sequence[DriftEvent], name: str) -> dict[tuple[int, str], float]:
    """A divergence under the deployed prompt, by row and task."""
    return {
        (e.row, e.task): e.value
        for e in events
        if e.name == name and e.text == "with_text" and e.value is not None
    }


def _fit(matrix: ScoreMatrix, razor: Mapping[tuple[int, str], float]) -> dict[str, Metric]:
    """One point per later stage and earlier task: its loss, at the stage's `kl_razor`."""
    distances, losses = [], []
    for i in range(2, matrix.num_stages + 1):
        kl = razor.get((i, matrix.stages[i - 1]))
        for j in range(1, i):
            column = matrix.tasks.index(matrix.stages[j - 1])
            learned, now = matrix.rows[j][column], matrix.rows[i][column]
            if kl is not None and learned is not None and now is not None:
                distances.append(kl)
                losses.append(learned - now)
    return forgetting_on_kl(distances, losses)


def _cell(event: DriftEvent | None) -> Text:
    if event is None:
        return Text("-", "dim")
    if event.value is None:
        return Text(event.reason or "not measured", "dim")
    error = f" ({event.se:.4f})" if event.se is not None and event.task == NEUTRAL else ""
    return Text(f"{event.value:.4f}{error}")
