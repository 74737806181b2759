"""May a run's policy ship, going back to an earlier one, and files for other programs."""
