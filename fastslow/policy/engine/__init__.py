"""Sampling and log-probabilities over the unique tokens of a batch."""
