"""Shapes of labelme and of Cityscapes are drawn; those without an area are counted."""

import numpy as np
import pytest

from tests.support.coco import data_for, random_mask, square_mask
from tests.support.drawn import CAR, TREE, cityscapes, labelme, opened, png, refused, shape

SQUARE, OTHER = square_mask(5, 5, 10, 10), square_mask(30, 5, 10, 20)


@pytest.mark.parametrize("kind", ["polygon", None])
def test_polygons_are_objects_in_file_order(tmp_path, kind):
    path = labelme(tmp_path / "a.json", [shape("car", CAR, kind), shape("tree", TREE, kind)])
    found, notes, counts = opened(path)
    np.testing.assert_array_equal(found.classes, SQUARE + 2 * OTHER)
    np.testing.assert_array_equal(found.instances, SQUARE + 2 * OTHER)
    assert notes == [] and counts == {"car": 1, "tree": 1}


def test_later_shapes_are_on_top(tmp_path):
    path = labelme(
        tmp_path / "a.json", [shape("car", CAR), shape("tree", [[10, 5], [20, 5], [20, 15], [10, 15]])]
    )
    np.testing.assert_array_equal(opened(path)[0].classes[7, [7, 12, 17]], [1, 2, 2])


def test_rectangles_are_given_by_any_two_corners(tmp_path):
    path = labelme(tmp_path / "a.json", [shape("car", [[15, 5], [5, 15]], "rectangle")])
    np.testing.assert_array_equal(opened(path)[0].classes, SQUARE)


def test_circles_are_given_by_centre_and_edge(tmp_path):
    path = labelme(tmp_path / "a.json", [shape("car", [[25, 20], [25, 32]], "circle")])
    found = opened(path)[0].classes
    rows, columns = np.mgrid[:40, :50] + 0.5
    distance = np.hypot(rows - 20, columns - 25)
    clear = np.abs(distance - 12) > 0.8
    np.testing.assert_array_equal(found[clear], (distance < 12)[clear])
    assert found.sum() == pytest.approx(np.pi * 12**2, rel=0.03)


def test_masks_are_pictures_in_a_box(tmp_path):
    mask = random_mask()[:12, :9]
    path = labelme(tmp_path / "a.json", [shape("tree", [[20, 10], [28, 21]], "mask", mask=png(mask))])
    expected = np.zeros((40, 50), np.uint8)
    expected[10:22, 20:29] = 2 * mask
    np.testing.assert_array_equal(opened(path)[0].classes, expected)
    across = labelme(
        tmp_path / "b.json", [shape("tree", [[45, 35], [53, 46]], "mask", mask=png(mask | True))]
    )
    found, notes, _ = opened(across)
    assert found.instances.sum() == 5 * 5
    assert notes == [("polygons-outside", "1 masks reach outside of the image and were clipped")]


def test_shapes_of_a_group_with_one_label_are_one_object(tmp_path):
    grouped = [shape("car", CAR, group_id=7), shape("tree", TREE, group_id=7)]
    later = shape("car", [[5, 20], [15, 20], [15, 30], [5, 30]], group_id=7)
    found = opened(labelme(tmp_path / "a.json", [*grouped, later]))[0]
    assert found.instances[[7, 7, 25], [7, 35, 7]].tolist() == [1, 2, 1]
    assert found.classes[[7, 7, 25], [7, 35, 7]].tolist() == [1, 2, 1]


def test_shapes_without_an_area_are_counted(tmp_path):
    odd = [
        shape("x", [[1, 1]], "point"),
        shape("x", [[1, 1], [9, 9]], "line"),
        shape("x", [[1, 1]], "cuboid"),
    ]
    odd += [shape("x", [[1, 1]], "point"), shape("car", [[1, 1], [2, 2]])]
    _, notes, counts = opened(labelme(tmp_path / "a.json", [*odd, shape("car", CAR)]))
    text = "point (2), line (1), cuboid (1), polygon of less than three points (1)"
    assert notes == [("shapes-skipped", f"5 shapes without an area were left out: {text}")]
    assert counts == {"car": 1}


