"""Speed and science benchmarks, each runnable as a module."""
