"""What an ablation will do and cost, arm by arm, before any of it is done."""

from collections import Counter

from fastslow.ablation.plan import Plan
from fastslow.config.cost import estimate_cost
from fastslow.report.layout import Table, Text


def plan_table(plan: Plan) -> Table:
    """One row per arm: how many of its runs are done, and the budget of one of them.

    Args:
        plan: The ablation; its folder is looked at.
    """
    costs = {run.arm: estimate_cost(run.config) for run in plan.runs}
    most = max(cost.slow_rollouts + cost.fast_rollouts for cost in costs.values())
    rows, changed, minutes = [], [], 0.0
    for arm, cost in costs.items():
        runs = [run for run in plan.runs if run.arm == arm]
        found = {run.name: plan.find(run) for run in runs}
        states = Counter(one.status for one in found.values())
        minutes += (len(runs) - states["finished"]) * (cost.minutes or 0.0)
        changed += [
            f"{name} (was {', '.join(one.others)})"
            for name, one in found.items()
            if one.others and one.status == "missing"
        ]
        total = cost.slow_rollouts + cost.fast_rollouts
        rows.append(
            (
                Text(arm),
                *(Text(str(n)) for n in (len(runs), states["finished"])),
                Text(str(states["broken"] + states["running"])),
                Text(str(states["missing"])),
                *(Text(f"{n:,}") for n in (cost.fast_rollouts, cost.slow_rollouts, total)),
                Text(f"{total / most:.2f}" if most else "-"),
                Text(f"{cost.optimizer_steps:,}"),
                Text("unknown" if cost.minutes is None else f"{cost.minutes:.0f}"),
            )
        )
    header = ["arm", "runs", "finished", "begun", "missing"]
    note = (
        "Budget of one run: rollouts that train or evolve, as `fastslow check` counts them; arms "
        "with equal totals spend the same. Share: of the largest. Those that stop early spend less."
    )
    known = all(cost.minutes is not None for cost in costs.values())
    note += f" To do: about {minutes:.0f} minutes, one run at a time." if known else ""
    if changed:
        note += f" Run before with another configuration, so run anew: {'; '.join(changed)}."
    return Table(
        f"Plan of {plan.config.name}",
        (*header, "fast rollouts", "slow rollouts", "total", "share", "updates", "minutes"),
        tuple(rows),
        note,
    )
