"""The slow channel: minimal updates of the adapter with the texts frozen."""
