"""How hard each problem is for the policy now, and which groups it should learn from."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType
from typing import Any, Protocol

from fastslow.channels.slow.group_settings import BANDS, Band, DifficultyConfig
from fastslow.core.text import NGRAM, ngram_repetition
from fastslow.core.types import TokenIds

EQUAL_REWARDS = 1e-6
"""Rewards in [0, 1] that differ by no more are equal: single-precision rounding."""
SKIPPED_FRAC = 0.5
"""Of the successes, those without reasoning from which on it counts as skipped. Source: ours."""
LEVEL_WEIGHT = 0.1
"""Weight of the newest batch in the running level of completion length."""


@dataclass(frozen=True)
class Group:
    """The rollouts of one problem, over all texts."""

    task: str
    """Name of the problem's task."""
    problem: str
    """`Example.id`."""
    rewards: tuple[float, ...]
    """In [0, 1]; at least one."""
    completions: tuple[TokenIds, ...]
    """In the order of `rewards`."""
    bare: tuple[bool, ...] = ()
    """Of each rollout, whether it answers without any reasoning; empty where a task has none."""

    @property
    def has_signal(self) -> bool:
        """Whether its rewards differ, so that its advantages are not all 0."""
        return max(self.rewards) - min(self.rewards) > EQUAL_REWARDS

    def is_unsolved(self, success_score: float) -> bool:
        """Whether policy gradient learns nothing from it, for want of a success.

        That is, its rewards are equal and below `success_score`. Where they differ below it, the
        better ones are learned from.
        """
        return not self.has_signal and max(self.rewards) < success_score


@dataclass(frozen=True)
class Verdict:
    """What the gate says of one batch."""

    trained: tuple[bool, ...]
    """For each group, whether it is learned from."""
    lucky: tuple[bool, ...]
    """For each group, whether exactly one of its rollouts succeeded."""
    metrics: Mapping[str, float]
    """Figures by name; those that are undefined for this batch are absent."""
    alarms: tuple[str, ...]
    """A sentence for each alarm that went off."""


class Bands(Protocol):
    """How hard problems are: says the band of each, and may learn from the groups it meets."""

    def observe(self, group: Group, rate: float) -> Band:
        """Take in the pass rate of a group, in [0, 1]; the band of its problem now."""

    def band(self, group: Group, rate: float) -> Band:
        """The band of a group drawn under a hint, of which nothing is remembered."""

    def to_json(self) -> dict[str, Any]:
        """What it learned from groups, as plain data that `load` takes back."""
        return {}

    def load(self, data: Mapping[str, Any]) -> None:
        """Continue from what `to_json` gave."""
        return


class PassRates(Bands):
    """Bands by the running pass rate of each problem, with edges that are set.

    The rate that decides contains the group itself, since most problems are met once.
    """

    def __init__(self, settings: DifficultyConfig) -> None:
        self.settings = settings
        self.rates: dict[str, dict[str, float]] = {}
        """Running pass rate in [0, 1], by task and problem."""

    def observe(self, group: Group, rate: float) -> Band:
        """Move the problem's rate towards that of the group; the first counts in full."""
        rates = self.rates.setdefault(group.task, {})
        old = rates.get(group.problem, rate)
        rates[group.problem] = old + self.settings.newest_weight * (rate - old)
        return self.band(group, rates[group.problem])

    def band(self, group: Group, rate: float) -> Band:
        """The band of the rate itself."""
        return band_of(rate, self.settings.edges)

    def to_json(self) -> dict[str, Any]:
        """See `Bands`."""
        return {"rates": self.rates}

    def load(self, data: Mapping[str, Any]) -> None:
        """See `Bands`."""
        self.rates = {task: dict(rates) for task, rates in data["rates"].items()}


