"""Experiments on the questions of docs/questions.md; see `__main__`."""
