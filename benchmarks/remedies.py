"""Remedies where the second stage destroys the first task on purpose: a table for results.md.

fastslow ablate configs/ablations/planted-remedies.yaml
python -m benchmarks.results --keep-ablation runs/ablations/planted-remedies
"""

from fastslow.plugins import Memory, Remedy, RemedyConfig, Stage, remedy


class Nothing(RemedyConfig):
    """No parameters."""


@remedy(name="nothing", source="a control")
def nothing(config: Nothing) -> Remedy:
    """Does nothing at all, so that a run with it must equal one without, bit for bit."""

    def begin(stage: Stage, memory: Memory) -> None:
        return None

    return Remedy(begin=begin)
