"""The policy: base weights, adapter and prompt texts; the only owner of a torch model."""
