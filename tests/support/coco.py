"""Builders and readers of COCO annotation files, and checks of their errors."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from segcore.data.raster import Info
from segcore.errors import DataError
from segcore.io.annotations import open_labels, read_labels
from tests.support.tiny import params_for

HEIGHT, WIDTH = 40, 50
IMAGE = Info(HEIGHT, WIDTH, 3, "uint8")
CLASSES = ["background", "car", "tree"]
CATEGORIES = [{"id": 3, "name": "car"}, {"id": 7, "name": "tree"}]


def data_for(label_values=None):
    values = label_values or {"car": "car", "tree": "tree"}
    data = params_for(".", data={"classes": CLASSES, "colors": [[0, 0, 0]] * 3}).data
    return data.model_copy(update={"label_values": values})


def annotation(segmentation, category=3, number=1, **over):
    return {"id": number, "image_id": 1, "category_id": category, "segmentation": segmentation, **over}


def save(path, annotations, images=None, **over):
    """Write a file with the annotations; by default of the one image a.png."""
    images = images or [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES, **over})
    )
    return path


def labels(path, data=None, image="a.png", info=IMAGE):
    return read_labels(path, path.with_name("images") / image, info, data or data_for())


def notes(path, data=None):
    """Notes on the annotations, once all of them were read."""
    with open_labels(path, path.with_name("a.png"), IMAGE, data or data_for()) as source:
        source.read((0, 0, HEIGHT, WIDTH))
        return source.notes


def fails(path, kind, *texts, data=None, image="a.png", info=IMAGE):
    """Check that reading fails with this kind and these texts."""
    with pytest.raises(DataError) as caught:
        labels(path, data, image, info)
    error = caught.value
    assert error.kind == kind and error.what.startswith(path.name), error
    for text in texts:
        assert text in str(error), error


def random_mask(seed=0):
    return np.random.default_rng(seed).random((HEIGHT, WIDTH)) > 0.6


def counts_of(mask):
    """Uncompressed run lengths, column by column."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes, [mask.size]]))[: len(changes) + 1].tolist()


def plain(mask):
    """Uncompressed run-length mask."""
    return {"size": [HEIGHT, WIDTH], "counts": counts_of(mask)}


def packed(mask):
    """Compressed run-length mask."""
    return {
        "size": [HEIGHT, WIDTH],
        "counts": coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode(),
    }


def square(column, row, width, height):
    """Outline of a rectangle."""
    return [[column, row, column + width, row, column + width, row + height, column, row + height]]


def square_mask(column, row, width, height):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[row : row + height, column : column + width] = True
    return mask
