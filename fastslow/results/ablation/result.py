"""The result of an ablation: from records to summaries, differences and claims."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fastslow.config.ablation import AblationConfig
from fastslow.results.ablation.claims import Claim, put_to_the_test
from fastslow.results.ablation.plan import Plan
from fastslow.results.ablation.records import RunRecord, read_records
from fastslow.results.ablation.search import TrialScore
from fastslow.results.ablation.statistics import (
    ArmDifference,
    ArmSummary,
    arm_summaries,
    differences,
)


@dataclass(frozen=True, slots=True)
class Result:
    """An ablation, as far as it is finished."""

    config: AblationConfig
    records: tuple[RunRecord, ...]
    missing: tuple[str, ...]
    """Names of runs that are not finished."""
    arms: tuple[ArmSummary, ...]
    differences: tuple[ArmDifference, ...]
    """The arm of both channels, or else the first one, minus every other."""
    claims: tuple[Claim, ...]
    """Empty where the file names no arms for them."""
    frozen_text_claims: tuple[Claim, ...]
    """The same against the arm under one frozen text; empty where the file names none."""
    search: tuple[TrialScore, ...] = ()
    """What the values of the searched key scored; empty where the file has no search."""


def read_result(plan: Plan) -> Result:
    """Compute the result of the finished runs of a plan, found by name and configuration.

    Raises:
        CheckpointError: A record is damaged.
        EvaluationError: Recorded scores cannot form a matrix, or are of two versions of a task.
    """
    folders = plan.finished()
    missing = tuple(run.name for run in plan.runs if run.name not in folders)
    planned = Counter(run.arm for run in plan.runs)
    scores = plan.search.scores() if plan.search else ()
    return make_result(plan.config, read_records(plan, folders), planned, missing, scores)


def make_result(
    config: AblationConfig,
    records: Sequence[RunRecord],
    planned: Counter[str],
    missing: tuple[str, ...] = (),
    search: tuple[TrialScore, ...] = (),
) -> Result:
    """The same from records, which need no run folders any more."""
    named = config.claims
    first = named.fast_slow if named else next(iter(config.arms))
    others = [arm for arm in config.arms if arm != first]
    rivals = (named.slow_only, named.frozen_text) if named else (None, None)
    arms = tuple(arm_summaries(records, planned, config))
    paired = tuple(differences(records, first, others))
    claims = [tuple(put_to_the_test(records, first, arm)) if arm else () for arm in rivals]
    return Result(config, tuple(records), missing, arms, paired, claims[0], claims[1], search)