class DifficultyGate:
    """Decides from the bands of problems and the rewards of groups which enter the gradient.

    A group is dropped if its rewards are equal, or if its problem's band is not trained on.

    A gate lives as long as a stage: other stages change the weights, and with them every rate.

    Source: arXiv 2605.28388 (problems far too hard harm: lucky successes on faulty ones get the
        largest advantages); the bands' edges and the alarms are ours.
    """

    def __init__(self, settings: DifficultyConfig, bands: Bands) -> None:
        self.settings = settings
        self.bands = bands
        self.length_level: float | None = None
        """Running mean length of completions, in tokens; None before the first batch."""

    def judge(
        self, groups: Sequence[Group], hinted: Mapping[int, Group] = MappingProxyType({})
    ) -> Verdict:
        """Take in all groups of one batch, at least one, and say which of them to learn from.

        `hinted` has by index the groups that were drawn again under a hint and take the place of
        the first draw in the loss. Whether they are learned from follows from their own rewards
        alone; the running rates, and the figures of problems and completions, know nothing of them.
        """
        bands = [self.bands.observe(group, self._pass_rate(group)) for group in groups]
        learned = list(zip(groups, bands, strict=True))
        for i, group in hinted.items():
            learned[i] = group, self.bands.band(group, self._pass_rate(group))
        trained = [g.has_signal and band in self.settings.train_bands for g, band in learned]
        lucky = [sum(self._successes(group)) == 1 for group, _ in learned]
        figures = {f"band_{band}_frac": bands.count(band) / len(bands) for band in BANDS}
        figures |= {
            "zero_variance_frac": fmean(not group.has_signal for group in groups),
            "effective_groups": float(sum(trained)),
            "lucky_groups": float(sum(lucky)),
        }
        alarms = self._watch([c for g in groups for c in g.completions], figures)
        alarms += self._watch_reasoning(groups, figures)
        figures["duplicate_frac"] = fmean(duplicate_frac(g.completions) for g in groups)
        return Verdict(tuple(trained), tuple(lucky), figures, alarms)

    def _successes(self, group: Group) -> list[bool]:
        return [reward >= self.settings.success_score for reward in group.rewards]

    def _pass_rate(self, group: Group) -> float:
        return fmean(self._successes(group))

    def _watch(self, completions: Sequence[TokenIds], figures: dict[str, float]) -> tuple[str, ...]:
        """Add the alarms to `figures` as 0 or 1, and say what set them off."""
        length = fmean(map(len, completions))
        level = length if self.length_level is None else self.length_level
        self.length_level = level + LEVEL_WEIGHT * (length - level)
        collapsed = length < self.settings.collapse_frac * level
        repeated = [rate for c in completions if (rate := ngram_repetition(c)) is not None]
        repetition = fmean(repeated) if repeated else None
        looping = repetition is not None and repetition > self.settings.repetition_frac
        figures |= {"alarm/length_collapse": float(collapsed), "alarm/repetition": float(looping)}
        if repetition is not None:
            figures["repetition_frac"] = repetition
        alarms = []
        if collapsed:
            alarms.append(
                f"length collapse: completions have {length:.1f} tokens on average, less than "
                f"slow.difficulty.collapse_frac = {self.settings.collapse_frac:g} of their running "
                f"level of {level:.1f}."
            )
        if looping:
            alarms.append(
                f"repetition: a share of {repetition:.2f} of the {NGRAM}-grams of a completion "
                "were in it before, more than "
                f"slow.difficulty.repetition_frac = {self.settings.repetition_frac:g}."
            )
        return tuple(alarms)

    def _watch_reasoning(
        self, groups: Sequence[Group], figures: dict[str, float]
    ) -> tuple[str, ...]:
        """The alarm of tasks whose completions reason before their answer; none without successes.

        Source: arXiv 2605.28388: successes without reasoning teach a policy to skip it.
        """
        bare = [
            is_bare
            for group in groups
            if group.bare
            for is_bare, success in zip(group.bare, self._successes(group), strict=True)
            if success
        ]
        if not bare:
            return ()
        figures["alarm/skipped_reasoning"] = float(fmean(bare) > SKIPPED_FRAC)
        if fmean(bare) <= SKIPPED_FRAC:
            return ()
        return (
            f"skipped reasoning: a share of {fmean(bare):.2f} of the successes says nothing before "
            f"the answer, more than {SKIPPED_FRAC:g}.",
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data that `load` takes back."""
        return self.bands.to_json() | {"length_level": self.length_level}

    def load(self, data: Mapping[str, Any]) -> None:
        """Continue from what `to_json` gave."""
        self.bands.load(data)
        self.length_level = data["length_level"]


def band_of(rate: float, edges: Sequence[float]) -> Band:
    """The band of a pass rate in [0, 1]; a rate on an edge belongs to the band above it."""
    return BANDS[sum(rate >= edge for edge in edges)]


def duplicate_frac(completions: Sequence[TokenIds]) -> float:
    """Share of a group's completions that equal another one of the group, in [0, 1].

    Says how much of the sampling budget was spent twice. No alarm hangs on it: with short answers
    from a small set, equal completions are right.
    """
    counts = Counter(completions)
    return sum(count for count in counts.values() if count > 1) / len(completions)
