"""What a policy forgot, learned and kept: pure functions on score tables."""
