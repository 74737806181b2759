"""Settings of groups of rollouts: which count, and what is done about those that teach nothing.

Light: a configuration is checked without torch.
"""

from itertools import pairwise
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import Field, PositiveFloat, PositiveInt, Tag, field_validator
from pydantic_core import PydanticCustomError

from fastslow.core.keys import FST, OURS, Model, Rate, key, kind_among
from fastslow.policy.signals import ActingSignal

Band: TypeAlias = Literal["unsolved", "hard", "medium", "easy", "solved"]
BANDS: tuple[Band, ...] = get_args(Band)
"""Of problems, from the hardest to the easiest."""


class DifficultyConfig(Model):
    """Which groups the slow channel learns from, by how hard their problems are, and when it warns.

    Either by measured pass rate or by a signal.
    """

    signal: ActingSignal | None = key(None, "section", "null: the running pass rate")
    """A signal whose values give the bands in place of the pass rate: their fifths over the
    problems of the stage, the hardest fifth being `unsolved`. Read once per cycle, nothing
    drawn."""
    newest_weight: PositiveFloat = key(0.5, "weight", OURS, le=1)
    """Weight of the newest group in a problem's running pass rate."""
    success_score: PositiveFloat = key(0.5, "score", OURS, le=1)
    """Rewards from here on count as a success."""
    edges: tuple[Rate, Rate, Rate, Rate] = key(
        (0.05, 0.25, 0.75, 0.95), "pass rate", "ours; arXiv 2605.28388 gives none"
    )
    """Lower edges of the bands hard, medium, easy and solved; below the first is unsolved."""
    train_bands: tuple[Band, ...] = key(BANDS, "names", "all, as in " + FST, min_length=1)
    """Groups of problems in other bands are dropped from the gradient, and counted."""
    lucky_cap: PositiveFloat | None = key(
        2.65, "advantage", "root of 7: one success of 8 rewards, divided by their deviation"
    )
    """Largest advantage in a group with exactly one success; null takes the cap away. TRL's
    deviation gives (G - 1) / root of G, which passes the default from G = 10 on."""
    collapse_frac: PositiveFloat = key(0.5, "share", OURS, lt=1)
    """Alarm when completions are shorter than this share of their running mean length."""
    repetition_frac: PositiveFloat = key(0.5, "share", OURS, lt=1)
    """Alarm when more than this share of a completion's 4-grams repeat earlier ones."""

    @field_validator("edges")
    @classmethod
    def _edges_rise(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        _rising(edges)
        return edges


def _rising(values: tuple[float, ...]) -> None:
    """Make sure that each is above the one before."""
    if any(low >= high for low, high in pairwise(values)):
        text = ", ".join(map(str, values))
        raise PydanticCustomError("rising", "{values} do not rise", {"values": text})


class GuidanceConfig(Model):
    """Which groups are guided."""

    signal: ActingSignal | None = key(None, "section", "null: unsolved groups")
    """A signal by which groups are guided: those of problems in the hardest fifth of its values in
    the stage, solved or not. Null guides groups whose rewards are equal and below
    slow.difficulty.success_score."""


class AnswerGuidance(GuidanceConfig):
    """Unsolved groups are taught by the start of the stage, which is shown the gold answer."""

    kind: Literal["answer"] = key("answer", "name", "compare HDPO, arXiv 2603.23871")
    """Which guidance."""
    strength: PositiveFloat = key(1.0, "weight", OURS)
    """Weight of the added loss, a mean in nats per token."""


class HintsGuidance(GuidanceConfig):
    """Unsolved groups are drawn again with the beginning of the gold answer in the question."""

    kind: Literal["hints"] = key("hints", "name", "GHPO, arXiv 2507.10628")
    """Which guidance."""
    rungs: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = key(
        (0.25, 0.5, 0.75), "share", "GHPO's code", min_length=1
    )
    """Rising shares of the gold answer's characters, above 0 and below 1, that are shown one draw
    after the other, until a group is solved in part. A draw takes G rollouts of each group."""
    min_tokens: PositiveInt = key(16, "tokens", OURS)
    """Problems with a shorter gold answer get no hint, which would give most of it away."""

    @field_validator("rungs")
    @classmethod
    def _rungs_rise(cls, rungs: tuple[float, ...]) -> tuple[float, ...]:
        _rising(rungs)
        return rungs


Guidance = Annotated[
    Annotated[AnswerGuidance, Tag("answer")] | Annotated[HintsGuidance, Tag("hints")],
    kind_among("answer", "hints"),
]
"""What is done about groups that policy gradient learns nothing from: one model per `kind`."""
