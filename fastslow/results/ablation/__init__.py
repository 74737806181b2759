"""One experiment in several arms over several seeds: the runs and their joint result."""

from fastslow.results.ablation.plan import Plan, is_ablation, read_plan

__all__ = ["Plan", "is_ablation", "read_plan"]
