"""Several runs next to each other: scores, curves, paired differences."""
