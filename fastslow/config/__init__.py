"""Typed configuration: `models` says what a run is made of, `loading` reads it, `cost` adds up."""
