"""The Python interface, whose names `import fastslow` gives: the command line calls the same.

It works where a program does: it neither exits nor leaves signal handlers behind, and what is wrong
is raised as a `FastSlowError`.
"""
