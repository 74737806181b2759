"""The second language model of the fast channel."""
