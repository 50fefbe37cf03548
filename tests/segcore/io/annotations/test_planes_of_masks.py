"""Masks with other planes, pages or bands than their image are refused with a remedy that works."""

import numpy as np
import pytest
from nibabel import Nifti1Image
from PIL import Image

from segcore.data.raster import Info
from segcore.errors import DataError
from segcore.io import images
from segcore.io.annotations import open_labels, read_labels
from segcore.io.annotations._parts import open_parts
from tests.support.tiny import params_for

PAGES = np.zeros((3, 20, 30), np.uint8)
PAGES[0, 2:9, 3:20] = PAGES[1, 12:19, 3:20] = PAGES[2, 2:9, 22:28] = 1


def save_pages(path, pages):
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(path, save_all=True, append_images=others)


def data_for(**data):
    classes = ["background", "road", "tree", "lake"]
    values = {"classes": classes, "colors": [[0, 0, 0]] * 4, "label_values": {0: 0, 1: 1}, **data}
    return params_for(".", data=values).data


def fails(path, image, **data):
    with pytest.raises(DataError) as caught:
        read_labels(path, path.with_name("image.tif"), image, data_for(**data))
    return caught.value


@pytest.mark.parametrize(
    ("pages", "kind"), [(None, "pages"), ("planes", "size-mismatch"), ("channels", "label-bands")]
)
def test_pages_of_classes_may_be_saved_as_files_of_a_mapping(tmp_path, pages, kind):
    save_pages(tmp_path / "m.tif", PAGES)
    image = Info(20, 30, 3, "uint8")
    error = fails(tmp_path / "m.tif", image, pages=pages)
    assert error.kind == kind and "data.masks a mapping `class: pattern`" in error.remedy
    parts = []
    for name, page in zip(("road", "tree", "lake"), PAGES, strict=True):
        Image.fromarray(page).save(tmp_path / f"{name}.png")
        parts.append((name, tmp_path / f"{name}.png"))
    with open_parts(parts, tmp_path / "image.tif", image, data_for()) as source:
        labels = source.read((0, 0, 20, 30))
    assert np.array_equal(labels.classes, PAGES[0] + 2 * PAGES[1] + 3 * PAGES[2])


def opened(folder, info):
    return open_labels(folder / "m.nii.gz", folder / "image.nii.gz", info, data_for())


@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (6, 5, 4, 3, 2)])
def test_a_volume_with_a_channel_for_each_class_names_the_mapping(tmp_path, shape):
    values = np.zeros(shape, np.uint8)
    values[1, 2, 3, 0] = values[2, 2, 2, 1] = 1
    Nifti1Image(np.ones(shape[:3], np.uint8), np.eye(4)).to_filename(tmp_path / "image.nii.gz")
    Nifti1Image(values, np.eye(4)).to_filename(tmp_path / "m.nii.gz")
    info = images.info(tmp_path / "image.nii.gz")
    with pytest.raises(DataError) as caught, opened(tmp_path, info) as source:
        [source.read((0, 0, info.height, info.width), plane) for plane in range(info.depth)]
    assert "data.masks a mapping `class: pattern`" in caught.value.remedy


def test_a_mask_of_one_plane_for_a_stack_says_how_many_planes_are_needed(tmp_path):
    Image.fromarray(PAGES[0]).save(tmp_path / "m.png")
    image = Info(20, 30, 1, "uint8", depth=3, is_stack=True)
    error = fails(tmp_path / "m.png", image)
    assert error.kind == "size-mismatch" and "save a mask of 3 planes" in error.remedy
    save_pages(tmp_path / "m.tif", [PAGES[0]] * 3)
    assert np.array_equal(
        read_labels(tmp_path / "m.tif", tmp_path / "i.tif", image, data_for(), 2).classes, PAGES[0]
    )


def test_a_mask_of_another_size_keeps_its_remedy(tmp_path):
    Image.fromarray(PAGES[0, :9]).save(tmp_path / "m.png")
    assert "resample" in fails(tmp_path / "m.png", Info(20, 30, 3, "uint8")).remedy
