"""Output formats of predictions: one module per format."""
