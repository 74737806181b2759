"""Where the runs of an ablation are made: one module per launcher, all of them behind `base.py`."""
