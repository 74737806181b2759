"""How the arms of an ablation compare: paired differences, and score against what it takes."""

from collections.abc import Callable, Sequence
from typing import Any

from fastslow.measure.stats.over_seeds import SeedEstimate
from fastslow.results.ablation.figures import claim_figures
from fastslow.results.ablation.result import Result
from fastslow.results.ablation.statistics import ArmSummary
from fastslow.results.render.drawing import (
    MARKERS,
    MUTED,
    Axes,
    Drawing,
    Ends,
    Figure,
    Row,
    draw,
    grouped_height,
    grouped_rows,
    label,
    score_axis,
    series,
)

ARM_FIGURES = ("differences", "tradeoff")
"""Stems of the figures of `arm_figures`."""
FOREST = {"average_accuracy": "average accuracy", "bwt_gem": "backward transfer"}
"""Metrics whose differences are drawn; more of either is better."""


def figures_of(result: Result) -> tuple[Drawing, ...]:
    """Every figure of an ablation: what it says of its arms, then one for each claim."""
    return (*arm_figures(result), *claim_figures(result))


def arm_figures(result: Result) -> tuple[Drawing, ...]:
    """Paired differences as a forest plot, and score against forgetting and rollouts."""
    drawings = (_forest(result), _tradeoff(result))
    return tuple(drawing for drawing in drawings if drawing is not None)


def _forest(result: Result) -> Drawing | None:
    """The first arm of the differences minus each other one, with intervals; None without any."""
    rows = [
        Row(FOREST[d.metric], f"minus {label(d.minus)}", d.estimate.mean, _ends(d.estimate), look)
        for metric, look in zip(FOREST, map(series, range(len(FOREST))), strict=True)
        for d in result.differences
        if d.metric == metric and not isinstance(d.estimate, str)
    ]
    if not rows:
        return None
    first = result.differences[0].arm

    def paint(figure: Figure) -> None:
        grouped_rows(figure, rows, f"{label(first)} minus the other arm")

    return draw(
        ARM_FIGURES[0],
        f"{label(first)} against every other arm",
        "Mean paired differences over seeds and examples with 95 % intervals. To the right of zero "
        f"{label(first)} is better.",
        paint,
        height=grouped_height(rows),
    )


def _tradeoff(result: Result) -> Drawing | None:
    """A point for every arm on all tasks, in two panels; None with fewer than two arms."""
    trained = {task for run in result.records for task in run.stages}
    arms = [
        arm
        for arm in result.arms
        if set(arm.tasks) == trained and not isinstance(arm.metrics["average_accuracy"], str)
    ]
    if len(arms) < 2:
        return None

    def paint(figure: Figure) -> None:
        forgetting, rollouts = figure.subplots(1, 2, sharey=True)
        _panel(forgetting, arms, lambda arm: arm.metrics["bwt_gem"], "backward transfer")
        _panel(rollouts, arms, lambda arm: arm.rollouts["total"], "fast + slow rollouts")
        score_axis(forgetting, "average test score")
        names = rollouts.get_legend_handles_labels()  # an arm without transfer is not in the left
        figure.legend(*names, loc="outside upper left", ncols=4)

    return draw(
        ARM_FIGURES[1],
        "Score against forgetting and cost",
        "A point per arm: means over seeds, 95 % intervals of the score. Left: up and to the right "
        "is more score and less forgetting. Right: up and to the left is more score for less.",
        paint,
        height=3.2 + 0.17 * ((len(arms) + 3) // 4),
        width=6.4,
    )


def _panel(
    axes: Axes,
    arms: Sequence[ArmSummary],
    x_of: Callable[[ArmSummary], SeedEstimate | str | float],
    name: str,
) -> None:
    for number, arm in enumerate(arms):
        cost, score = x_of(arm), arm.metrics["average_accuracy"]
        assert not isinstance(score, str)  # by choice of the arms
        if isinstance(cost, str):
            continue
        x, look = cost if isinstance(cost, float | int) else cost.mean, _look(number)
        low, high = _ends(score)
        if low is not None and high is not None:
            axes.plot([x, x], [low, high], color=look["color"], lw=0.9)
        axes.plot(x, score.mean, ls="none", label=label(arm.arm), **look)
    if name == "backward transfer":
        axes.axvline(0, color=MUTED, lw=0.8)
    axes.set_xlabel(name)
    axes.grid(visible=True, axis="x")


def _look(number: int) -> dict[str, Any]:
    """Colour and marker of so many arms that the colours come round, with other markers."""
    return series(number) | {"marker": MARKERS[(number + number // len(MARKERS)) % len(MARKERS)]}


def _ends(estimate: SeedEstimate) -> Ends:
    return estimate.low, estimate.high
