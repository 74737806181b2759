"""One figure per claim, drawn from an ablation's records."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

from fastslow.measure.scores.per_example import final_scores, learned_scores
from fastslow.measure.scores.plasticity import mean_over_seeds
from fastslow.results.ablation.claim_measures import kl_points, pooled_probe
from fastslow.results.ablation.claims import QUESTIONS, Claim
from fastslow.results.ablation.records import Point, RunRecord, average_guess
from fastslow.results.ablation.result import Result
from fastslow.results.render.drawing import (
    GREY_CAPTION,
    MUTED,
    Drawing,
    Figure,
    draw,
    guess_lines,
    label,
    legend,
    score_axis,
    series,
)

FIGURES = tuple(f"claim-{question.name.replace('_', '-')}" for question in QUESTIONS)
"""Stems of the figures, in the order of the claims."""
FROZEN_TEXT_FIGURES = ("frozen-text-sample-efficiency", "frozen-text-lower-kl")
"""The same against the arm under one frozen text, where they show other runs."""


def claim_figures(result: Result) -> tuple[Drawing, ...]:
    """A figure for every claim that has something to show, in the order of the claims."""
    arms = result.config.claims
    if arms is None:
        return ()
    drawings = _drawings(result, result.claims, (arms.fast_slow, arms.slow_only))
    if arms.frozen_text is not None:
        pair = (arms.fast_slow, arms.frozen_text)
        for drawing in _drawings(result, result.frozen_text_claims, pair):
            name = drawing.name.replace("claim", "frozen-text", 1)
            if name in FROZEN_TEXT_FIGURES:
                title = f"Against {label(arms.frozen_text)}: {drawing.title}"
                drawings.append(replace(drawing, name=name, title=title))
    return tuple(drawings)


def _drawings(result: Result, claims: Sequence[Claim], arms: tuple[str, str]) -> list[Drawing]:
    """A figure for every one of `claims`, which compare these two arms."""
    sides = tuple([run for run in result.records if run.arm == arm] for arm in arms)
    makers: dict[str, Callable[[Claim], Drawing | None]] = {
        "sample_efficiency": lambda claim: _efficiency(claim, sides),
        "higher_score": lambda claim: _scores(claim, result),
        "lower_kl": lambda claim: _kl(claim, sides),
        "plasticity": lambda claim: _plasticity(claim, sides),
        "continued_acquisition": lambda claim: _acquisition(claim, sides),
    }
    drawings = [makers[claim.name](claim) for claim in claims]
    return [drawing for drawing in drawings if drawing is not None]


def _draw(
    claim: Claim, caption: str, paint: Callable[[Figure], None], height: float = 2.9
) -> Drawing:
    name = f"claim-{claim.name.replace('_', '-')}"
    title = f"{claim.statement.rstrip('.')}: {claim.answer_text}"
    return draw(name, title, caption, paint, height=height)


def _efficiency(claim: Claim, sides: Sequence[Sequence[RunRecord]]) -> Drawing | None:
    """Score against slow rollouts, a panel per task, a line per seed."""
    tasks = list(dict.fromkeys(t for runs in sides for run in runs for t in run.stages))
    if not all(sides):
        return None

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
        for panel, task in zip(panels, tasks, strict=True):
            for number, runs in enumerate(sides):
                for index, run in enumerate(run for run in runs if task in run.stages):
                    curve = run.curves[run.stages.index(task)]
                    if not curve:
                        continue
                    x, y = [point.slow for point in curve], _means(curve)
                    name = label(run.arm) if index == 0 and task == tasks[0] else None
                    panel.plot(x, y, lw=1.1, alpha=0.8, label=name, **series(number))
            guesses = [run.guesses[task] for run in (*sides[0], *sides[1]) if task in run.guesses]
            if guesses:
                guess_lines(panel, guesses[0], MUTED)
            panel.set_title(label(task), fontsize=7.5)
            score_axis(panel, "test score" if task == tasks[0] else "")
        figure.supxlabel("slow rollouts in the task's stage", fontsize=8.5)
        figure.legend(loc="outside upper left", ncols=2)

    return _draw(
        claim,
        "Score of each task on the examples of its learning curve against the slow channel's "
        "rollouts, a line per seed. The fast channel's rollouts come on top."
        + GREY_CAPTION
        * any(run.guesses for runs in sides for run in runs),
        paint,
    )


def _scores(claim: Claim, result: Result) -> Drawing | None:
    """Average score at the end, by arm, with its interval and every seed."""
    trained = {task for run in result.records for task in run.stages}
    arms = [a for a in result.arms if a.runs and set(a.tasks) == trained]
    pair = result.config.claims
    if not arms or pair is None:
        return None
    numbers = {pair.fast_slow: 0, pair.slow_only: 1}

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for row, arm in enumerate(arms):
            runs = [run for run in result.records if run.arm == arm.arm]
            for run in runs:
                average = fmean(fmean(values.values()) for values in final_scores(run).values())
                axes.plot(average, row, "o", ms=3, alpha=0.5, color=series(5)["color"])
            estimate = arm.metrics["average_accuracy"]
            if isinstance(estimate, str):
                continue
            colour = series(numbers.get(arm.arm, 2))["color"]
            if estimate.low is not None and estimate.high is not None:
                axes.plot([max(0, estimate.low), min(1, estimate.high)], [row, row], color=colour)
            axes.plot(estimate.mean, row, "D", color=colour)
        for score, style in zip(average_guess(result.records) or (), ("--", ":"), strict=False):
            if score is not None:
                axes.axvline(score, color=MUTED, lw=0.8, ls=style)
        axes.set_yticks(range(len(arms)), [label(arm.arm) for arm in arms])
        axes.set_ylim(len(arms) - 0.5, -0.5)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel("average test score after the last stage")
        axes.grid(visible=True, axis="x")

    return _draw(
        claim,
        "Diamonds: means over seeds with 95 % intervals over seeds and examples. Dots: seeds."
        + GREY_CAPTION * bool(average_guess(result.records)),
        paint,
        height=1.2 + 0.26 * len(arms),
    )


def _kl(claim: Claim, sides: Sequence[Sequence[RunRecord]]) -> Drawing | None:
    """Score against KL to the base, a point per task, row and seed."""
    cells = [[(run, task) for run in runs for task in dict.fromkeys(run.stages)] for runs in sides]
    by_side = [[point for cell in side for point in kl_points(*cell)] for side in cells]
    if not all(by_side):
        return None

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, (runs, points) in enumerate(zip(sides, by_side, strict=True)):
            scores, divergences = zip(*points, strict=True)
            look = series(number) | {"ls": "none", "alpha": 0.7}
            axes.plot(divergences, scores, label=label(runs[0].arm), **look)
        axes.set_xlabel("KL(tuned ‖ base), nats per generated token")
        axes.set_xlim(left=min(0.0, *(kl for points in by_side for _, kl in points)))
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

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, (runs, probe) in enumerate(zip(sides, probes, strict=True)):
            if probe is not None:
                counts, look = probe.base[0].counts, series(number)
                axes.plot(
                    counts,
                    mean_over_seeds(probe.tuned),
                    label=f"after {label(runs[0].arm)}",
                    **look,
                )
        probe = next(probe for probe in probes if probe is not None)
        base = series(5) | {"ls": "--"}
        axes.plot(probe.base[0].counts, mean_over_seeds(probe.base), label="from the base", **base)
        axes.set_xlabel("updates on the probe's task")
        score_axis(axes, "validation score")
        legend(axes)

    return _draw(claim, "Means over seeds on a task that no stage visits.", paint)


def _acquisition(claim: Claim, sides: Sequence[Sequence[RunRecord]]) -> Drawing | None:
    """Score right after a task's own stage and before the run, by the stage's position."""
    if not all(sides):
        return None

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, runs in enumerate(sides):
            width = max(run.matrix.num_stages for run in runs)
            for index, run in enumerate(runs):
                learned = [fmean(values.values()) for values in learned_scores(run).values()]
                name = label(run.arm) if index == 0 else None
                positions = range(1, len(learned) + 1)
                axes.plot(positions, learned, lw=0.9, alpha=0.8, label=name, **series(number))
            axes.set_xticks(range(1, width + 1))
        axes.set_xlabel("position of the task in the sequence")
        score_axis(axes, "score when learned")
        legend(axes)

    return _draw(claim, "Test score right after each task's own stage, a line per seed.", paint)


def _means(curve: Sequence[Point]) -> list[float]:
    """Mean at each point, on the examples that all have."""
    shared = set.intersection(*(set(point.scores) for point in curve))
    return [fmean(point.scores[example] for example in sorted(shared)) for point in curve]
