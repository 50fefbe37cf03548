"""What objects lose where they overlap is counted exactly, in every format that can have overlaps."""

import re
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image
from pycocotools import mask as coco_mask

from segcore.data.raster import Info
from segcore.io.annotations import open_labels
from segcore.io.annotations._parts import open_parts
from segcore.io.images import open_source
from tests.support import coco, drawn
from tests.support.dicom import stack
from tests.support.polygons import IMAGE, data_for, on_map, save
from tests.support.tiny import params_for
from tests.support.volumes import write_seg, write_series


def counts(notes) -> dict[str, list[int]]:
    """Numbers in the notes on overlaps by kind, without those of objects in brackets."""
    return {
        kind: [int(number) for number in re.findall(r"\d+", re.sub(r"^\S+: |\([^)]*\)", "", text))]
        for kind, text in notes
        if kind.startswith("objects-")
    }


def expected(covered: list[np.ndarray]) -> dict[str, list[int]]:
    """The same by the definition: each object's own pixels, less those of all later ones."""
    below = np.zeros_like(covered[0])
    lost, hidden, empty = [], 0, 0
    for mask in reversed(covered):
        lost.append(int((mask & below).sum()))
        hidden += bool(mask.any() and not (mask & ~below).any())
        empty += not mask.any()
        below = below | mask
    found = {}
    if any(lost):
        found["objects-overlap"] = [sum(n > 0 for n in lost), sum(lost)]
    if hidden or empty:
        found["objects-vanished"] = [n for n in (hidden, empty) if n]
    return found


def windows(size: int) -> list[tuple[int, int, int, int]]:
    return [
        (row, col, min(size, 60 - row), min(size, 80 - col))
        for row in range(0, 60, size)
        for col in range(0, 80, size)
    ]


def read(path: Path, size: int = 100):
    with open_labels(path, path.with_name("scene.tif"), IMAGE, data_for()) as source:
        parts = [source.read(window).instances for window in windows(size)]
        # a window that is read again counts once
        source.read(windows(size)[0])
        return parts[0], source.notes


@pytest.mark.parametrize("size", [100, 17])
@pytest.mark.parametrize("seed", range(4))
def test_what_polygons_lose_is_counted_whatever_the_windows(tmp_path, seed, size):
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(25):
        x, y = rng.uniform(2, 55, 2)
        side = rng.choice([0.2, 6, 14, 20])
        shape = shapely.box(x, y * 0.6, x + side, y * 0.6 + side)
        shapes.append(shapely.buffer(shape, -0.05) if rng.random() < 0.5 else shape)
    alone = [read(save(tmp_path / f"{i}.gpkg", [on_map(shape)]))[0] > 0 for i, shape in enumerate(shapes)]
    _, notes = read(save(tmp_path / "all.gpkg", [on_map(shape) for shape in shapes]), size)
    wanted = expected(alone)
    assert wanted["objects-overlap"][1] > 200 and len(wanted["objects-vanished"]) >= 1
    assert counts(notes) == wanted


def test_polygons_side_by_side_lose_nothing(tmp_path):
    shapes = [on_map(shapely.box(x, 5, x + 10, 30)) for x in (0, 10, 20)]
    assert read(save(tmp_path / "p.gpkg", shapes), 17)[1] == []


def test_a_hidden_polygon_and_one_without_a_pixel_are_named(tmp_path):
    below, above, sliver = (
        shapely.box(10, 10, 20, 20),
        shapely.box(5, 5, 30, 30),
        shapely.box(40, 40.1, 60, 40.4),
    )
    # one at the edge of the image may have its pixels beyond it
    beyond = shapely.box(-30, 10, 0.3, 20)
    path = save(tmp_path / "p.gpkg", [on_map(shape) for shape in (below, above, sliver, beyond)])
    assert read(path)[1] == [
        (
            "objects-overlap",
            "p.gpkg: polygons that lose pixels to others drawn over them: 1 (1), 100 pixels in total",
        ),
        (
            "objects-vanished",
            "p.gpkg: polygons that have no pixel and are no objects: 1 (1) hidden by others, 1 (3) that cover "
            "no pixel",
        ),
    ]


