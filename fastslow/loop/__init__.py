"""The loop over stages and cycles, and what it takes: building, evaluation, launch."""
