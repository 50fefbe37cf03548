"""Constants that all layers share."""

# Label of pixels that are excluded from loss, gradient and scores: nodata, outside the field of view, unlabelled.
IGNORE = 255
