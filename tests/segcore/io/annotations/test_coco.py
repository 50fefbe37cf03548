"""COCO instance annotations are drawn as pycocotools draws them."""

import unicodedata

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from segcore.constants import IGNORE
from segcore.data.raster import Info
from segcore.io.annotations import coco, open_labels
from tests.support.coco import (
    HEIGHT,
    IMAGE,
    WIDTH,
    annotation,
    data_for,
    fails,
    labels,
    notes,
    packed,
    plain,
    random_mask,
    save,
    square,
    square_mask,
)


@pytest.mark.parametrize("encode", [plain, packed])
@pytest.mark.parametrize("kind", ["random", "empty", "full", "first", "last", "tall"])
def test_run_length_masks_are_their_pixels(tmp_path, encode, kind):
    mask = {
        "random": random_mask(),
        "empty": np.zeros((HEIGHT, WIDTH), bool),
        "full": np.ones((HEIGHT, WIDTH), bool),
        "first": square_mask(0, 0, 1, 1),
        "last": square_mask(WIDTH - 1, HEIGHT - 1, 1, 1),
        "tall": square_mask(3, 0, 20, HEIGHT),
    }[kind]
    found = labels(save(tmp_path / "c.json", [annotation(encode(mask))]))
    np.testing.assert_array_equal(found.classes, mask)
    np.testing.assert_array_equal(found.instances, mask)
    assert (found.classes.dtype, found.instances.dtype) == (np.uint8, np.uint32)


@pytest.mark.parametrize(("height", "width"), [(3000, 2000), (1, 70000)])
def test_long_runs_of_compressed_masks_are_read(tmp_path, height, width):
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[height // 3 :, width // 7 : width // 2] = 1
    mask[:, -5:] = 1
    outline = {"size": [height, width], "counts": coco_mask.encode(mask)["counts"].decode()}
    path = save(tmp_path / "c.json", [annotation(outline)], [{"id": 1, "file_name": "a.png"}])
    np.testing.assert_array_equal(labels(path, info=Info(height, width, 3, "uint8")).classes, mask)


def test_polygons_are_drawn_as_pycocotools_draws_them(tmp_path):
    outline = [[5.5, 4.2, 44.1, 8.8, 30.3, 36.6, 3.3, 20.1], [40, 30, 49.5, 30, 49.5, 39.5]]
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(outline, HEIGHT, WIDTH)))
    found = labels(save(tmp_path / "c.json", [annotation(outline)]))
    np.testing.assert_array_equal(found.classes, expected)
    assert found.classes.any()


def test_later_objects_are_on_top_and_numbers_follow_file_order(tmp_path):
    path = save(
        tmp_path / "c.json",
        [annotation(square(0, 0, 20, 20), 3, 11), annotation(square(10, 10, 20, 20), 7, 5)],
    )
    found = labels(path)
    expected = np.where(square_mask(10, 10, 20, 20), 2, square_mask(0, 0, 20, 20).astype(int))
    np.testing.assert_array_equal(found.instances, expected)
    np.testing.assert_array_equal(found.classes, expected)


def test_crowds_are_ignored_and_below_all_objects(tmp_path):
    path = save(
        tmp_path / "c.json",
        [
            annotation(square(10, 10, 10, 10), 3, 1),
            annotation(plain(square_mask(5, 5, 30, 30)), 99, 2, iscrowd=1),
        ],
    )
    found = labels(path, data_for().model_copy(update={"crowds": "ignore"}))
    crowd, car = square_mask(5, 5, 30, 30), square_mask(10, 10, 10, 10)
    np.testing.assert_array_equal(found.classes, np.where(car, 1, np.where(crowd, IGNORE, 0)))
    np.testing.assert_array_equal(found.instances, car)


