"""Checks images and masks, and builds the catalogue of items."""
