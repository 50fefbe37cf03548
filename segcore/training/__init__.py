"""Training of a network: batches, losses, steps, checkpoints and validation."""
