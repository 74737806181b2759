"""What the run's completions took: tokens, and the operations that follow from them."""

from collections.abc import Iterator
from typing import NamedTuple

from fastslow.policy.model_store import MODELS
from fastslow.records.events import CycleEvent, RunEvent
from fastslow.results.render import drawing
from fastslow.results.render.layout import Table, Text, row
from fastslow.results.report.reading import read_object
from fastslow.results.report.section import Records, Section

FORWARD, TRAINED = 2, 6
"""Operations per parameter and token of a pass, and of a pass with its gradient. Source: Kaplan et
al. 2020, arXiv 2001.08361."""


class Part(NamedTuple):
    """Completion tokens of one part of the run."""

    name: str
    tokens: int
    per_parameter: int
    """Operations per parameter and token: `FORWARD` or `TRAINED`."""


class Compute(Section):
    """Completion tokens by part, with the operations they took; no keys of its own.

    The fast channel's tokens and those of prompts are not recorded.
    """

    chapter = "cost"
    drawing_name = "compute"

    def __init__(self, records: Records) -> None:
        cycles = records.events_of(CycleEvent)
        slow = [
            (e.rollouts.get("slow", 0), e.metrics.get("slow/completion_tokens")) for e in cycles
        ]
        drawn = sum(round(count * mean) for count, mean in slow if mean is not None)
        scored = sum(line.sample.tokens for line in records.scores if not line.reused)
        is_trained = all(mean is not None for count, mean in slow if count)
        slow_parts = (
            Part("slow: drawn", drawn, FORWARD),
            Part("slow: trained on, at most", drawn, TRAINED),
        )
        parts = (*(slow_parts if is_trained else ()), Part("evaluation: drawn", scored, FORWARD))
        self.parts = [part for part in parts if part.tokens]
        """Of parts whose tokens are recorded."""
        ends = records.events_of(RunEvent)
        named = read_object(records.path / "config.json").get("model")
        model = MODELS.get(named.get("name", "")) if isinstance(named, dict) else None
        known = [end.parameters for end in ends if end.parameters is not None]
        self.parameters = known[-1] if known else model.num_parameters if model else None
        """Of the model with its adapter; of an older folder those of the base by its name."""
        trained = [end.trainable for end in ends if end.trainable is not None]
        self.trainable = trained[-1] if trained else None

    def tables(self) -> Iterator[Table]:
        size = self.parameters
        sizes = ["not recorded" if n is None else f"{n:,}" for n in (size, self.trainable)]
        yield Table(
            "Tokens and operations",
            ("completions of", "tokens", "operations", "formula"),
            tuple(
                row(
                    part.name,
                    f"{part.tokens:,}",
                    "-" if size is None else f"{part.per_parameter * size * part.tokens:.1e}",
                    Text(f"{part.per_parameter} * parameters * tokens", is_code=True),
                )
                for part in self.parts
            ),
            f"Parameters: {sizes[0]}; of them trained: {sizes[1]}. A pass takes 2 operations per "
            "parameter and token, one with its gradient 3 times as many (Kaplan et al. 2020, arXiv "
            "2001.08361); groups that teach nothing are not trained on. Tokens of prompts and of "
            "the fast channel are not recorded and come on top.",
        )

    def draw(self) -> drawing.Drawing | None:
        size = self.parameters
        if not self.parts or size is None:
            return None

        def paint(figure: drawing.Figure) -> None:
            axes = figure.add_subplot()
            for y, part in enumerate(self.parts):
                operations = part.per_parameter * size * part.tokens
                axes.barh(y, operations, 0.6, color=drawing.ACCENT, label="operations")
                axes.annotate(f" {part.tokens:,} tokens", (operations, y), va="center", fontsize=7)
            names = [part.name for part in self.parts]
            drawing.named_rows(axes, range(len(names)), names, "floating-point operations")
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.margins(x=0.35)

        return drawing.draw(
            self.drawing_name,
            "Operations that completions took",
            "2 per parameter and token to draw, 6 to train on. Tokens of prompts and of the fast "
            "channel are not recorded and come on top.",
            paint,
            height=0.9 + 0.3 * len(self.parts),
        )
