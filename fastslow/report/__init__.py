"""Reports: from run folders to tables. Reads files only; never loads a model."""
