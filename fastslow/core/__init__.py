"""What every layer uses: types, errors, prompts as data, text, files, seeds, processes."""
