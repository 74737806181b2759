"""What the run's completions took: tokens, and the operations that follow from them."""

from collections.abc import Iterator

from fastslow.policy.model_store import MODELS
from fastslow.records.events import CycleEvent, RunEvent
from fastslow.results.reading import read_object
from fastslow.results.render import drawing
from fastslow.results.render.layout import Table, Text, row
from fastslow.results.report.section import Records, Section

FORWARD, TRAINED = 2, 6
"""Operations per parameter and token of a pass, and of a pass with its gradient. Source: Kaplan et
al. 2020, arXiv 2001.08361."""
NOT_COUNTED = "Tokens of prompts and of the fast channel are not recorded and come on top."


class Compute(Section):
    """Completion tokens by part, with the operations they took; no keys of its own."""

    chapter = "cost"
    drawing_name = "compute"

    def __init__(self, records: Records) -> None:
        cycles = [e for e in records.events_of(CycleEvent) if e.rollouts.get("slow")]
        means = [event.metrics.get("slow/completion_tokens") for event in cycles]
        counts = [event.rollouts["slow"] for event in cycles]
        pairs = list(zip(counts, means, strict=True))
        slow = sum(round(count * mean) for count, mean in pairs if mean is not None)
        if None in means:  # an objective that does not count them
            slow = 0
        scored = sum(line.sample.tokens for line in records.scores if not line.reused)
        costs = (
            ("slow: drawn", slow, FORWARD),
            ("slow: trained on, at most", slow, TRAINED),
            ("evaluation: drawn", scored, FORWARD),
        )
        self.costs = [cost for cost in costs if cost[1]]
        """Name, tokens, and operations per parameter and token, where tokens are recorded."""
        ends = [e for e in records.events_of(RunEvent) if e.parameters is not None]
        model = read_object(records.path / "config.json").get("model")
        base = MODELS.get(model.get("name", "")) if isinstance(model, dict) else None
        self.parameters = ends[-1].parameters if ends else base.num_parameters if base else None
        """Of the model with its adapter; in an older folder of the base, by its name."""
        self.trainable = ends[-1].trainable if ends else None

    def tables(self) -> Iterator[Table]:
        size = self.parameters
        sizes = ["not recorded" if n is None else f"{n:,}" for n in (size, self.trainable)]
        rows = [
            row(
                name,
                f"{tokens:,}",
                "-" if size is None else f"{factor * size * tokens:.1e}",
                Text(f"{factor} * parameters * tokens", is_code=True),
            )
            for name, tokens, factor in self.costs
        ]
        yield Table(
            "Tokens and operations",
            ("completions of", "tokens", "operations", "formula"),
            tuple(rows),
            f"Parameters: {sizes[0]}; of them trained: {sizes[1]}. A pass takes 2 operations per "
            "parameter and token, one with its gradient 3 times as many (Kaplan et al. 2020, arXiv "
            f"2001.08361); groups that teach nothing are not trained on. {NOT_COUNTED}",
        )

    def draw(self) -> drawing.Drawing | None:
        size, costs = self.parameters, self.costs
        if not costs or size is None:
            return None

        def paint(figure: drawing.Figure) -> None:
            axes = figure.add_subplot()
            for y, (_, tokens, factor) in enumerate(costs):
                operations = factor * size * tokens
                axes.barh(y, operations, 0.6, color=drawing.ACCENT, label="operations")
                axes.annotate(f" {tokens:,} tokens", (operations, y), va="center", fontsize=7)
            names = [name for name, *_ in costs]
            drawing.named_rows(axes, range(len(names)), names, "floating-point operations")
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.margins(x=0.35)

        return drawing.draw(
            self.drawing_name,
            "Operations that completions took",
            f"2 per parameter and token to draw, 6 to train on. {NOT_COUNTED}",
            paint,
            height=0.9 + 0.3 * len(costs),
        )
