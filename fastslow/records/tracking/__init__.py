"""Trackers: metrics, texts and files of a run somewhere else as well as in its folder."""
