"""COCO instance annotations are drawn as pycocotools draws them, and damaged ones are refused before they do harm."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from segcore.constants import IGNORE
from segcore.data.raster import Info
from segcore.errors import DataError
from segcore.io.annotations import coco, open_labels, read_labels
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
    images = images or [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES, **over})
    )
    return path


def labels(path, data=None, image="a.png", info=IMAGE):
    return read_labels(path, path.with_name("images") / image, info, data or data_for())


def notes(path):
    with open_labels(path, path.with_name("a.png"), IMAGE, data_for()) as source:
        return source.notes


def fails(path, kind, *texts, data=None, image="a.png", info=IMAGE):
    with pytest.raises(DataError) as caught:
        labels(path, data, image, info)
    error = caught.value
    assert error.kind == kind and error.what.startswith(path.name), error
    for text in texts:
        assert text in str(error), error


def random_mask(seed=0):
    return np.random.default_rng(seed).random((HEIGHT, WIDTH)) > 0.6


def counts_of(mask):
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes, [mask.size]]))[: len(changes) + 1].tolist()


def plain(mask):
    return {"size": [HEIGHT, WIDTH], "counts": counts_of(mask)}


def packed(mask):
    return {
        "size": [HEIGHT, WIDTH],
        "counts": coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode(),
    }


def square(column, row, width, height):
    return [[column, row, column + width, row, column + width, row + height, column, row + height]]


def square_mask(column, row, width, height):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[row : row + height, column : column + width] = True
    return mask


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


@pytest.mark.parametrize("height, width", [(3000, 2000), (1, 70000)])
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


def test_later_objects_lie_on_top_and_number_objects_in_file_order(tmp_path):
    path = save(
        tmp_path / "c.json",
        [annotation(square(0, 0, 20, 20), 3, 11), annotation(square(10, 10, 20, 20), 7, 5)],
    )
    found = labels(path)
    expected = np.where(square_mask(10, 10, 20, 20), 2, square_mask(0, 0, 20, 20).astype(int))
    np.testing.assert_array_equal(found.instances, expected)
    np.testing.assert_array_equal(found.classes, expected)


def test_crowds_are_ignored_and_lie_below_all_objects(tmp_path):
    path = save(
        tmp_path / "c.json",
        [
            annotation(square(10, 10, 10, 10), 3, 1),
            annotation(plain(square_mask(5, 5, 30, 30)), 99, 2, iscrowd=1),
        ],
    )
    found = labels(path)
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


def entry(name, number=1):
    return {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH}


@pytest.mark.parametrize(
    "name", ["a.png", "images/a.png", "./a.png", "/home/me/export/a.png", "export\\a.png"]
)
def test_images_are_found_by_name_with_or_without_folders(tmp_path, name):
    path = save(tmp_path / "c.json", [annotation(square(0, 0, 9, 9))], [entry(name)])
    assert labels(path).classes.sum() == 81


def test_folders_tell_images_of_one_name_apart(tmp_path):
    images = [entry("export/x/a.png", 1), entry("export/y/a.png", 2)]
    objects = [
        annotation(square(0, 0, 9, 9)),
        annotation(square(0, 0, 5, 5), number=2, image_id=2),
    ]
    path = save(tmp_path / "c.json", objects, images)
    assert labels(path, image="x/a.png").classes.sum() == 81
    assert labels(path, image="y/a.png").classes.sum() == 25
    fails(path, "not-annotated", "only in other folders", "export/x/a.png", image="z/a.png")


def test_images_that_are_missing_or_named_twice_are_refused(tmp_path):
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


@pytest.mark.parametrize(
    "outline, text",
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


def test_no_damage_to_a_compressed_mask_reaches_another_error(tmp_path):
    good = packed(random_mask())["counts"]
    rng = np.random.default_rng(0)
    data, caught = data_for(), 0
    for i in range(100):
        text = list(good)
        for place in rng.integers(0, len(text), 3):
            text[place] = chr(rng.integers(1, 127))
        outline = {"size": [HEIGHT, WIDTH], "counts": "".join(text[: rng.integers(1, len(text) + 1)])}
        path = save(tmp_path / f"{i}.json", [annotation(outline)])
        try:
            labels(path, data)
        except DataError as error:
            assert error.kind == "bad-run-length"
            caught += 1
    assert caught > 90


@pytest.mark.parametrize(
    "outline",
    [[[1, 2, 3]], [["a", "b"]], [[[1, 2], [3, 4]]], [1, 2, 3, 4, 5, 6], "text", [[1, 2, 3, 4, 5, None]]],
)
def test_outlines_that_are_no_coordinates_are_refused(tmp_path, outline):
    path = save(tmp_path / "c.json", [annotation(outline, number=8)])
    fails(path, "polygons-unreadable", "annotation 8", "x, y")


def test_coordinates_that_are_not_finite_are_refused(tmp_path):
    path = save(tmp_path / "c.json", [annotation([[1, 2, float("nan"), 4, 5, float("inf")]], number=8)])
    fails(path, "polygons-unreadable", "annotation 8")


def test_boxes_alone_are_refused_and_single_ones_noted(tmp_path):
    boxes = [annotation([], number=i, bbox=[0, 0, 9, 9]) for i in (1, 2)]
    del boxes[0]["segmentation"]
    fails(save(tmp_path / "c.json", boxes), "polygons-unreadable", "no outlines", "1, 2", "boxes")
    mixed = save(tmp_path / "d.json", [*boxes, annotation(square(0, 0, 9, 9), number=3)])
    assert notes(mixed) == [("polygons-invalid", "annotations without an outline were left out: 1, 2")]


def test_objects_beside_the_image_are_noted(tmp_path):
    path = save(
        tmp_path / "c.json",
        [annotation(square(60, 50, 5, 5), number=4), annotation(square(0, 0, 9, 9), number=5)],
    )
    assert notes(path) == [("polygons-outside", "annotations that cover no pixel: 4")]
    assert labels(path).classes.sum() == 81


@pytest.mark.parametrize(
    "content, text",
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
def test_files_that_are_no_coco_annotations_are_refused(tmp_path, content, text):
    path = tmp_path / "c.json"
    path.write_text(content)
    fails(path, "polygons-unreadable", text)


def test_bytes_that_are_no_text_and_empty_files_are_refused(tmp_path):
    path = tmp_path / "c.json"
    path.write_bytes(b"\xff\xfe\x00garbage")
    fails(path, "polygons-unreadable", "is not JSON")
    empty = tmp_path / "d.json"
    empty.write_bytes(b"")
    fails(empty, "empty-file")


def test_a_file_is_parsed_once_until_it_changes(tmp_path):
    coco._parsed.cache_clear()
    path = save(tmp_path / "c.json", [annotation(square(0, 0, 9, 9))])
    for _ in range(5):
        assert labels(path).classes.sum() == 81
    assert coco._parsed.cache_info().misses == 1
    save(path, [annotation(square(0, 0, 10, 10), number=77)])
    assert labels(path).classes.sum() == 100
