"""Bad annotations of labelme, CVAT and YOLO, and COCO annotations of objects that were brushed."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.drawn import CAR, cvat, element, labelme, points, shape
from tests.system.bad_inputs import pictures
from tests.system.bad_inputs.case import DataSet, Pair, cut

SIZE = {"imageHeight": 48, "imageWidth": 56}
LAND = shape("land", [[0, 0], [56, 48]], "rectangle")


def drawn_pair(folder: Path, name: str, seed: int) -> Pair:
    """A picture with a file of labelme, which labels every pixel."""
    made = pictures.pair(folder, name, seed)
    made.mask.unlink()
    made = Pair(made.image, folder / "shapes" / f"{name}.json", seed)
    made.mask.parent.mkdir(parents=True, exist_ok=True)
    write(made, LAND, shape("square", CAR))
    return made


def write(pair: Pair, *shapes: object, **over: object) -> None:
    labelme(pair.mask, list(shapes), imagePath=pair.image.name, **{**SIZE, **over})


DRAWN = DataSet(
    "drawn",
    drawn_pair,
    {
        "images": "images/{file}",
        "masks": "shapes/{stem}.*",
        "background": None,
        "unlabelled": "ignore",
        "label_values": {"land": 0, "square": 1, 0: 0, 1: 1},
    },
)
case = DRAWN.case


@case("unlabelled", "2588 pixels without a label are ignored (data.unlabelled)")
def outlines_of_a_part_of_the_land(pair):
    write(pair, shape("square", CAR))


@case("shapes-skipped", "2 shapes without an area were left out: point (1), linestrip (1)")
def points_and_lines_of_labelme(pair):
    write(pair, LAND, shape("square", CAR), shape("x", [[1, 1]], "point"), shape("x", [[1, 1]], "linestrip"))


@case("other-image", "the annotations name the image img_0001.jpg")
def annotations_of_another_image(pair):
    labelme(pair.mask, [LAND, shape("square", CAR)], imagePath="../img_0001.jpg", **SIZE)


@case("size-mismatch", "annotations 480 x 56, image 48 x 56", of="mask")
def labelme_file_of_another_size(pair):
    write(pair, LAND, imageHeight=480)


@case("size-mismatch", "which are fractions of the size of an image", of="mask")
def labelme_file_with_fractions(pair):
    write(pair, shape("land", [[0, 0], [1, 0], [1, 1]]))


@case("maybe-percent", "have coordinates of at most 100, and the image has 400 x 500 pixels")
def labelme_file_with_percent(pair):
    noise = np.random.default_rng(pair.seed).integers(0, 255, (400, 500, 3), np.uint8)
    Image.fromarray(noise).save(pair.image)
    write(pair, shape("land", [[0, 0], [100, 0], [100, 100]]), imageHeight=400, imageWidth=500)


@case("polygons-unreadable", "is not JSON", of="mask")
def labelme_file_cut_off(pair):
    cut(pair.mask)


@case("polygons-unreadable", "has a mask that is not a PNG", of="mask")
def labelme_mask_that_is_no_picture(pair):
    write(pair, shape("square", [[1, 1], [5, 5]], "mask", mask="AAAA"))


@case("polygons-unreadable", "`CVAT for video`", of="mask")
def tracks_of_a_video(pair):
    pair.replace_mask(f"{pair.image.stem}.xml").write_text("<annotations><track id='0'/></annotations>")


@case("polygons-unreadable", "declares XML entities", of="mask")
def xml_with_entities(pair):
    text = '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]><annotations>&e;</annotations>'
    pair.replace_mask(f"{pair.image.stem}.xml").write_text(text)


@case("not-annotated", "does not list the image image_that_cvat_does_not_list.png", of="mask")
def image_that_cvat_does_not_list(pair):
    cvat(pair.replace_mask(f"{pair.image.stem}.xml"), ("other.png", []))


@case("unknown-category", "bus (1)", of="mask")
def label_of_cvat_that_is_not_declared(pair):
    bus = element("polygon", "bus", points=points(CAR))
    cvat(pair.replace_mask(f"{pair.image.stem}.xml"), (pair.image.name, [bus]), size=(48, 56))


@case("polygons-unreadable", "line 1 is a box", of="mask")
def boxes_of_yolo(pair):
    pair.replace_mask(f"{pair.image.stem}.txt").write_text("0 0.5 0.5 0.2 0.2")


def coco_pair(folder: Path, name: str, seed: int) -> Pair:
    made = pictures.pair(folder, name, seed)
    made.mask.unlink()
    return Pair(made.image, folder / "annotations.json", seed)


def brushed_json(folder: Path, pairs: dict[str, Pair]) -> None:
    """Polygons, and one object that was brushed: its run-length mask is marked as a crowd."""
    images, objects = [], []
    mask = np.zeros((48, 56), bool)
    mask[5:20, 5:20] = True
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    counts = np.diff([0, *changes.tolist(), flat.size]).tolist()
    for i, (name, made) in enumerate(pairs.items()):
        images.append({"id": i, "file_name": made.image.name, "height": 48, "width": 56})
        brushed = {"segmentation": {"size": [48, 56], "counts": counts}, "iscrowd": 1}
        drawn = {"segmentation": [[5, 5, 20, 5, 20, 20, 5, 20]], "iscrowd": 0}
        outline = brushed if name == "object_that_was_brushed" else drawn
        objects.append({"id": i, "image_id": i, "category_id": 1, **outline})
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "building"}]}
    (folder / "annotations.json").write_text(json.dumps(content))


BRUSHED = DataSet(
    "brushed",
    coco_pair,
    {"images": "images/*", "masks": "annotations.json", "label_values": {"building": "square"}},
    finish=brushed_json,
)


@BRUSHED.case("crowds-objects", "annotation 5 is marked iscrowd, but read as an object")
def object_that_was_brushed(pair):
    pass
