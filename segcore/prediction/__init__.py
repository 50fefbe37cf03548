"""Prediction of new scenes and arrays with a trained model."""
