"""How far a run has come: changed by the loop, held as JSON by every resume point."""

from dataclasses import dataclass, field

from fastslow.core.types import Evidence


@dataclass(slots=True)
class RunState:
    """How far a run has come."""

    next_stage: int = 0
    """Index of the stage to continue with; the number of stages when all are done."""
    next_cycle: int = 0
    """Index of the cycle within it."""
    base_done: bool = False
    """Whether row 0 of the matrix has been measured."""
    rollouts: dict[str, int] = field(default_factory=lambda: {"fast": 0, "slow": 0})
    """Completions sampled so far, by channel."""
    seconds: float = 0.0
    """Wall time spent in the run so far, over all resumes."""
    saving_seconds: float = 0.0
    """Part of `seconds` that went into resume points."""
    done: list[str] = field(default_factory=list)
    """Names of the steps done since the last cycle or stage ended; not empty where a signal stopped
    the run."""
    progress: int = 0
    """Steps and updates since then: tells resume points within a cycle apart."""
    grading: dict[str, list[int]] = field(default_factory=dict)
    """Counts of each task's guarded grader since the stage began."""
    positions: dict[str, int] = field(default_factory=dict)
    """Bytes of each record file when this was saved; filled by `save_state`."""
    evidence: list[Evidence] = field(default_factory=list)
    """Graded completions of the last slow phase of this stage, if the next fast phase may reuse
    them."""
