"""Measures: what a policy scores, what it forgot, how far it drifted."""
