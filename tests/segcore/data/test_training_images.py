"""Facts of the training images that a model's description stores: values, and sizes of pixels."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from segcore.data.prepared import PreparedData
from segcore.data.training_images import facts_of_training
from segcore.data.value_facts import value_facts, value_ranges
from segcore.params import Params
from tasks.ingest import ingest
from tasks.prepare import prepare
from tests.support.tiny import params_for, write_tif
from tests.support.volumes import write_nifti


def prepared(folder: Path, **data: str) -> PreparedData:
    p = params_for(folder / "source", data={"masks": "masks/{stem}.tif", "images": "images/*.tif", **data})
    ingest(p.data, folder / "ingested")
    return PreparedData(prepare(p, folder / "ingested", folder / "prepared", folder / "splits"))


def test_facts_are_those_of_the_pixels_of_each_training_image_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(10):
        values = rng.integers(100, 1000 * (number + 1), (2, 48, 48)).astype(np.uint16)
        write_tif(
            tmp_path / f"source/images/a{number}.tif",
            values,
            transform=rasterio.Affine(10, 0, 5e5 + 1e4 * number, 0, -10, 5e6),
        )
        mask = rng.integers(0, 2, (1, 48, 48), np.uint8) * 255
        place = rasterio.Affine(10, 0, 5e5 + 1e4 * number, 0, -10, 5e6)
        write_tif(tmp_path / f"source/masks/a{number}.tif", mask, transform=place)
    data = prepared(tmp_path)
    names = sorted(data.regions.loc[data.regions["split"] == "train", "item"])
    facts = facts_of_training(data)
    assert facts["images"] == len(names) == 5
    low, median, high = facts["pixel_sizes"]["m"]
    assert low == pytest.approx(9.99, abs=0.02) and low <= median <= high < 10.02
    # images of 48 pixels are sampled at every pixel
    images = [value_facts(data.whole(name).image.reshape(-1, 2)) for name in names]
    assert facts["values"] == value_ranges(images)
    assert facts["values"]["whole"] is True
    first = min(np.quantile(data.whole(name).image[..., 0], 0.01) for name in names)
    assert facts["values"]["low"][0][0] == pytest.approx(first, rel=1e-5)
    assert json.dumps(facts) == json.dumps(facts_of_training(prepared(tmp_path)))


def test_volumes_give_the_median_of_their_spacing_and_pictures_no_size(
    tmp_path: Path, prepared_scene: tuple[Params, PreparedData]
) -> None:
    rng = np.random.default_rng(0)
    for number in range(10):
        spacing = (1.0, 1.0, 3.0 if number % 2 else 2.0)
        for folder, values in (
            ("images", rng.normal(100, 20, (20, 22, 6))),
            ("masks", rng.integers(0, 2, (20, 22, 6))),
        ):
            write_nifti(
                tmp_path / f"source/{folder}/v{number}.nii.gz",
                values.astype(np.int16) * (255 if folder == "masks" else 1),
                np.diag([*spacing, 1]),
            )
    data = prepared(tmp_path, images="images/*.nii.gz", masks="masks/{stem}.nii.gz")
    facts = facts_of_training(data)
    assert facts["images"] == 5
    assert facts["pixel_sizes"]["mm: rows"] == facts["pixel_sizes"]["mm: columns"] == [1, 1, 1]
    assert facts["pixel_sizes"]["mm: planes"][::2] == [2, 3]
    scene = facts_of_training(prepared_scene[1])
    assert scene["images"] == 1 and scene["pixel_sizes"]["m"][1] == pytest.approx(0.5, rel=0.01)
    # its first rows are nodata
    assert scene["values"]["low"][0][0] >= 40
