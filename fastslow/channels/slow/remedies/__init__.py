"""Remedies: ways to keep what was learned before, and to let more be learned. One file each."""
