"""The command line: `main` puts the commands together, a module for each group."""
