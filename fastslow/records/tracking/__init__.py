"""What experiment trackers are told."""
