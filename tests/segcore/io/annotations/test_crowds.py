"""Crowds of COCO are ignored; brushed objects that an exporter marked as crowds are objects."""

import numpy as np
import pytest

from segcore.constants import IGNORE
from segcore.io.annotations import open_labels
from tests.support.coco import (
    IMAGE,
    annotation,
    data_for,
    labels,
    notes,
    packed,
    plain,
    save,
    square,
    square_mask,
)

CAR, TREE = square_mask(5, 5, 10, 10), square_mask(30, 5, 10, 20)


def settings(crowds=None):
    return data_for().model_copy(update={"crowds": crowds})


@pytest.mark.parametrize("iscrowd", [1, True, "1", "true", 1.0])
def test_where_all_run_length_masks_of_a_file_are_crowds_they_are_objects(tmp_path, iscrowd):
    crowds = [annotation(plain(CAR), 3, 1, iscrowd=iscrowd), annotation(packed(TREE), 7, 2, iscrowd=iscrowd)]
    path = save(tmp_path / "c.json", crowds)
    found = labels(path)
    np.testing.assert_array_equal(found.classes, CAR + 2 * TREE)
    np.testing.assert_array_equal(found.instances, CAR + 2 * TREE)
    reason = "because all run-length masks of the file are marked so"
    text = f"2 annotations (ids 1, 2) are marked iscrowd, but read as objects, {reason}"
    assert notes(path) == [("crowds-objects", text)]
    assert notes(path, settings("objects"))[0][1].endswith("because data.crowds is `objects`")


@pytest.mark.parametrize("iscrowd", [0, False, "0", "false", None])
def test_other_values_of_iscrowd_mark_no_crowd(tmp_path, iscrowd):
    path = save(tmp_path / "c.json", [annotation(square(5, 5, 10, 10), iscrowd=iscrowd)])
    np.testing.assert_array_equal(labels(path, settings("ignore")).classes, CAR)
    assert notes(path) == []


def test_brushed_objects_beside_polygons_are_objects_too(tmp_path):
    path = save(
        tmp_path / "c.json",
        [annotation(square(5, 5, 10, 10), iscrowd=0), annotation(plain(TREE), 7, 2, iscrowd=1)],
    )
    np.testing.assert_array_equal(labels(path).classes, CAR + 2 * TREE)
    assert [kind for kind, _ in notes(path)] == ["crowds-objects"]


def test_where_one_run_length_mask_is_an_object_crowds_are_ignored_and_counted(tmp_path):
    other_image = annotation(plain(CAR), 3, 3, iscrowd=0, image_id=2)
    crowds = [annotation(plain(CAR), 3, 1, iscrowd=1), annotation(square(30, 5, 10, 20), 7, 2, iscrowd="1")]
    path = save(tmp_path / "c.json", [*crowds, other_image])
    np.testing.assert_array_equal(labels(path).classes == IGNORE, CAR | TREE)
    assert notes(path) == [("crowds-ignored", "2 annotations (ids 1, 2) are marked iscrowd and ignored")]
    one = save(tmp_path / "one.json", [crowds[1], other_image])
    assert notes(one) == [("crowds-ignored", "annotation 2 is marked iscrowd and ignored")]


def test_the_setting_decides_over_the_file(tmp_path):
    path = save(tmp_path / "c.json", [annotation(plain(CAR), iscrowd=1)])
    np.testing.assert_array_equal(labels(path, settings("ignore")).classes == IGNORE, CAR)
    polygon = save(tmp_path / "d.json", [annotation(square(5, 5, 10, 10), iscrowd=1)])
    np.testing.assert_array_equal(labels(polygon).classes == IGNORE, CAR)
    np.testing.assert_array_equal(labels(polygon, settings("objects")).classes, CAR)


def test_crowds_of_coco_itself_are_ignored(tmp_path):
    crowd = [annotation(plain(CAR), iscrowd=1), annotation(square(30, 5, 10, 20), 7, 2)]
    path = save(tmp_path / "c.json", crowd, info={"url": "http://cocodataset.org", "year": 2017})
    np.testing.assert_array_equal(labels(path).classes, np.where(CAR, IGNORE, 2 * TREE))
    assert [kind for kind, _ in notes(path)] == ["crowds-ignored"]


def test_objects_are_counted_by_their_category_as_it_stands_in_the_file(tmp_path):
    objects = [annotation(square(5, 5, 9, 9), number=i) for i in (1, 2)]
    path = save(
        tmp_path / "c.json", [*objects, annotation(square(5, 5, 9, 9), 7), annotation(square(0, 0, 9, 9), 55)]
    )
    with open_labels(path, tmp_path / "a.png", IMAGE, data_for({"others": 1})) as source:
        assert source.found == {"car": 2, "tree": 1, "id 55": 1}


def test_annotations_that_reach_outside_are_clipped_and_counted(tmp_path):
    inside, across = annotation(square(5, 5, 9, 9)), annotation(square(45, 30, 20, 30), number=4)
    rounded = annotation([[0, 0, 50.4, 0, 50.4, 9, -0.3, 9]], number=5)
    path = save(tmp_path / "c.json", [inside, across, rounded])
    text = "1 annotations reach outside of the image and were clipped: 4"
    lost = "c.json: annotations that lose pixels to others drawn over them: 1 (1), 36 pixels in total"
    assert notes(path) == [("polygons-outside", text), ("objects-overlap", lost)]
    assert (labels(path).instances == 2).sum() == 5 * 10


def test_an_image_is_found_under_another_extension(tmp_path):
    images = [{"id": 1, "file_name": "x/a.jpg"}, {"id": 2, "file_name": "y/a.jpg"}]
    path = save(tmp_path / "c.json", [annotation(square(5, 5, 10, 10), image_id=2)], images)
    assert labels(path, image="y/a.tif").classes.sum() == 100
    assert labels(path, image="x/a.tif").classes.sum() == 0
