"""The prepared data: packed pixels are those of the files, and statistics come from training pixels only."""

import json

import numpy as np
import pandas as pd
import pytest
import rasterio
from PIL import Image

from segcore.constants import IGNORE
from segcore.data.prepared import PreparedData
from segcore.errors import DataError
from segcore.files import sha256
from segcore.splits.normalization import BandStatistics
from tasks.ingest import ingest
from tasks.prepare import prepare
from tests.support.tiny import blobs, params_for


def test_pixels_and_labels_are_those_of_the_files(prepared_scene):
    p, data = prepared_scene
    folder = p.data.source
    with (
        rasterio.open(f"{folder}/images/scene.tif") as image,
        rasterio.open(f"{folder}/masks/scene.tif") as mask,
    ):
        pixels, labels, valid = (
            np.moveaxis(image.read(), 0, -1),
            mask.read(1) // 255,
            image.dataset_mask() > 0,
        )
    whole = data.crop("scene", 0, 0, 256, 256)
    assert np.array_equal(whole.image, pixels) and np.array_equal(whole.valid, valid)
    assert np.array_equal(whole.label, np.where(valid, labels, IGNORE))


def test_nodata_is_invalid_ignored_and_left_out_of_statistics(prepared_scene):
    _, data = prepared_scene
    top = data.crop("scene", 0, 0, 20, 256)
    assert not top.valid.any() and (top.label == IGNORE).all()
    rows = data.regions[data.regions["split"] == "train"]
    pixels = []
    for region in rows["id"]:
        patch = data.read(region)
        pixels.append(patch.image[patch.valid])
    expected = np.concatenate(pixels).astype(float)
    assert np.allclose(data.statistics["mean"], expected.mean(0)) and np.allclose(
        data.statistics["std"], expected.std(0)
    )


def test_a_training_split_of_nothing_but_nodata_is_an_error():
    with pytest.raises(DataError, match="no valid pixel"):
        BandStatistics(3, 2).result()


def test_statistics_change_with_training_pixels_only(tmp_path):
    def statistics(darkened: str) -> dict:
        source = tmp_path / darkened
        for i, name in enumerate(("a", "b", "c")):
            for kind in ("images", "masks"):
                (source / kind).mkdir(parents=True, exist_ok=True)
            image, mask = blobs(40, 40, i)
            Image.fromarray(image // 2 if name == darkened else image).save(source / "images" / f"{name}.png")
            Image.fromarray(mask * 255).save(source / "masks" / f"{name}.png")
        given = {"train": ["a"], "validation": ["b"], "test": ["c"]}
        p = params_for(source, split={"given": given})
        ingest(p.data, source / "ingested")
        return json.loads(
            (prepare(p, source / "ingested", source / "prepared") / "statistics.json").read_text()
        )

    plain, held_out, trained = statistics("none"), statistics("c"), statistics("a")
    assert plain == held_out and plain["mean"] != trained["mean"]


def test_a_crop_that_overhangs_is_padded_as_invalid_and_ignored(prepared_scene):
    _, data = prepared_scene
    patch = data.crop("scene", 250, -3, 10, 10)
    assert patch.image.shape == (10, 10, 3)
    assert (patch.label[6:] == IGNORE).all() and not patch.valid[6:].any() and not patch.valid[:, :3].any()
    assert patch.valid[:6, 3:].all()


def test_labels_of_test_regions_are_untouched(prepared_scene):
    p, data = prepared_scene
    with rasterio.open(f"{p.data.source}/masks/scene.tif") as mask:
        truth = mask.read(1) // 255
    for r in data.regions[data.regions["split"] == "test"].itertuples():
        patch = data.read(r.id)
        part = truth[r.row : r.row + r.height, r.col : r.col + r.width]
        assert np.array_equal(patch.label[patch.valid], part[patch.valid])


@pytest.mark.parametrize("instances", [False, "components"])
def test_field_of_view_and_a_second_annotator(pairs, instances):
    for kind in ("fov", "other"):
        (pairs / kind).mkdir()
    for path in sorted((pairs / "masks").iterdir()):
        mask = np.asarray(Image.open(path))
        field = np.full_like(mask, 255)
        field[:, :10] = 0
        Image.fromarray(field).save(pairs / "fov" / path.name)
        Image.fromarray(255 - mask).save(pairs / "other" / path.name)
    files = {"valid": "fov/{stem}.png", "baselines": {"other": "other/{stem}.png"}}
    p = params_for(pairs, data=files | {"instances": instances})
    ingest(p.data, pairs / "ingested")
    data = PreparedData(prepare(p, pairs / "ingested", pairs / "prepared"))
    region = data.regions.iloc[0]["id"]
    patch, other = data.read(region), data.read_baseline("other", region)
    assert (patch.label[:, :10] == IGNORE).all() and patch.valid.all()
    assert np.array_equal(other[:, 10:], 1 - patch.label[:, 10:])
    # the annotator's objects can reach into ignored pixels, as those of a network can
    assert (other[:, :10] == IGNORE).all() if not instances else (other[:, :10] <= 1).all()


def test_preparing_twice_gives_the_same_files(pairs, tmp_path):
    p = params_for(pairs)
    hashes = []
    for name in ("one", "two"):
        ingest(p.data, tmp_path / name / "ingested")
        folder = prepare(p, tmp_path / name / "ingested", tmp_path / name / "prepared")
        files = [*folder.iterdir(), *(tmp_path / name / "packed").iterdir()]
        hashes.append({f.name: sha256(f) for f in files})
    assert hashes[0] == hashes[1] and len(hashes[0]) == 5 + 12


def test_an_unknown_region_and_a_missing_folder_are_named(prepared_scene, tmp_path):
    with pytest.raises(DataError, match="nowhere: no such region"):
        prepared_scene[1].read("nowhere")
    with pytest.raises(DataError, match="run the step prepare first"):
        PreparedData(tmp_path)


def test_failed_prepare_leaves_what_was_there(pairs, tmp_path):
    p = params_for(pairs)
    ingest(p.data, tmp_path / "ingested")
    prepare(p, tmp_path / "ingested", tmp_path / "prepared")
    before = pd.read_parquet(tmp_path / "prepared" / "regions.parquet")
    for path in (tmp_path / "packed").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"safetensors: is missing from"):
        prepare(p, tmp_path / "ingested", tmp_path / "prepared")
    assert pd.read_parquet(tmp_path / "prepared" / "regions.parquet").equals(before)
    assert sorted(f.name for f in tmp_path.iterdir() if f.name.startswith(".")) == []
