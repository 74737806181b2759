"""Signals that decide something in a run: where they stand, and rules of what they decide."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fastslow.core.keys import Model
from fastslow.policy.signals import ActingSignal, OwnSignalToActOn, ShippedSignalToActOn

if TYPE_CHECKING:
    from fastslow.config.models import RunConfig


def acting_signals(config: "RunConfig") -> dict[str, ActingSignal]:
    """Every signal by which a run decides something, by its key path."""
    return {path.removeprefix("."): use for path, use in _acting("", config)}


def _acting(path: str, value: object) -> Iterator[tuple[str, ActingSignal]]:
    if isinstance(value, ShippedSignalToActOn | OwnSignalToActOn):
        yield path, value
    elif isinstance(value, Model):
        for name, inner in value:
            yield from _acting(f"{path}.{name}", inner)
    elif isinstance(value, tuple):
        for index, inner in enumerate(value):
            yield from _acting(f"{path}.{index}", inner)


def broken_route(config: "RunConfig") -> Iterator[tuple[str, str]]:
    """Rules of `evaluation.route`: two arms that differ, and a signal that needs no answer."""
    if (route := config.evaluation.route) is None:
        return
    arms = {route.cheap, route.strong}
    off = {"fast": config.fast is None, "slow": config.slow is None}
    same = "one arm"
    if arms == {"seed", "live"} and off["fast"]:
        same = "alike: they differ in the prompt, and without a fast channel there is one"
    elif arms == {"live", "base"} and off["slow"]:
        same = "alike: they differ in the weights, and without a slow channel there are one's"
    if len(arms) < 2 or same != "one arm":
        yield (
            "evaluation.route.strong",
            f"evaluation.route.cheap ({route.cheap}) and evaluation.route.strong ({route.strong}) "
            f"are {same}. Name two that differ. Known: seed, live, base.",
        )
    if route.signal.kind == "gold_logprob":
        yield (
            "evaluation.route.signal.kind",
            "evaluation.route.signal.kind (gold_logprob) reads the gold answer, which no question "
            "comes with where a router has to choose. Name another signal.",
        )
