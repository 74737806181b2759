"""One figure per claim, drawn from an ablation's records."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from fastslow.measure.scores.curves import LearningCurve
from fastslow.results.ablation.claim_measures import kl_points, pooled_probe
from fastslow.results.ablation.claims import Claim
from fastslow.results.ablation.records import Point, RunRecord
from fastslow.results.ablation.result import Result
from fastslow.results.ablation.statistics import final_scores, learned_scores
from fastslow.results.render.drawing import Drawing, draw, label, legend, score_axis, series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = tuple(
    f"claim-{name}"
    for name in (
        "sample-efficiency",
        "higher-score",
        "lower-kl",
        "plasticity",
        "continued-acquisition",
    )
)
"""Stems of the figures, in the order of the claims."""
FROZEN_TEXT_FIGURES = ("frozen-text-sample-efficiency", "frozen-text-lower-kl")
"""The same against the arm under one frozen text, where they show other runs."""


def claim_figures(result: Result) -> tuple[Drawing, ...]:
    """A figure for every claim that has something to show, in the order of the claims.

    Args:
        result: An ablation; without claims there are no figures.
    """
    named = result.config.claims
    if named is None:
        return ()
    made = _drawn(result, result.claims, (named.fast_slow, named.slow_only))
    if named.frozen_text is not None:
        again = _drawn(result, result.frozen_text_claims, (named.fast_slow, named.frozen_text))
        renamed = [
            replace(
                one,
                name=one.name.replace("claim", "frozen-text", 1),
                title=f"Against {label(named.frozen_text)}: {one.title}",
            )
            for one in again
        ]
        made += [drawing for drawing in renamed if drawing.name in FROZEN_TEXT_FIGURES]
    return tuple(made)


def _drawn(result: Result, claims: Sequence[Claim], arms: tuple[str, str]) -> list[Drawing]:
    """A figure for every one of `claims`, which compare these two arms."""
    sides = tuple([run for run in result.records if run.arm == arm] for arm in arms)
    makers: dict[str, Callable[[Claim], Drawing | None]] = {
        "sample_efficiency": lambda claim: _efficiency(claim, sides),
        "higher_score": lambda claim: _scores(claim, result),
        "lower_kl": lambda claim: _kl(claim, sides),
        "plasticity": lambda claim: _plasticity(claim, sides),
        "continued_acquisition": lambda claim: _acquisition(claim, sides),
    }
    made = [makers[claim.name](claim) for claim in claims]
    return [drawing for drawing in made if drawing is not None]


def _draw(
    claim: Claim, what: str, paint: "Callable[[Figure], None]", height: float = 2.9
) -> Drawing:
    name = f"claim-{claim.name.replace('_', '-')}"
    return draw(name, f"{claim.statement} {claim.answer}", what, paint, height=height)


def _efficiency(claim: Claim, sides: Sequence[Sequence[RunRecord]]) -> Drawing | None:
    """Score against slow rollouts, a panel per task, a line per seed."""
    tasks = list(dict.fromkeys(t for runs in sides for run in runs for t in run.matrix.stages))
    if not all(sides):
        return None

    def paint(figure: "Figure") -> None:
        panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
        for panel, task in zip(panels, tasks, strict=True):
            for number, runs in enumerate(sides):
                for at, run in enumerate(_with(runs, task)):
                    curve = run.curves[run.matrix.stages.index(task)]
                    if not curve:
                        continue
                    x, y = [point.slow for point in curve], _means(curve)
                    named = label(run.arm) if at == 0 and task == tasks[0] else None
                    panel.plot(x, y, lw=1.1, alpha=0.8, label=named, **series(number))
            panel.set_title(label(task), fontsize=7.5)
            score_axis(panel, "test score" if task == tasks[0] else "")
        figure.supxlabel("slow rollouts in the task's stage", fontsize=8.5)
        figure.legend(loc="outside upper left", ncols=2)

    return _draw(
        claim,
        "Score of each task on the examples of its learning curve against the slow channel's "
        "rollouts, a line per seed. The fast channel's rollouts come on top.",
        paint,
    )


def _scores(claim: Claim, result: Result) -> Drawing | None:
    """Average score at the end, by arm, with its interval and every seed."""
    trained = {task for run in result.records for task in run.matrix.stages}
    arms = [a for a in result.arms if a.runs and set(a.tasks) == trained]
    if not arms:
        return None

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        for row, arm in enumerate(arms):
            runs = [run for run in result.records if run.arm == arm.arm]
            for run in runs:
                axes.plot(_average(run), row, "o", ms=3, alpha=0.5, color=series(5)["color"])
            found = arm.metrics["average_accuracy"]
            if isinstance(found, str):
                continue
            colour = series(_number(arm.arm, result))["color"]
            if found.low is not None and found.high is not None:
                axes.plot([max(0, found.low), min(1, found.high)], [row, row], color=colour)
            axes.plot(found.mean, row, "D", color=colour)
        axes.set_yticks(range(len(arms)), [label(arm.arm) for arm in arms])
        axes.set_ylim(len(arms) - 0.5, -0.5)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel("average test score after the last stage")
        axes.grid(visible=True, axis="x")

    return _draw(
        claim,
        "Diamonds: means over seeds with 95 % intervals over seeds and examples. Dots: seeds.",
        paint,
        height=1.2 + 0.26 * len(arms),
    )


def _kl(claim: Claim, sides: Sequence[Sequence[RunRecord]]) -> Drawing | None:
    """Score against KL to the base, a point per task, row and seed."""
    found = [
        [
            point
            for run in runs
            for task in dict.fromkeys(run.matrix.stages)
            for point in kl_points(run, task)
        ]
        for runs in sides
    ]
    if not all(found):
        return None

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        for number, (runs, points) in enumerate(zip(sides, found, strict=True)):
            scores, divergences = zip(*points, strict=True)
            look = series(number) | {"ls": "none", "alpha": 0.7}
            axes.plot(divergences, scores, label=label(runs[0].arm), **look)
        axes.set_xlabel("KL(tuned ‖ base), nats per generated token")
        axes.set_xlim(left=min(0.0, *(kl for points in found for _, kl in points)))
        axes.grid(visible=True, axis="x")
        score_axis(axes, "test score")
        legend(axes)

    return _draw(
        claim,
        "A point per seed, task and row from the task's own stage on. Up and to the left is more "
        "score for less change.",
        paint,
    )


def _plasticity(claim: Claim, sides: Sequence[Sequence[RunRecord]]) -> Drawing | None:
    """Mean curves on the probe's task from the final weights and from the base."""
    probes = [pooled_probe(runs) for runs in sides]
    if not any(probes):
        return None

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        for number, (runs, probe) in enumerate(zip(sides, probes, strict=True)):
            if probe is not None:
                at, look = probe.base[0].at, series(number)
                axes.plot(at, _mean(probe.tuned), label=f"after {label(runs[0].arm)}", **look)
        probe = next(probe for probe in probes if probe is not None)
        base = series(5) | {"ls": "--"}
        axes.plot(probe.base[0].at, _mean(probe.base), label="from the base", **base)
        axes.set_xlabel("updates on the probe's task")
        score_axis(axes, "validation score")
        legend(axes)

    return _draw(claim, "Means over seeds on a task that no stage visits.", paint)


