"""The sections of `benchmarks.gpu`: each a function of a `Section`, which collects what it says."""
