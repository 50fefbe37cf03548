"""Readers of image and ground truth formats, and layouts of data sets."""