def test_windows_are_parts_of_the_whole(tmp_path):
    path = save(
        tmp_path / "c.json", [annotation(packed(random_mask(i)), 3 + 4 * (i % 2), i) for i in range(5)]
    )
    whole = labels(path)
    with open_labels(path, tmp_path / "a.png", IMAGE, data_for()) as source:
        part = source.read((7, 13, 20, 30))
    np.testing.assert_array_equal(part.classes, whole.classes[7:27, 13:43])
    np.testing.assert_array_equal(part.instances, whole.instances[7:27, 13:43])
    assert set(np.unique(whole.instances)) == set(range(6))


@pytest.mark.parametrize(
    "label_values", [{"tree": 2}, {7: 2}, {"7": "tree"}, {"others": 2}, {"tree": 2, 7: 1}]
)
def test_categories_are_declared_by_name_or_id(tmp_path, label_values):
    path = save(tmp_path / "c.json", [annotation(square(0, 0, 9, 9), 7)])
    assert labels(path, data_for(label_values)).classes[3, 3] == 2


def test_undeclared_categories_are_counted(tmp_path):
    objects = [
        annotation(square(0, 0, 9, 9), 7, 1),
        annotation(square(9, 9, 9, 9), 7, 2),
        annotation(square(0, 0, 9, 9), 55, 3),
    ]
    path = save(tmp_path / "c.json", objects)
    data = data_for({"car": 1})
    fails(path, "unknown-category", "a.png", "'tree' (id 7) (2)", "id 55 (1)", data=data)


def test_an_image_without_annotations_is_background(tmp_path):
    found = labels(save(tmp_path / "c.json", []))
    assert not found.classes.any() and not found.instances.any()


def test_one_polygon_needs_no_list_of_polygons(tmp_path):
    found = labels(save(tmp_path / "c.json", [annotation(square(5, 5, 10, 10)[0])]))
    np.testing.assert_array_equal(found.classes, square_mask(5, 5, 10, 10))


def entry(name, number=1):
    return {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH}


@pytest.mark.parametrize(
    "name", ["a.png", "images/a.png", "./a.png", "/home/me/export/a.png", "export\\a.png"]
)
def test_images_are_matched_by_name_with_or_without_folders(tmp_path, name):
    path = save(tmp_path / "c.json", [annotation(square(0, 0, 9, 9))], [entry(name)])
    assert labels(path).classes.sum() == 81


def test_folders_distinguish_images_of_the_same_name(tmp_path):
    images = [entry("export/x/a.png", 1), entry("export/y/a.png", 2)]
    objects = [
        annotation(square(0, 0, 9, 9)),
        annotation(square(0, 0, 5, 5), number=2, image_id=2),
    ]
    path = save(tmp_path / "c.json", objects, images)
    assert labels(path, image="x/a.png").classes.sum() == 81
    assert labels(path, image="y/a.png").classes.sum() == 25
    fails(path, "not-annotated", "only in other folders", "export/x/a.png", image="z/a.png")


def test_images_that_are_missing_or_listed_twice_are_refused(tmp_path):
    missing = save(tmp_path / "c.json", [], [entry("b.png")])
    fails(missing, "not-annotated", "does not list the image a.png", "b.png")
    twice = save(tmp_path / "d.json", [], [entry("a.png", 4), entry("a.png", 9)])
    fails(twice, "not-annotated", "2 times", "ids 4, 9")


def test_ids_may_be_numbers_or_texts(tmp_path):
    path = save(tmp_path / "c.json", [annotation(square(0, 0, 9, 9), "3", image_id="1")])
    assert labels(path).classes.sum() == 81


def test_another_size_is_refused(tmp_path):
    path = save(tmp_path / "c.json", [])
    fails(path, "size-mismatch", "40 x 50", "40 x 51", info=Info(40, 51, 3, "uint8"))
    far = save(tmp_path / "d.json", [annotation(square(400, 300, 90, 90))])
    fails(far, "size-mismatch", "annotation 1", "x 490, y 300", "40 x 50")


