"""prepared/objects.parquet: the objects of all items and their regions; only where the data have objects."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from segcore.constants import IGNORE
from segcore.data.object_columns import OBJECT_COLUMNS
from segcore.data.packed import PackedWriter
from segcore.data.prepared import PreparedData
from segcore.errors import DataError
from segcore.objects import planes
from segcore.objects.components import components
from tasks.ingest import ingest
from tasks.prepare import prepare
from tests.support.tiny import blobs, make_pairs, make_scene, params_for, write_tif

NUMBERED = {"instances": True, "label_values": {"others": 1}}


def prepared(p, folder):
    ingest(p.data, folder / "ingested")
    return PreparedData(prepare(p, folder / "ingested", folder / "prepared"))


def numbered_pairs(folder):
    """Pairs whose masks number the squares; the first item has none."""
    make_pairs(folder)
    for i, path in enumerate(sorted((folder / "masks").iterdir())):
        numbers = components(np.asarray(Image.open(path)) // 255, [1]) * (i > 0)
        Image.fromarray(numbers.astype(np.uint16)).save(path)
    return folder


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Prepared data of a numbered scene of 256 x 256 pixels in blocks of 64."""
    folder = tmp_path_factory.mktemp("numbered")
    make_scene(folder / "source")
    _, mask = blobs(256, 256, seed=7, share=0.2)
    # at the edges of the item
    mask[-3:, 100:110] = mask[100:110, -3:] = mask[150:160, :3] = 1
    write_tif(folder / "source/masks/scene.tif", components(mask, [1]).astype(np.uint16)[None])
    return prepared(params_for(folder / "source", scene=True, data=NUMBERED), folder)


def test_the_objects_of_a_scene_have_the_region_of_their_first_pixel(scene):
    numbers = scene._plane("scene", "instances")
    objects = scene.objects
    assert set(objects["id"]) == set(np.unique(numbers)) - {0} and len(objects) > 20
    assert list(objects.columns) == list(OBJECT_COLUMNS)
    cut = 0
    for o in objects.itertuples():
        mask = numbers == o.id
        row, col = np.argwhere(mask)[0]
        inside = [
            r
            for r in scene.regions.itertuples()
            if r.row <= row < r.row + r.height and r.col <= col < r.col + r.width
        ]
        assert o.region == (inside[0].id if inside else "")
        if inside:
            r = inside[0]
            part = mask[r.row : r.row + r.height, r.col : r.col + r.width]
            edges = (
                (r.row > 0, part[0]),
                (r.col > 0, part[:, 0]),
                (r.row + r.height < 256, part[-1]),
                (r.col + r.width < 256, part[:, -1]),
            )
            expected = any(goes_on and edge.any() for goes_on, edge in edges)
            assert o.cut_region == expected
            cut += expected
        assert o.cut_item == (mask[[0, -1]].any() or mask[:, [0, -1]].any())
    assert 0 < cut < len(objects)


def test_items_without_objects_are_in_the_data_but_not_in_the_table(tmp_path):
    data = prepared(params_for(numbered_pairs(tmp_path / "source"), data=NUMBERED), tmp_path)
    assert (data.instances, data.truth_of_objects, data.training_classes) == (True, "given", 2)
    assert set(data.items.index) - set(data.objects["item"]) == {"a0"}
    region = data.regions.loc[data.regions["item"] == "a3", "id"].iloc[0]
    found, counts = np.unique(data.read_instances(region), return_counts=True)
    rows = data.objects[data.objects["item"] == "a3"].set_index("id")["area"].sort_index()
    assert rows.to_dict() == dict(zip(found[1:].tolist(), counts[1:].tolist(), strict=True))


def test_data_of_nothing_but_empty_items_have_an_empty_table(tmp_path):
    make_pairs(tmp_path / "source")
    for path in (tmp_path / "source/masks").iterdir():
        Image.fromarray(np.zeros((48, 56), np.uint8)).save(path)
    data = prepared(params_for(tmp_path / "source", data=NUMBERED), tmp_path)
    assert data.instances and data.objects.empty and list(data.objects) == list(OBJECT_COLUMNS)


