"""Links between items that must share a split: duplicates, near duplicates, overlapping footprints."""
