"""Intervals, tests and bootstraps: pure functions on numbers."""