def test_a_raster_of_numbers_gives_objects_without_another_setting(tmp_path):
    numbered_pairs(tmp_path / "source")
    (tmp_path / "source/masks").rename(tmp_path / "source/ids")
    make_pairs(tmp_path / "plain")
    (tmp_path / "plain/masks").rename(tmp_path / "source/masks")
    settings = {"objects": "ids/{stem}.png", "touching": True}
    data = prepared(params_for(tmp_path / "source", data=settings), tmp_path)
    assert (data.instances, data.truth_of_objects, data.training_classes) == (True, "given", 3)
    assert set(data.items.index) - set(data.objects["item"]) == {"a0"}


def test_data_without_the_setting_have_no_objects(prepared_scene):
    _, data = prepared_scene
    assert not (data.folder / "objects.parquet").exists()
    assert "truth_of_objects" not in json.loads((data.folder / "prepared.json").read_text())
    assert (data.instances, data.truth_of_objects, data.training_classes) == (False, "none", 2)
    assert data.objects.empty and list(data.objects) == list(OBJECT_COLUMNS)
    with pytest.raises(DataError, match="has no objects"):
        data.read_instances(data.regions["id"].iloc[0])


def test_only_new_planes_are_read_again(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in "abc":
        tensors = {
            "labels": rng.integers(0, 2, (2, 20, 30)).astype(np.uint8),
            "instances": rng.integers(0, 4, (2, 20, 30)).astype(np.uint32),
        }
        with PackedWriter(tmp_path / name, {n: (t.dtype, t.shape) for n, t in tensors.items()}) as writer:
            for key, tensor in tensors.items():
                for plane in (0, 1):
                    writer.write(key, (plane,), (0, 0, 20, 30), tensor[plane])
    every = [planes.Plane(name, plane) for name in "cab" for plane in (0, 1)]
    whole = planes.found(every, tmp_path, [1], tmp_path / "whole")
    planes.found([every[4], every[0]], tmp_path, [1], tmp_path / "cache")
    original, read = planes.read_runs, []
    monkeypatch.setattr(planes, "read_runs", lambda *given: read.append(1) or original(*given))
    again = planes.found(every, tmp_path, [1], tmp_path / "cache")
    assert len(read) == 4
    for one, other in zip(whole, again, strict=True):
        pd.testing.assert_frame_equal(one, other)
    fewer = planes.found(every[2:], tmp_path, [1], tmp_path / "cache")
    assert len(read) == 4 and fewer.objects["at"].max() == 3
    pd.testing.assert_frame_equal(
        fewer.ceiling,
        whole.ceiling[whole.ceiling["at"] > 1].assign(at=lambda t: t["at"] - 2).reset_index(drop=True),
    )


def test_crops_have_numbers_only_where_asked_for(scene):
    patch = scene.crop("scene", -3, 250, 20, 20, instances=True)
    numbers = scene._plane("scene", "instances")
    assert patch.instances.dtype == np.uint32
    assert np.array_equal(patch.instances[3:, :6], numbers[:17, 250:])
    assert not patch.instances[:3].any() and not patch.instances[:, 6:].any()
    region = scene.regions["id"].iloc[0]
    assert scene.crop("scene", 0, 0, 20, 20).instances is None and scene.read(region).instances is None
    read = scene.read_input(region, instances=True)
    assert np.array_equal(read.instances, scene.read_instances(region))


def test_pixels_near_two_objects_are_a_class_of_training_labels_alone(scene, monkeypatch):
    near = np.zeros((256, 256), np.uint8)
    near[:60] = 1
    original = scene._plane
    monkeypatch.setattr(scene, "touching", True)
    monkeypatch.setattr(
        scene, "_plane", lambda item, kind, *rest: near if kind == "touching" else original(item, kind, *rest)
    )
    label = original("scene", "labels")
    expected = np.where((near > 0) & (label != IGNORE), 2, label)
    assert scene.training_classes == 3 and set(np.unique(expected)) == {0, 1, 2, IGNORE}
    assert np.array_equal(scene.whole("scene", touching=True).label, expected)
    assert np.array_equal(scene.crop("scene", 5, 5, 90, 90, touching=True).label, expected[5:95, 5:95])
    region = scene.regions.iloc[0]
    part = (slice(region.row, region.row + region.height), slice(region.col, region.col + region.width))
    assert np.array_equal(scene.read(region.id).label, label[part])
    assert np.array_equal(scene.read_input(region.id).label, label[part])
    assert np.array_equal(scene.read_input(region.id, touching=True).label, expected[part])
