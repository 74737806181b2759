"""The remedies that come with the package, and how a run names one."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Discriminator

from fastslow.channels.slow.remedies.base import RemedyConfig, RemedyDefinition
from fastslow.channels.slow.remedies.consolidate import ConsolidateConfig, consolidate
from fastslow.channels.slow.remedies.core_rows import CoreRowsConfig, core_rows
from fastslow.channels.slow.remedies.ewc import EwcConfig, ewc
from fastslow.channels.slow.remedies.interpolate import InterpolateConfig, interpolate
from fastslow.channels.slow.remedies.kl_start import KlStartConfig, kl_start
from fastslow.channels.slow.remedies.l2 import L2Config, l2
from fastslow.channels.slow.remedies.merge import MergeConfig, merge
from fastslow.channels.slow.remedies.movement import MovementConfig, movement
from fastslow.channels.slow.remedies.orthogonal import OrthogonalConfig, orthogonal
from fastslow.channels.slow.remedies.renew import RenewConfig, renew
from fastslow.channels.slow.remedies.replay import ReplayConfig, replay
from fastslow.core.plugins import CustomUse, chosen

RemedyUse = Annotated[
    ReplayConfig
    | EwcConfig
    | L2Config
    | MovementConfig
    | KlStartConfig
    | OrthogonalConfig
    | CoreRowsConfig
    | RenewConfig
    | MergeConfig
    | InterpolateConfig
    | ConsolidateConfig
    | CustomUse,
    Discriminator("kind"),
]
"""One remedy of a run: a shipped one by its kind, or one of the user's own."""
SHIPPED_REMEDIES: Mapping[str, RemedyDefinition] = {
    definition.name: definition
    for definition in (
        *(replay, ewc, l2, movement, kl_start, orthogonal, core_rows),
        *(renew, merge, interpolate, consolidate),
    )
}
"""Those of `RemedyUse`, by their kind."""


def remedy_of(use: RemedyUse) -> tuple[RemedyDefinition, RemedyConfig]:
    """A remedy that a run lists: what declares it, and its parameters; see `chosen`."""
    definition, params = chosen(RemedyDefinition, SHIPPED_REMEDIES, use)
    assert isinstance(params, RemedyConfig)
    return definition, params
