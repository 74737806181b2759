"""One experiment in several arms over several seeds: the runs, and what they say together.

`plan.py` reads the file, `execution.py` starts the runs, `records.py` reads them, `statistics.py`
and `claims.py` compute, `tables.py`, `figures.py` and `files.py` show.
"""

from fastslow.ablation.plan import Plan, is_ablation, read_plan

__all__ = ["Plan", "is_ablation", "read_plan"]
