"""What else is measured beside scores after every stage: how far the policy moved, and how.

Each function measures one thing on the present policy, which it leaves as it is, and records it.
"""

from fastslow.evaluation import accounted
from fastslow.measure.drift import kl_fst
from fastslow.parts import Run
from fastslow.records import DriftEvent
from fastslow.seeds import derive_seed
from fastslow.task import Task


def diagnose(parts: Run, row: int) -> None:
    """Measure what the configuration asks for, on the policy that made row `row`."""
    with accounted(parts, row, "drift"):
        for task in parts.tasks.values():
            with parts.policy.adapters.of(task.name):
                measure_drift(parts, task, row)


def measure_drift(parts: Run, task: Task, row: int) -> None:
    """Record KL(tuned || base) on some of the task's test inputs, under its present text."""
    program = parts.policy.live_program(task)
    inputs = parts.evaluator.test_sample(task)[: parts.config.evaluation.kl_examples]
    if not inputs:
        reason = "turned off by evaluation.kl_examples = 0"
        event = DriftEvent(row, task.name, "kl_fst", None, reason, 0, program.text_hash)
        parts.run_dir.events.append(event)
        return
    seed = derive_seed(parts.config.seed, "drift", row, task.name)
    drift = kl_fst(parts.policy, task, program, inputs, seed)
    parts.run_dir.events.append(
        DriftEvent(row, task.name, "kl_fst", drift.value, None, drift.tokens, program.text_hash)
    )
    parts.tracker.log({f"kl_fst/{task.name}": drift.value}, step=row)
