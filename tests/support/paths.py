"""Where the repository is, for tests that start programs in it."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
