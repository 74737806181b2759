"""The measures that come with the package, and how a run names one."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Discriminator

from fastslow.core.plugins import CustomUse, chosen
from fastslow.measure.base import MeasureConfig, MeasureDefinition
from fastslow.measure.model.adherence import AdherenceConfig, adherence
from fastslow.measure.model.bridge import BridgeConfig, bridge
from fastslow.measure.model.concentration import ConcentrationConfig, concentration
from fastslow.measure.model.keep_curve import KeepCurveConfig, keep_curve
from fastslow.measure.model.perturbation import PerturbationConfig, perturbation
from fastslow.measure.model.reference_spread import ReferenceSpreadConfig, reference_spread

MeasureUse = Annotated[
    ConcentrationConfig
    | KeepCurveConfig
    | BridgeConfig
    | AdherenceConfig
    | ReferenceSpreadConfig
    | PerturbationConfig
    | CustomUse,
    Discriminator("kind"),
]
"""One measure of a run: a shipped one by its kind, or one of the user's own."""
SHIPPED_MEASURES: Mapping[str, MeasureDefinition] = {
    definition.name: definition
    for definition in (
        *(concentration, keep_curve, bridge, adherence),
        *(reference_spread, perturbation),
    )
}
"""Those of `MeasureUse`, by their kind."""


def measure_of(use: MeasureUse) -> tuple[MeasureDefinition, MeasureConfig]:
    """A measure that a run lists: what declares it, and its parameters; see `chosen`."""
    definition, params = chosen(MeasureDefinition, SHIPPED_MEASURES, use)
    assert isinstance(params, MeasureConfig)
    return definition, params