def test_annotations_of_another_image_are_noted(tmp_path):
    same = labelme(tmp_path / "a.json", [shape("car", CAR)], imagePath="..\\images\\a.JPG")
    assert opened(same)[1] == []
    other = labelme(tmp_path / "b.json", [shape("car", CAR)], imagePath="x/b.png")
    assert opened(other)[1] == [
        ("other-image", "the annotations name the image b.png, and were read for a.png")
    ]


def test_damaged_files_are_refused(tmp_path):
    def damaged(kind, *texts, shapes=(), **over):
        refused(labelme(tmp_path / "a.json", list(shapes), **over), kind, *texts)

    damaged("size-mismatch", "annotations 480 x 50, image 40 x 50", imageHeight=480)
    damaged("unknown-category", "bus (1)", shapes=[shape("bus", CAR)])
    damaged("polygons-unreadable", "shape 1 has no label", shapes=[{"points": CAR}])
    damaged("polygons-unreadable", "shape 1: is not a circle", shapes=[shape("car", [[1, 1]], "circle")])
    damaged("polygons-unreadable", "shape 1: is not a polygon", shapes=[shape("car", [["a", "b"]])])
    damaged("polygons-unreadable", "it lacks 'points'", shapes=[{"label": "car"}])
    damaged("polygons-unreadable", "shape 1", shapes=[shape("car", [[1, 1], [2, float("nan")], [3, 1]])])
    damaged("size-mismatch", "shape 1", "far outside", shapes=[shape("car", [[1, 1], [2e9, 2], [3, 1]])])
    box = [[5, 5], [14, 14]]
    damaged("polygons-unreadable", "not a PNG", shapes=[shape("car", box, "mask", mask="%%%")])
    damaged("polygons-unreadable", "not a PNG", shapes=[shape("car", box, "mask", mask="AAAA")])
    small = png(np.ones((3, 3), bool))
    damaged(
        "polygons-unreadable",
        "3 x 3 pixels in a box of 10 x 10",
        shapes=[shape("car", box, "mask", mask=small)],
    )
    huge = shape("car", [[0, 0], [1e5, 1e5]], "mask", mask=small)
    damaged("polygons-unreadable", "box of 100001 x 100001", shapes=[huge])
    damaged("polygons-unreadable", "it lacks 'mask'", shapes=[shape("car", box, "mask")])


def test_objects_of_cityscapes_are_drawn_in_file_order(tmp_path):
    path = cityscapes(tmp_path / "a_gtFine_polygons.json", ("car", CAR), ("tree", TREE), ("car", [[1, 1]]))
    found, notes, counts = opened(path)
    np.testing.assert_array_equal(found.instances, SQUARE + 2 * OTHER)
    assert notes == [
        ("shapes-skipped", "1 shapes without an area were left out: object without a polygon (1)")
    ]
    assert counts == {"car": 1, "tree": 1}
    refused(cityscapes(tmp_path / "b.json", imgWidth=51), "size-mismatch", "annotations 40 x 51")
    refused(cityscapes(tmp_path / "c.json", ("car", [1, 2])), "polygons-unreadable", "object 1")


def test_json_of_no_known_format_is_refused_with_what_it_is(tmp_path):
    for text, part in (
        ('{"a": 1}', "`shapes` of labelme"),
        ("[]", "is not COCO annotations"),
        ('[{"annotations": [{"result": []}], "data": {}}]', "Label Studio"),
        ('{"type": "FeatureCollection", "features": []}', "rename it to end in .geojson"),
    ):
        (tmp_path / "a.json").write_text(text)
        refused(tmp_path / "a.json", "polygons-unreadable", part)


def test_labels_may_be_caught_by_others(tmp_path):
    path = labelme(tmp_path / "a.json", [shape("bus", CAR), shape(3, TREE)])
    assert opened(path, data_for({"others": 1, 3: "tree"}))[0].classes[7, [7, 35]].tolist() == [1, 2]


def test_coordinates_that_are_fractions_are_refused(tmp_path):
    corners = [[0.1, 0.125], [0.3, 0.125], [0.3, 0.375]]
    path = labelme(tmp_path / "a.json", [shape("car", corners)])
    refused(path, "size-mismatch", "fractions", "multiply x by the width")
    assert opened(labelme(tmp_path / "b.json", [shape("car", corners), shape("tree", TREE)]))[0].classes.any()
