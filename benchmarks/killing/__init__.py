"""Kills of `benchmarks.kill_resume`: of a run that trains, and of every other command."""
