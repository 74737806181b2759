"""Programs that the policy wrote, run in a jail and graded."""