@pytest.mark.parametrize("seed", range(3))
def test_what_annotations_of_coco_lose_is_counted(tmp_path, seed):
    rng = np.random.default_rng(seed)
    corners = rng.integers([0, 0], [38, 28], (20, 2))
    sides = rng.choice([2, 5, 12], (20, 2))
    boxes = [coco_square(x, y, w, h) for (x, y), (w, h) in zip(corners.tolist(), sides.tolist(), strict=True)]
    boxes.append([[7.6, 3, 7.9, 3, 7.9, 9, 7.6, 9]])
    crowd = coco.annotation(coco_square(0, 0, 49, 39), number=90, iscrowd=1)
    objects = [coco.annotation(outline, number=i) for i, outline in enumerate(boxes, 1)]
    notes = coco.notes(coco.save(tmp_path / "c.json", [*objects, crowd]))
    masks = []
    for outline in boxes:
        runs = coco_mask.merge(coco_mask.frPyObjects(outline, coco.HEIGHT, coco.WIDTH))
        masks.append(coco_mask.decode(runs).astype(bool))
    assert counts(notes) == expected(masks) and counts(notes)["objects-overlap"][1] > 0


def coco_square(x, y, width, height):
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def test_shapes_of_one_object_are_counted_once_where_they_overlap(tmp_path):
    one = [[5, 5], [15, 5], [15, 15], [5, 15]]
    other = [[10, 5], [20, 5], [20, 15], [10, 15]]
    shapes = [
        drawn.shape("car", one, group_id=1),
        drawn.shape("car", [[12, 5], [14, 5], [14, 15], [12, 15]]),
        drawn.shape("car", other, group_id=1),
    ]
    path = drawn.labelme(tmp_path / "a.json", shapes)
    with open_labels(path, tmp_path / "a.png", coco.IMAGE, coco.data_for({"car": 1})) as source:
        numbers = source.read((0, 0, coco.HEIGHT, coco.WIDTH)).instances
    # the group covers the second object as a whole
    assert counts(source.notes) == {
        "objects-overlap": [1, int((numbers == 2).sum()) + 20],
        "objects-vanished": [1],
    }


def test_files_of_one_object_that_repeat_another_or_are_empty_are_named(tmp_path):
    masks = {"a": np.zeros((20, 30), np.uint8), "c": np.zeros((20, 30), np.uint8)}
    masks["a"][2:6, 3:9] = 255
    for name, mask in {**masks, "b": masks["a"]}.items():
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    parts = [("", tmp_path / f"{name}.png") for name in "abc"]
    data = params_for(".", data={"instances": True}).data
    with open_parts(parts, tmp_path / "i.png", Info(20, 30, 3, "uint8"), data) as source:
        for row in (0, 10):
            source.read((row, 0, 10, 30))
    assert [note for note in source.notes if note[0].startswith("objects-")] == [
        (
            "objects-overlap",
            "files that lose pixels to others drawn over them: 1 (a.png), 24 pixels in total",
        ),
        (
            "objects-vanished",
            "files that have no pixel and are no objects: 1 (a.png) hidden by others, 1 (c.png) that cover no pixel",
        ),
    ]


@pytest.mark.parametrize("instances", [False, True])
def test_overlaps_within_a_file_of_one_class_take_nothing_from_objects(tmp_path, instances):
    shapes = [on_map(shapely.box(x, 5, x + 10, 30)) for x in (0, 4)]
    data = params_for(".", data={"masks": {"square": "x"}, "instances": instances}).data
    parts = [("square", save(tmp_path / "p.gpkg", shapes))]
    with open_parts(parts, tmp_path / "scene.tif", IMAGE, data) as source:
        source.read((0, 0, 60, 80))
    assert counts(source.notes) == {}


def test_what_segments_of_dicom_lose_is_counted_where_they_are_objects(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    both = np.zeros((4, 6, 5, 3), np.uint8)
    both[:, :3, :, 0], both[:, 2:4, :, 1], both[1, 2, 3, 2] = 1, 1, 1
    seg = write_seg(tmp_path / "seg.dcm", folder, both, ["a", "b", "c"])
    with open_source(folder, "auto") as source:
        info = source.info
    for instances, wanted in ((True, {"objects-overlap": [2, 21]}), (False, {})):
        table = {"label_values": {"others": 1}, "instances": instances}
        data = params_for("x").data.model_copy(update=table)
        with open_labels(Path(seg), folder, info, data) as opened:
            opened.read((0, 0, info.height, info.width))
        assert counts(opened.notes) == wanted
