"""What is logged to MLflow, the model registry, and models fetched from it."""
