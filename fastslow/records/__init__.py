"""The run folder: raw rows, events, resume points, its lock, and trackers."""
