"""Forgetting, learning and retention of a policy: pure functions on score tables."""
