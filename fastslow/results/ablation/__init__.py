"""One experiment in several arms over several seeds: the runs and their joint result."""

from fastslow.results.ablation.plan import Plan
from fastslow.results.ablation.plan_file import is_ablation, read_plan

__all__ = ["Plan", "is_ablation", "read_plan"]
