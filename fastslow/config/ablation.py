"""What only an ablation file has: one experiment in several arms over several seeds."""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveFloat

from fastslow.config.models import NAME, TaskName
from fastslow.core.errors import nearest
from fastslow.core.keys import OURS, Model, RuledModel, key

ARM_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,23}")
"""Names of arms and orders; they become part of a run's name."""
GIVEN = {
    "name": "a run is named after its arm, seed and order. Leave it out.",
    "seed": "every arm runs under each of `seeds`. Name seeds there.",
}
"""Keys of a run that the ablation itself gives, with what to do instead."""
ONE_FOLDER = "all runs of an ablation lie in one folder. Set it in `common`, or as an override."
"""Why an arm has no `runs_dir`."""


class ReferencesConfig(Model):
    """Arms that others are held against where a metric needs a reference run.

    A reference counts for arms of its own method alone, whose keys differ from its in `stages`; of
    a joint one the budgets of a cycle too, since its stages are other ones. Others have no value.
    """

    joint: str | None = key(None, "name", "none")
    """The arm trained on all tasks together: `intransigence` with `ref=joint`."""
    isolated: dict[TaskName, str | tuple[str, ...]] = key({}, "names", "none")
    """By task, the arm trained on that task alone, or one for each method: `fwt_isolated`, and
    `intransigence` with `ref=isolated` where there is no joint one."""

    def arms_alone(self) -> dict[TaskName, tuple[str, ...]]:
        """`isolated` with a list of arms for every task."""
        items = self.isolated.items()
        return {task: (arms,) if isinstance(arms, str) else arms for task, arms in items}


class ClaimsConfig(Model):
    """The two arms that the claims of Fast-Slow Training are about."""

    fast_slow: str = key(..., "name", "required", min_length=1)
    """The arm with both channels interleaved."""
    slow_only: str = key(..., "name", "required", min_length=1)
    """The arm with the slow channel alone, at the same budget."""
    frozen_text: str | None = key(None, "name", "none")
    """An arm whose weights learn under one frozen prompt: the claims are put to the test against it
    too, since the slow channel alone may never see a reward."""


class SearchConfig(Model):
    """A search for the value of one key, for each arm on its own, before the arms are run."""

    path: str = key("slow.lr", "key path", "the key that rankings of methods hang on most")
    """The key that is searched; its values are numbers."""
    values: tuple[PositiveFloat, ...] = key(..., "numbers", "required", min_length=2)
    """What is tried, at the arm's own budget. The one with the highest average accuracy on
    validation is the arm's; of equals the first."""
    arms: tuple[str, ...] = key((), "names", "every arm that has the key")
    """Arms that are tuned; the others keep what they have."""
    seed: NonNegativeInt = key(1000, "seed", OURS)
    """`seed` of the trials; none of `seeds`."""


class AblationConfig(RuledModel):
    """An experiment run in several arms over several seeds."""

    name: str = key(..., "name", "required", pattern=NAME)
    """Name of the ablation: its folder in `runs_dir` of the base, and its MLflow experiment."""
    base: str = key(..., "path", "required", min_length=1)
    """The experiment that every arm starts from, relative to the file that says so."""
    common: dict[str, Any] = key({}, "keys of a run", "none")
    """Laid over the base for every arm."""
    arms: dict[str, dict[str, Any]] = key(..., "keys of a run", "required", min_length=1)
    """By name, what the arm lays over base, `common` and overrides; `{}` changes nothing. It gives
    no `name`, `seed` or `runs_dir`."""
    seeds: tuple[NonNegativeInt, ...] = key((0, 1, 2), "seeds", OURS, min_length=1)
    """`seed` of the runs of every arm; arms are compared under the same seed."""
    orders: dict[str, tuple[TaskName, ...]] = key({}, "task names", "the base's order alone")
    """By name, orders of the base's stages; every arm runs in each. Arms with `stages` of their own
    run in that one order only."""
    search: SearchConfig | None = key(None, "section", "off: arms keep the values they have")
    """A search that tunes the arms on validation before they are run. An arm's value wins over
    what the arm itself says."""
    references: ReferencesConfig = Field(default_factory=ReferencesConfig)
    """Arms that serve as reference runs."""
    claims: ClaimsConfig | None = key(None, "section", "none are put to the test")
    """The arms on which the claims are put to the test."""

    def broken_rules(self) -> Iterator[tuple[str, str]]:
        """Yield (key path, message) for every rule between keys that does not hold."""
        for section, names in (("arms", self.arms), ("orders", self.orders)):
            for name in names:
                if not ARM_NAME.fullmatch(name):
                    yield (
                        f"{section}.{name}",
                        f"not a usable name, got {name!r}. Expected lower-case letters, digits and "
                        "-, a letter or digit first, at most 24.",
                    )
        if len(set(self.seeds)) < len(self.seeds):
            yield "seeds", f"a seed is named twice, got {list(self.seeds)}. Name each once."
        arms = {f"arms.{name}": keys for name, keys in self.arms.items()}
        for section, keys in {"common": self.common, **arms}.items():
            refused = GIVEN if section == "common" else {**GIVEN, "runs_dir": ONE_FOLDER}
            for name in filter(keys.__contains__, refused):
                yield f"{section}.{name}", f"not of an ablation's runs: {refused[name]}"
        if self.search is not None and self.search.seed in self.seeds:
            yield (
                "search.seed",
                f"a seed of the arms, got {self.search.seed}. Tune under another one than you "
                "compare under.",
            )
        yield from self._broken_names()

    def _broken_names(self) -> Iterator[tuple[str, str]]:
        """Arms that are named elsewhere in the file must exist, and rivals differ."""
        rivals: dict[str, str | None] = {}
        named: dict[str, str | None] = {"references.joint": self.references.joint}
        for task, arms in self.references.arms_alone().items():
            named |= {f"references.isolated.{task}": arm for arm in arms if arm not in self.arms}
        if self.claims is not None:
            rivals = self.claims.model_dump()
            named |= {f"claims.{role}": arm for role, arm in rivals.items()}
        tuned = self.search.arms if self.search is not None else ()
        named |= {f"search.arms.{index}": arm for index, arm in enumerate(tuned)}
        for path, arm in named.items():
            if arm is not None and arm not in self.arms:
                yield path, f"no such arm, got {arm!r}.{nearest(arm, self.arms)}"
        for role in ("slow_only", "frozen_text"):
            if rivals and rivals[role] == rivals["fast_slow"]:
                yield (
                    f"claims.{role}",
                    f"the same arm as claims.fast_slow ({rivals[role]!r}). An arm cannot be "
                    "compared with itself; name another.",
                )
