"""What is true of a policy's weights and distributions: needs the model."""
