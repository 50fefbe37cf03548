"""Lines of YOLO's text for segmentation are objects; boxes and other numbers are refused with the reason."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from segcore.ingest import catalog
from tests.support.coco import HEIGHT, WIDTH, data_for, square_mask
from tests.support.drawn import CAR, TREE, opened, refused, yolo
from tests.support.tiny import make_pairs, params_for

SQUARE, OTHER = square_mask(5, 5, 10, 10), square_mask(30, 5, 10, 20)
DATA = data_for({0: "car", 1: "tree"})


def test_lines_are_objects_and_class_numbers_are_keys(tmp_path):
    path = yolo(tmp_path / "a.txt", (0, CAR), ("1.0", TREE))
    found, notes, counts = opened(path, DATA)
    np.testing.assert_array_equal(found.classes, SQUARE + 2 * OTHER)
    np.testing.assert_array_equal(found.instances, SQUARE + 2 * OTHER)
    assert notes == [] and counts == {"0": 1, "1": 1}


def test_outlines_are_drawn_as_pycocotools_draws_them(tmp_path):
    corners = [[5.5, 4.2], [44.1, 8.8], [30.3, 36.6], [3.3, 20.1]]
    flat = [value / size * size for x, y in corners for value, size in ((x, WIDTH), (y, HEIGHT))]
    expected = coco_mask.decode(coco_mask.frPyObjects([flat], HEIGHT, WIDTH))[..., 0]
    found = opened(yolo(tmp_path / "a.txt", (0, corners)), DATA)[0].classes
    # coordinates in the file are rounded
    assert (found != expected).sum() <= 3 and expected.sum() > 500


def test_a_file_without_lines_has_no_objects(tmp_path):
    for text in ("", "\n \n"):
        (tmp_path / "a.txt").write_text(text)
        found, notes, counts = opened(tmp_path / "a.txt", DATA)
        assert not found.classes.any() and notes == [] and counts == {}


def test_coordinates_outside_are_clipped_and_counted(tmp_path):
    path = yolo(tmp_path / "a.txt", (0, CAR), (1, [[40, 30], [60, 30], [60, 50], [40, 50]]))
    found, notes, _ = opened(path, DATA)
    assert (found.instances == 2).sum() == 10 * 10
    assert notes == [("polygons-outside", "1 lines reach outside of the image and were clipped: 2")]


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("0 0.5 0.5 0.2 0.2", "line 2 is a box (a class and four numbers)"),
        ("0 0.1 0.1 0.2 0.2 0.3", "line 2 has 5 coordinates"),
        ("0", "line 2 has 0 coordinates"),
        ("0 5 5 15 5 15 15 5 15", "coordinates from 5 to 15"),
        ("0 nan 0.1 0.2 0.2 0.3 0.1", "coordinates from nan"),
        ("car 0.1 0.1 0.2 0.1 0.2 0.2", "line 2 is not a class and coordinates"),
        ("0.5 0.1 0.1 0.2 0.1 0.2 0.2", "line 2 is not a class and coordinates"),
    ],
)
def test_other_lines_are_refused_with_the_reason(tmp_path, line, part):
    path = yolo(tmp_path / "a.txt", (0, CAR))
    path.write_text(path.read_text() + "\n" + line)
    refused(path, "polygons-unreadable", part, data=DATA)


def test_undeclared_classes_and_bytes_that_are_no_text_are_refused(tmp_path):
    refused(yolo(tmp_path / "a.txt", (7, CAR)), "unknown-category", "7 (1)", data=DATA)
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    refused(tmp_path / "b.txt", "polygons-unreadable", "is not text", data=DATA)
    refused(tmp_path / "c.txt", "unreadable", "cannot be read", data=DATA)


def test_an_image_without_objects_is_accepted_by_the_ingest(tmp_path):
    make_pairs(tmp_path / "s", 3)
    (tmp_path / "s/labels").mkdir()
    for i in range(3):
        yolo(tmp_path / f"s/labels/a{i}.txt", *([(0, CAR)] if i else []))
    over = {"masks": "labels/{stem}.txt", "label_values": {0: 1}}
    data = params_for(tmp_path / "s", data=over).data.model_copy(update={"label_values": {0: 1}})
    table = catalog.build(data, tmp_path / "s", tmp_path / "work").set_index("id")
    assert (table["status"] == "accepted").all(), list(table["reason"])
    assert table["objects"].tolist() == [0, 1, 1] and '"empty-mask"' in table.loc["a0", "notes"]
    assert table.loc["a1", "label_counts"] == '{"0": 1}'
