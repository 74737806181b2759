"""From YAML files and overrides to a checked configuration, with file and line."""
