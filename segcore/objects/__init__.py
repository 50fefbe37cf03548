"""Objects of an image: as masks in crops, from class maps, compared with the truth, and stitched over windows."""
