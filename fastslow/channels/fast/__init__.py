"""The fast channel: a population of texts per task, evolved with the weights frozen."""