def test_a_file_is_parsed_once_until_it_changes(tmp_path):
    coco._parsed.cache_clear()
    path = save(tmp_path / "c.json", [annotation(square(0, 0, 9, 9))])
    for _ in range(5):
        assert labels(path).classes.sum() == 81
    assert coco._parsed.cache_info().misses == 1
    save(path, [annotation(square(0, 0, 10, 10), number=77)])
    assert labels(path).classes.sum() == 100


@pytest.mark.parametrize("name", ["A.PNG", "3f2a1b-a.png", "images/7/3f2a1b07-A.png"])
def test_the_only_entry_that_differs_in_case_or_an_upload_prefix_is_taken_with_a_note(tmp_path, name):
    path = save(tmp_path / "c.json", [annotation(square(0, 0, 9, 9))], [entry(name), entry("b.png", 2)])
    assert labels(path).classes.sum() == 81
    ((kind, text),) = notes(path)
    assert kind == "other-image" and name.rpartition("/")[2] in text and "lists no a.png" in text


def test_an_entry_of_another_existing_image_is_not_taken(tmp_path):
    path = save(tmp_path / "c.json", [annotation(square(0, 0, 9, 9))], [entry("A.PNG"), entry("x.png", 2)])
    (tmp_path / "images").mkdir()
    for name in ("a.png", "A.PNG"):
        (tmp_path / "images" / name).write_bytes(b"x")
    fails(path, "not-annotated", "most similar name is A.PNG", "give both the same name")
    assert labels(path, image="A.PNG").classes.sum() == 81


@pytest.mark.parametrize("names", [("A.PNG", "A.png"), ("3f2a1b-a.png", "4f2a1b-a.png"), ("20230101-a.png",)])
def test_several_entries_and_dates_are_not_taken(tmp_path, names):
    images = [entry(name, number) for number, name in enumerate(names, 1)]
    fails(save(tmp_path / "c.json", [], images), "not-annotated", "does not list the image a.png")


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_another_unicode_form_are_the_same(tmp_path, forms):
    listed, stored = (unicodedata.normalize(form, "Gebäude 1.png") for form in forms)
    path = save(tmp_path / "c.json", [annotation(square(0, 0, 9, 9))], [entry(listed)])
    with open_labels(path, tmp_path / stored, IMAGE, data_for()) as source:
        assert source.read((0, 0, HEIGHT, WIDTH)).classes.sum() == 81 and source.notes == []


def test_panoptic_annotations_are_refused_with_what_to_export(tmp_path):
    segments = [{"id": 3, "category_id": 1, "iscrowd": 0, "area": 196, "bbox": [1, 1, 2, 2]}]
    panoptic = [{"image_id": 1, "file_name": "a.png", "segments_info": segments}]
    path = save(tmp_path / "c.json", panoptic)
    fails(path, "polygons-unreadable", "COCO panoptic", "segments_info", "convert it to COCO instances")


def test_a_category_whose_name_is_a_number_is_looked_up_by_name(tmp_path):
    categories = [{"id": 1, "name": "2"}, {"id": 5, "name": "9"}]
    outline = square(0, 0, 9, 9)
    path = save(tmp_path / "c.json", [annotation(outline, category=1)], categories=categories)
    assert labels(path, data_for({"2": "tree", "9": "car"})).classes.max() == 2


def test_a_category_whose_name_is_the_key_of_another_class_than_its_id_is_refused(tmp_path):
    categories = [{"id": 1, "name": "2"}, {"id": 2, "name": "1"}]
    path = save(tmp_path / "c.json", [annotation(square(0, 0, 9, 9), category=1)], categories=categories)
    fails(path, "unknown-category", "id 1 has the name '2'", data=data_for({"1": "tree", "2": "car"}))


def test_names_with_blanks_at_their_ends_are_in_quotes(tmp_path):
    path = save(
        tmp_path / "c.json",
        [annotation(square(0, 0, 9, 9), category=3)],
        categories=[{"id": 3, "name": "car "}],
    )
    fails(path, "unknown-category", "'car '")
