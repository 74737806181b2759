"""The machine and the versions that a run was made with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from fastslow.core.types import Json
from fastslow.results.render.layout import Table, Text
from fastslow.results.report.reading import read_object
from fastslow.results.report.section import Records, Section


@dataclass(frozen=True, slots=True)
class Environment(Section):
    """environment.json as it is."""

    environment: Mapping[str, Json]

    chapter = "origin"

    @classmethod
    def compute(cls, records: Records) -> Self:
        """Read the file."""
        return cls(read_object(records.path / "environment.json"))

    def to_json(self) -> Mapping[str, object]:
        """The whole file."""
        return {"environment": self.environment}

    def page_tables(self) -> Sequence[Table]:
        """One row per value."""
        rows = []
        for name, value in self.environment.items():
            inner = value.items() if isinstance(value, Mapping) else [("", value)]
            rows += [(Text(f"{name} {key}".strip()), Text(f"{leaf}")) for key, leaf in inner]
        return [Table("Environment", ("of the machine", "value"), tuple(rows))]
