"""Runs as they are now, read from their folders alone: in a terminal, and in a browser."""
