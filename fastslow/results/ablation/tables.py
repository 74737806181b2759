"""The result of an ablation as tables."""

from collections.abc import Iterator, Sequence

from fastslow.measure.stats.over_seeds import SeedEstimate
from fastslow.measure.stats.significance import SignFlip
from fastslow.results.ablation.claims import Claim
from fastslow.results.ablation.records import average_guess
from fastslow.results.ablation.references import reference_arms
from fastslow.results.ablation.result import Result
from fastslow.results.ablation.search import scores_table
from fastslow.results.ablation.statistics import (
    OTHER_TASKS,
    SEED_METRICS,
    ArmDifference,
    ArmSummary,
)
from fastslow.results.render.layout import Table, Text, row


def tables(result: Result) -> list[Table]:
    """All tables in reading order."""
    frozen_text = result.config.claims.frozen_text if result.config.claims else None
    candidates = [
        _arms(result),
        _claims("Claims of Fast-Slow Training", result.claims),
        _claims(
            f"The same claims against weights under one frozen text: {frozen_text}",
            result.frozen_text_claims,
        ),
        _gains(result),
        _references(result),
        _differences(result.differences),
        scores_table(result.config.search.path if result.config.search else "", result.search),
    ]
    return [table for table in candidates if table.rows]


def estimate_text(estimate: SeedEstimate | str, digits: int = 2, *, sign: bool = False) -> Text:
    """A mean with its spread over seeds and its interval, or why there is none."""
    if isinstance(estimate, str):
        return Text("", "dim", reason=estimate)
    plus = "+" if sign else ""
    mean = f"{estimate.mean:{plus}z.{digits}f}"
    spread = "" if estimate.sd is None else f" ± {estimate.sd:.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return Text(f"{mean}{spread}", reason=estimate.covers)
    limits = f"[{estimate.low:{plus}z.{digits}f}, {estimate.high:{plus}z.{digits}f}]"
    alone = "over examples of one seed" if estimate.sd is None else ""
    return Text(f"{mean}{spread} {limits}", reason=alone)


def _claims(title: str, claims: Sequence[Claim]) -> Table:
    return Table(
        title,
        ("claim", "answer", "effect", "detectable", "p", "p (Holm)", "numbers"),
        tuple(map(_claim, claims)),
        "Yes or no: the whole 95 % interval lies on one side of what the claim needs, which is "
        "> 0 for a difference, < 1 for a ratio, >= the share named for plasticity; uncorrected for "
        "the number of claims. Detectable: how far from that an effect must be to be found with 80 "
        "% power, for a ratio the ratio itself. Power: how often a design like this one, with the "
        "spread observed, would say yes if the true effect were the one named. p as under paired "
        "differences, Holm over this table.",
    )


def _claim(claim: Claim) -> tuple[Text, ...]:
    form = ".3g" if claim.unit.startswith("ratio") else ".3f"
    low, high = ("?" if end is None else f"{end:{form}}" for end in (claim.low, claim.high))
    interval = f" [{low}, {high}]" if claim.low is not None else ""
    if claim.effect is None:
        effect = f"{claim.reason or 'undefined'}{interval}"
    else:
        reason = f" ({claim.reason})" if claim.reason else ""
        effect = f"{claim.effect:{form}}{interval}{reason} {claim.unit}"
    numbers = [f"{name}: {_short(value)}" for name, value in claim.numbers.items()]
    return (
        Text(claim.statement),
        Text(claim.answer_text, "strong"),
        Text(effect),
        Text("-" if claim.detectable is None else f"{claim.detectable:.3g}"),
        _p_value(claim.test),
        Text("-" if claim.holm is None else f"{claim.holm:.3g}"),
        Text("; ".join(numbers)),
    )


