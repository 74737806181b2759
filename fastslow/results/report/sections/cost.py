"""What a run cost, as tables: by stage, by channel and part, and of the reflection LM."""

from fastslow.results.render.layout import Table, Text, shown
from fastslow.results.report.data import Report


def stage_table(report: Report) -> Table:
    """What each stage drew and took, and how the metrics stood after it."""
    rows = []
    for index, stage in enumerate(report.stages, start=1):
        values = [
            stage.metrics[name].value
            for name in ("average_accuracy", "bwt_gem", "forgetting_chaudhry")
        ]
        rows.append(
            (
                Text(f"{index} {stage.task}"),
                Text(str(stage.cycles)),
                Text(str(stage.rollouts["fast"])),
                Text(str(stage.rollouts["slow"])),
                Text(f"{sum(stage.seconds.values()) / 60:.1f}"),
                *(Text(shown(value)) for value in values),
            )
        )
    return Table(
        "Stages",
        (
            "stage",
            "cycles",
            "fast rollouts",
            "slow rollouts",
            "minutes",
            "average accuracy",
            "bwt_gem",
            "forgetting chaudhry",
        ),
        tuple(rows),
        "Metrics as they stood after the stage; - is undefined.",
    )


def cost_table(report: Report) -> Table:
    """Rollouts and seconds by what they were spent on."""
    channels = ("fast", "slow")
    trained = sum(report.rollouts[name] for name in channels)
    seconds = sum(report.seconds_by[name] for name in channels)
    reused = sum(cost.reused for cost in report.evaluations.values())
    rows = [(name, report.rollouts[name], 0, report.seconds_by[name]) for name in channels]
    rows.append(("fast + slow", trained, 0, seconds))
    evaluation = (report.rollouts["evaluation"], reused, report.seconds_by["evaluation"])
    rows.append(("evaluation", *evaluation))
    parts = report.evaluations.items() if len(report.evaluations) > 1 else ()
    rows += [(f"evaluation: {n}", c.rollouts, c.reused, c.seconds) for n, c in parts]
    if report.saving_seconds is not None:
        rows.append(("resume points", 0, 0, report.saving_seconds))
    whole = report.seconds
    return Table(
        "Cost",
        ("spent on", "rollouts", "reused", "seconds", "share of the run"),
        tuple(
            (
                Text(name),
                Text(str(count)),
                Text(str(again) if again else "-"),
                Text(f"{time:.1f}"),
                Text(f"{time / whole:.2f}" if whole else "-"),
            )
            for name, count, again, time in rows
        ),
        f"The whole run took {whole / 60:.1f} minutes. Reused: scores of weights and texts that "
        "had been scored before; nothing was drawn for them.",
    )


def reflection_table(report: Report) -> Table:
    """What the reflection LM was asked; no rows where there was none."""
    account = report.reflection
    whole: list[int | None] = []
    if account:
        whole = [account.calls, account.failures, account.prompt_tokens, account.completion_tokens]
    return Table(
        "Reflection LM",
        ("requests", "failed attempts", "prompt tokens", "answer tokens", "US dollars"),
        ()
        if account is None
        else (
            (
                *(Text("-" if count is None else str(count)) for count in whole),
                Text("-" if account.cost_usd is None else f"{account.cost_usd:.4f}"),
            ),
        ),
        "What the reflection LM was asked by the fast channel; none of it is a rollout of a task. "
        "Dollars by list prices; - is not known.",
    )
