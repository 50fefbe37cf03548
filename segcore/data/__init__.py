"""Rasters, volumes, packed items and the prepared data."""
