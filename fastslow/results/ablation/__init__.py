"""One experiment in several arms over several seeds: the runs and their joint result.

`plan.py` reads the file, `execute.py` starts the runs, `records.py` reads them, `statistics.py`
and `claims.py` compute, `tables.py`, `figures.py` and `write.py` show.
"""

from fastslow.results.ablation.plan import Plan, is_ablation, read_plan

__all__ = ["Plan", "is_ablation", "read_plan"]
