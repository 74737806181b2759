"""The fast channel: a population of prompts per task, evolved with the weights frozen."""
