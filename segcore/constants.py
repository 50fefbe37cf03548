"""Constants that all layers share."""

# Label of pixels that are excluded from loss, gradient and scores: nodata, outside the field of view, unlabelled.
IGNORE = 255
# A predicted object with more than this share of its pixels ignored is taken out: neither right nor wrong.
IGNORED_SHARE = 0.5
# A true object with at most this share of its pixels inside the scored region may be found or not: of two test regions
# that divide an object, at most one requires it.
REQUIRED_SHARE = 0.5
# Probabilities are at least this before their logarithm is taken: the smallest normal float32.
SMALLEST_PROBABILITY = 2.0**-126
# name of the batch of items that consists of data.source itself
FIRST_BATCH = "0"
