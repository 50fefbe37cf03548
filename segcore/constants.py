"""Values that every layer agrees on."""

# A label of this value is left out of loss, gradient and score: nodata, outside the field of view, unlabelled.
IGNORE = 255
