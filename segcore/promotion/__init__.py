"""The gate: decides whether a challenger replaces the champion; drift between a batch and the training data."""
