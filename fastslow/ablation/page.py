"""ablation.html: what an ablation says, as one page without a script."""

from collections import Counter
from collections.abc import Sequence

from fastslow.ablation.result import Result
from fastslow.ablation.tables import tables
from fastslow.measure.seeds_and_examples import Estimate
from fastslow.report.drawing import Drawing
from fastslow.report.html import render


def page(result: Result, drawings: Sequence[Drawing]) -> str:
    """The text of ablation.html."""
    return render(
        "ablation.html",
        {
            "title": f"{result.config.name} · fastslow",
            "result": result,
            "verdict": verdict(result),
            "drawings": drawings,
            "tables": tables(result),
        },
    )


def verdict(result: Result) -> str:
    """The ablation in a few sentences: the two arms of the claims, and how the claims do."""
    if not result.records:
        return "No run is finished yet."
    if not result.claims:
        arms = sum(1 for arm in result.arms if arm.runs)
        return f"{arms} arms over {len({run.seed for run in result.records})} seeds."
    answers = Counter(claim.answer for claim in result.claims)
    counts = ", ".join(f"{answers[a]} {a}" for a in ("yes", "no", "not decidable") if answers[a])
    return f"{_difference(result)}{_transfer(result)}Claims put to the test: {counts}."


def _difference(result: Result) -> str:
    named = result.config.claims
    assert named is not None
    found = {o.minus: o.estimate for o in result.differences if o.metric == "average_accuracy"}
    return "".join(
        _said(f"Average accuracy of {named.fast_slow} minus {arm}", found[arm])
        for arm in (named.slow_only, named.frozen_text)
        if arm in found
    )


def _transfer(result: Result) -> str:
    named = result.config.claims
    assert named is not None
    for arm in result.arms:
        if arm.arm == named.fast_slow and "bwt_gem" in arm.metrics:
            return _said(f"Backward transfer of {named.fast_slow}", arm.metrics["bwt_gem"])
    return ""


def _said(what: str, found: Estimate | str) -> str:
    if isinstance(found, str) or found.low is None or found.high is None:
        return ""
    alone = " over examples of one seed" if found.sd is None else ""
    return f"{what}: {found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]{alone}. "
