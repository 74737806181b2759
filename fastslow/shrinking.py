"""The end of a stage: the adapter is scaled down as far as its validation gain allows.

Brings the evaluator's scores and the drift to `channels.minimal.shrink`, and what it found into
the record. Called by the loop once the text to deploy is chosen.
"""

import time
from collections.abc import Sequence
from statistics import fmean

from fastslow.channels.minimal import shrink
from fastslow.events import ShrinkEvent
from fastslow.measure.drift import kl_fst
from fastslow.measure.evaluator import Evaluator
from fastslow.policy.policy import Policy
from fastslow.task import Task


def shrink_stage(
    policy: Policy,
    evaluator: Evaluator,
    task: Task,
    stage: int,
    *,
    share: float,
    earlier: Sequence[Task],
    kl_examples: int,
    seed: int,
) -> ShrinkEvent:
    """Scale the adapter of the stage that just ended; see `channels.minimal.shrink`.

    Args:
        policy: Its adapter is scaled in place.
        evaluator: Gives the validation sample and its scores.
        task: The stage's task, scored under its deployed text.
        stage: Index of the stage, from 0.
        share: Of the stage's validation gain that is to be kept, in (0, 1].
        earlier: Tasks that lose something too when the adapter is scaled; scored for the record.
        kl_examples: Validation inputs on which KL to the base is measured; 0 turns it off.
        seed: Of the draws for it, the same before and after.
    """
    started, before = time.monotonic(), policy.engine.num_rollouts
    program = policy.live_program(task)
    inputs = evaluator.validation_sample(task)[:kl_examples]

    def score(of: Task) -> float:
        return fmean(evaluator.validation_scores(policy, of, policy.live_program(of)).values())

    def observe() -> dict[str, float]:
        drift = {"kl_fst": kl_fst(policy, task, program, inputs, seed).value} if inputs else {}
        return drift | {f"score/{other.name}": score(other) for other in earlier}

    found = shrink(policy, share, lambda: score(task), observe)
    names = {other.name: f"score/{other.name}" for other in earlier}
    return ShrinkEvent(
        stage=stage,
        task=task.name,
        share=share,
        factor=found.factor,
        reason=found.reason,
        validation_start=found.start,
        validation_before=found.before,
        validation_after=found.after,
        validation_n=len(evaluator.validation_sample(task)),
        kl_before=found.observed_before.get("kl_fst"),
        kl_after=found.observed_after.get("kl_fst"),
        earlier_before={name: found.observed_before[key] for name, key in names.items()},
        earlier_after={name: found.observed_after[key] for name, key in names.items()},
        rollouts=policy.engine.num_rollouts - before,
        seconds=time.monotonic() - started,
    )
