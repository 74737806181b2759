"""Typed configuration: `models` says what a run is made of, `load` reads it, `cost` prices it."""