def _acquisition(claim: Claim, sides: Sequence[Sequence[RunRecord]]) -> Drawing | None:
    """Score right after a task's own stage and before the run, by the stage's position."""
    if not all(sides):
        return None

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        for number, runs in enumerate(sides):
            width = max(run.matrix.num_stages for run in runs)
            for at, run in enumerate(runs):
                learned = [fmean(values.values()) for values in learned_scores(run).values()]
                named = label(run.arm) if at == 0 else None
                positions = range(1, len(learned) + 1)
                axes.plot(positions, learned, lw=0.9, alpha=0.8, label=named, **series(number))
            axes.set_xticks(range(1, width + 1))
        axes.set_xlabel("position of the task in the sequence")
        score_axis(axes, "score when learned")
        legend(axes)

    return _draw(claim, "Test score right after each task's own stage, a line per seed.", paint)


def _with(runs: Sequence[RunRecord], task: str) -> list[RunRecord]:
    return [run for run in runs if task in run.matrix.stages]


def _means(curve: Sequence[Point]) -> list[float]:
    """Mean at each point, on the examples that all have."""
    shared = set.intersection(*(set(point.scores) for point in curve))
    return [fmean(point.scores[example] for example in sorted(shared)) for point in curve]


def _mean(curves: Sequence[LearningCurve]) -> list[float]:
    return [fmean(point) for point in zip(*(curve.means() for curve in curves), strict=True)]


def _average(run: RunRecord) -> float:
    return fmean(fmean(values.values()) for values in final_scores(run).values())


def _number(arm: str, result: Result) -> int:
    named = result.config.claims
    assert named is not None
    return {named.fast_slow: 0, named.slow_only: 1}.get(arm, 2)
