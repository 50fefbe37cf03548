"""Damaged COCO annotations are refused or noted, before pycocotools reads them."""

import numpy as np
import pytest

from segcore.data.raster import Info
from segcore.errors import DataError
from segcore.io.annotations import open_labels
from tests.support.coco import (
    HEIGHT,
    WIDTH,
    annotation,
    data_for,
    fails,
    labels,
    notes,
    packed,
    random_mask,
    save,
    square,
)


@pytest.mark.parametrize(
    ("outline", "text"),
    [
        ({"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}, "has size [50, 40]"),
        ({"counts": [HEIGHT * WIDTH]}, "has size None"),
        ({"size": [HEIGHT, WIDTH], "counts": [5, 5]}, "sums to 10 pixels, but the image has 2000"),
        ({"size": [HEIGHT, WIDTH], "counts": [-5, HEIGHT * WIDTH + 5]}, "not numbers from 0 to 2000"),
        ({"size": [HEIGHT, WIDTH], "counts": [2**70]}, "not numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": [1.5, 1998.5]}, "not numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": {"a": 1}}, "not numbers"),
        ({"size": [HEIGHT, WIDTH]}, "not numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": ""}, "sums to 0"),
        ({"size": [HEIGHT, WIDTH], "counts": "05"}, "sums to 5 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": "PPPPP"}, "cut off"),
        ({"size": [HEIGHT, WIDTH], "counts": "oooooooooooo0"}, "larger than any image"),
        ({"size": [HEIGHT, WIDTH], "counts": "\x01\x02 "}, "invalid characters"),
        ({"size": [HEIGHT, WIDTH], "counts": "ü"}, "invalid characters"),
    ],
)
def test_run_length_masks_that_do_not_fit_are_refused(tmp_path, outline, text):
    path = save(tmp_path / "c.json", [annotation(outline, number=12)])
    fails(path, "bad-run-length", "annotation 12", text)


def test_damaged_compressed_masks_raise_no_other_error(tmp_path):
    good = packed(random_mask())["counts"]
    rng = np.random.default_rng(0)
    data, kinds = data_for(), []
    for i in range(100):
        text = list(good)
        for position in rng.integers(0, len(text), 3):
            text[position] = chr(rng.integers(1, 127))
        outline = {"size": [HEIGHT, WIDTH], "counts": "".join(text[: rng.integers(1, len(text) + 1)])}
        path = save(tmp_path / f"{i}.json", [annotation(outline)])
        try:
            labels(path, data)
        except DataError as error:
            kinds.append(error.kind)
    assert set(kinds) == {"bad-run-length"} and len(kinds) > 90


@pytest.mark.parametrize(
    "outline",
    [[[1, 2, 3]], [["a", "b"]], [[[1, 2], [3, 4]]], [1, 2, 3, 4, 5], "text", [[1, 2, 3, 4, 5, None]]],
)
def test_outlines_that_are_not_coordinates_are_refused(tmp_path, outline):
    path = save(tmp_path / "c.json", [annotation(outline, number=8)])
    fails(path, "polygons-unreadable", "annotation 8", "x, y")


def fractions(outline):
    return [[v / (WIDTH, HEIGHT)[i % 2] for i, v in enumerate(part)] for part in outline]


def test_coordinates_that_are_fractions_of_the_image_are_refused_with_their_remedy(tmp_path):
    whole, small = fractions(square(0, 0, WIDTH, HEIGHT)), fractions(square(5, 5, 10, 10))
    for number, outlines in enumerate(([whole], [small], [small[0], whole], [whole, small])):
        path = save(tmp_path / f"{number}.json", [annotation(outline) for outline in outlines])
        fails(path, "size-mismatch", "fractions", f"{HEIGHT} x {WIDTH}", "multiply x by the width")


def test_a_file_with_one_coordinate_in_pixels_is_in_pixels(tmp_path):
    objects = [annotation(square(0, 0, 1, 1)), annotation(square(30, 5, 10, 20), number=2, image_id=2)]
    assert labels(save(tmp_path / "c.json", objects)).classes.sum() == 1
    flat = annotation(square(30, 5, 10, 20)[0], number=2, image_id=2)
    assert labels(save(tmp_path / "d.json", [objects[0], flat])).classes.sum() == 1


def test_coordinates_that_may_be_percent_are_noted_where_images_are_much_larger(tmp_path):
    path = save(tmp_path / "c.json", [annotation(square(20, 30, 60, 70))], [{"id": 1, "file_name": "a.png"}])
    with open_labels(path, path.with_name("a.png"), Info(600, 800, 3, "uint8"), data_for()) as source:
        ((kind, text),) = source.notes
    assert kind == "maybe-percent" and "at most 100" in text and "600 x 800" in text
    with open_labels(path, path.with_name("a.png"), Info(120, 130, 3, "uint8"), data_for()) as source:
        assert source.notes == []


def test_coordinates_that_are_not_finite_are_refused(tmp_path):
    path = save(tmp_path / "c.json", [annotation([[1, 2, float("nan"), 4, 5, float("inf")]], number=8)])
    fails(path, "polygons-unreadable", "annotation 8")


def test_boxes_alone_are_refused_and_single_ones_noted(tmp_path):
    boxes = [annotation([], number=i, bbox=[0, 0, 9, 9]) for i in (1, 2)]
    del boxes[0]["segmentation"]
    fails(save(tmp_path / "c.json", boxes), "polygons-unreadable", "no outlines", "1, 2", "boxes")
    mixed = save(tmp_path / "d.json", [*boxes, annotation(square(0, 0, 9, 9), number=3)])
    assert notes(mixed) == [("polygons-invalid", "annotations without an outline were left out: 1, 2")]


def test_objects_outside_the_image_are_noted(tmp_path):
    path = save(
        tmp_path / "c.json",
        [annotation(square(60, 50, 5, 5), number=4), annotation(square(0, 0, 9, 9), number=5)],
    )
    assert notes(path) == [("polygons-outside", "annotations that cover no pixel: 4")]
    assert labels(path).classes.sum() == 81


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "not COCO"),
        ('{"images": []}', "`images` and `annotations`"),
        ('{"type": "Feature", "stac_version": "1.0.0"}', "STAC item"),
        ('{"type": "FeatureCollection", "features": []}', "rename it to end in .geojson"),
        ('{"images": [{"id": 1}], "annotations": []}', "lacks 'file_name'"),
        ('{"images": [{"file_name": "a.png"}], "annotations": []}', "lacks 'id'"),
        ('{"images": [1], "annotations": []}', "not COCO"),
        ('{"images": [], "annotations": [{"id": 1}]}', "lacks 'image_id'"),
        ('{"images": [], "annotations": [], "categories": 5}', "not COCO"),
    ],
)
def test_files_that_are_not_coco_annotations_are_refused(tmp_path, content, text):
    path = tmp_path / "c.json"
    path.write_text(content)
    fails(path, "polygons-unreadable", text)


def test_undecodable_bytes_and_empty_files_are_refused(tmp_path):
    path = tmp_path / "c.json"
    path.write_bytes(b"\xff\xfe\x00garbage")
    fails(path, "polygons-unreadable", "is not JSON")
    empty = tmp_path / "d.json"
    empty.write_bytes(b"")
    fails(empty, "empty-file")