def _short(value: float | None) -> str:
    """Four digits; counts whole."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _arms(result: Result) -> Table:
    note = (
        "Mean over seeds ± standard deviation over seeds [95 % interval over seeds and examples, "
        "tasks taken as fixed]; docs/methods.md says how. Rollouts are the mean of a run. KL is "
        "kl_fst in nats per token, mean over trained tasks after the last stage; its interval is "
        "over seeds alone."
    )
    if result.missing:
        note += f" Not finished, so not in here: {', '.join(result.missing)}."
    scores = ("average accuracy", "learning accuracy", "bwt gem", "KL")
    header = ("arm", "runs", *scores, "slow rollouts", "fast + slow")
    rows = (*map(_arm, result.arms), *_chance(result))
    return Table(f"Arms of {result.config.name}", header, rows, note)


def _chance(result: Result) -> Iterator[tuple[Text, ...]]:
    """Rows of what guessing scores on average over the tasks; none where it was not graded."""
    chance = average_guess(result.records)
    for name, score in zip(("constant answer", "uniform guess"), chance or (), strict=False):
        if score is not None:
            yield row(Text(name, "strong"), "-", f"{score:.2f}", *["-"] * 5)


def _arm(arm: ArmSummary) -> tuple[Text, ...]:
    rollouts = arm.rollouts
    return (
        Text(arm.arm, "strong"),
        Text(f"{arm.runs}/{arm.planned}"),
        estimate_text(arm.metrics["average_accuracy"]),
        estimate_text(arm.metrics["learning_accuracy"]),
        estimate_text(arm.metrics["bwt_gem"], sign=True),
        estimate_text(arm.kl, 3),
        Text(f"{rollouts['slow']:,.0f}" if rollouts else "-"),
        Text(f"{rollouts['total']:,.0f}" if rollouts else "-"),
    )


def _references(result: Result) -> Table:
    references = result.config.references
    return Table(
        "Forgetting, and what was not learned",
        ("arm", *(name.replace("_", " ") for name in SEED_METRICS)),
        tuple(
            (
                Text(arm.arm, "strong"),
                *(estimate_text(arm.metrics[name], sign=True) for name in SEED_METRICS),
            )
            for arm in result.arms
        ),
        "Intervals over seeds alone. Reference runs are those of the same seed and the arm's own "
        "method, whose configuration differs in its stages alone: for intransigence "
        f"{', '.join(reference_arms('intransigence', references)) or 'none'}, for fwt isolated "
        f"{', '.join(reference_arms('fwt_isolated', references)) or 'none'}. Arms of other methods "
        "have no value.",
    )


def _gains(result: Result) -> Table:
    tasks = list(dict.fromkeys(task for arm in result.arms for task in arm.tasks))
    return Table(
        "Gain over the base, task by task",
        ("arm", *tasks),
        tuple(
            (
                Text(arm.arm, "strong"),
                *(
                    estimate_text(arm.gains.get(t, "no stage trains on it"), sign=True)
                    for t in tasks
                ),
            )
            for arm in result.arms
            if arm.runs
        ),
        "Test score after the last stage minus that of the untouched base, row 0 of the same run, "
        "paired by example; intervals as above, uncorrected for the number of tasks and arms.",
    )


def _differences(differences: Sequence[ArmDifference]) -> Table:
    unlike = dict.fromkeys(d.minus for d in differences if d.estimate == OTHER_TASKS)
    note = f"Not of arms {OTHER_TASKS}: {', '.join(unlike)}. " if unlike else ""
    return Table(
        f"Paired differences: {differences[0].arm} minus" if differences else "Paired differences",
        ("minus", "metric", "difference", "detectable", "p", "p (Holm)"),
        tuple(_difference(d) for d in differences if d.estimate != OTHER_TASKS),
        f"Same seeds, same examples. {note}Detectable: the smallest true difference that would "
        "be found with 80 % power. p: exact sign-flip test over seeds, Holm over this table; it "
        "cannot fall below what is in brackets, whatever the data, and below 5 % only from six "
        "seeds on.",
    )


def _difference(difference: ArmDifference) -> tuple[Text, ...]:
    estimate = difference.estimate
    cells = (
        Text(difference.minus),
        Text(difference.metric, is_code=True),
        estimate_text(estimate, sign=True),
    )
    if isinstance(estimate, str):
        return (*cells, Text("-"), Text("-"), Text("-"))
    detectable = "-" if estimate.detectable is None else f"{estimate.detectable:.2f}"
    adjusted = "-" if difference.holm is None else f"{difference.holm:.3g}"
    return (*cells, Text(detectable), _p_value(estimate.test), Text(adjusted))


def _p_value(test: SignFlip | None) -> Text:
    """With the lowest that the number of seeds allows."""
    return Text("-" if test is None else f"{test.p_value:.3g} [{test.lowest_possible:.3g}]")
