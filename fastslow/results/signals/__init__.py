"""The report of a study of signals: signals.html and .csv, and the terminal's summary."""
