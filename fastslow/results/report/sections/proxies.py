"""Proxies of plasticity, from the units of the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from fastslow.records.events import FiguresEvent
from fastslow.results.render.layout import Table
from fastslow.results.report.section import Records, Section
from fastslow.results.report.sections.measured import Measured, figures_table


@dataclass(frozen=True, slots=True)
class Proxies(Section):
    """The last measurement of each row; their JSON is that of `Measured`."""

    events: tuple[FiguresEvent, ...]

    chapter = "plasticity"

    @classmethod
    def compute(cls, records: Records) -> Self:
        """Take the measurements of this kind."""
        return cls(tuple(records.section(Measured).of_kind("proxies")))

    def tables(self) -> Sequence[Table]:
        """One column per row of the matrix."""
        inputs = dict.fromkeys(event.of for event in self.events)
        return [
            figures_table(
                "Proxies of plasticity",
                [f"row {event.row}" for event in self.events],
                self.events,
                f"On {'; '.join(inputs)}. Correlates of lost plasticity in small networks, not a "
                "proof: the probe is the measurement.",
            )
        ]
