"""Hostile input, made by seeded mutation, and what became of each piece of it."""
