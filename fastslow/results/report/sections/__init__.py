"""The report's subjects, one module each."""
