"""Bad images and masks in several files: channels, classes and objects in files of their own, and nnU-Net."""

import json
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image, ImageFilter

from tests.support.tiny import blobs, write_tif
from tests.system.bad_inputs import pictures
from tests.system.bad_inputs.case import DataSet, Pair

SIZE = (48, 56)


def pair(folder: Path, name: str, seed: int) -> Pair:
    """Two bands, images/<name>-1.tif and nir/<name>-1.tif, and masks of two classes that do not overlap."""
    made = Pair(folder / "images" / f"{name}-1.tif", folder / "masks" / f"{name}.png", seed)
    made.mask.parent.mkdir(parents=True, exist_ok=True)
    image, mask = blobs(*SIZE, seed=seed)
    for path, band in ((made.image, 0), (further(made.image), 1)):
        write_tif(path, image[None, ..., band])
    Image.fromarray(mask * 255).save(made.mask)
    Image.fromarray((1 - mask) * 255).save(other(made.mask))
    return made


def further(image: Path) -> Path:
    return image.parents[1] / "nir" / image.name


def other(mask: Path) -> Path:
    return mask.with_name(f"{mask.stem}_water.png")


SEVERAL = DataSet(
    "several",
    pair,
    {
        "images": ["images/{n}-{t}.tif", "nir/{n}-{t}.tif"],
        "masks": {"square": "masks/{n}.png", "water": "masks/{n}_water.png"},
        "classes": ["background", "square", "water"],
        "colors": [[0, 0, 0], [9, 9, 9], [0, 0, 9]],
    },
)


@SEVERAL.case("missing-channel", "has no channel 2, nir/channel_that_is_missing-1.tif is missing")
def channel_that_is_missing(pair):
    further(pair.image).unlink()


@SEVERAL.case("resampled-bands", "is resampled from pixels of 1 x 1 to 0.5 x 0.5")
def channel_of_half_the_resolution(pair):
    band = blobs(24, 28, seed=pair.seed)[0][None, ..., 1]
    write_tif(further(pair.image), band, transform=rasterio.Affine(1, 0, 500000, 0, -1, 5000000))


@SEVERAL.case("transform-mismatch", "do not cover the same area")
def channel_of_another_area(pair):
    band = blobs(24, 28, seed=pair.seed)[0][None, ..., 1]
    write_tif(further(pair.image), band, transform=rasterio.Affine(1, 0, 500300, 0, -1, 5000000))


@SEVERAL.case("size-mismatch", "sizes of the bands differ: 48 x 56 and 24 x 28")
def channel_of_another_size_without_a_place(pair):
    band = blobs(24, 28, seed=pair.seed)[0][None, ..., 1]
    write_tif(further(pair.image), band, transform=None, crs=None)


@SEVERAL.case("class-absent", "has no mask of water (masks/class_without_a_file_water.png)")
def class_without_a_file(pair):
    other(pair.mask).unlink()


@SEVERAL.case("overlapping-masks", "pixels belong to several files; the last of them counts")
def classes_that_overlap(pair):
    Image.fromarray(np.full(SIZE, 255, np.uint8)).save(other(pair.mask))


@SEVERAL.case(
    "smoothed", "has many grey values, as after smoothing or compression: values from 128 are the class"
)
def class_that_was_smoothed(pair):
    mask = Image.open(pair.mask)
    mask.filter(ImageFilter.GaussianBlur(2)).save(pair.mask)


@SEVERAL.case(
    "shared-mask", "shares its mask masks/two_images_of_one_mask.png with two_images_of_one_mask-2.tif"
)
def two_images_of_one_mask(pair):
    image = blobs(*SIZE, seed=pair.seed + 50)[0]
    for path in (pair.image, further(pair.image)):
        write_tif(path.with_name("two_images_of_one_mask-2.tif"), image[None, ..., 2])


OTHERS = DataSet(
    "others",
    pictures.pair,
    {"images": "images/{file}", "masks": "masks/{stem}_m.*", "label_values": {"0": 0, "others": 1}},
)


@OTHERS.case("others-class", "the key `others` makes several values square: 255 (")
def several_values_of_one_class(pair):
    mask = np.array(Image.open(pair.mask))
    mask[:4, :5] = 7
    Image.fromarray(mask).save(pair.mask)


@OTHERS.case("labels-rounded", "2688 values were rounded to whole numbers, by at most 0.0004")
def floats_that_are_nearly_whole(pair):
    mask = (np.array(Image.open(pair.mask)) > 0) + np.float32(0.0004)
    write_tif(pair.replace_mask("floats_that_are_nearly_whole_m.tif"), mask[None], crs=None, transform=None)


def case_of_nnunet(folder: Path, name: str, seed: int) -> Pair:
    made = Pair(folder / "imagesTr" / f"{name}_0000.png", folder / "labelsTr" / f"{name}.png", seed)
    image, mask = blobs(*SIZE, seed=seed)
    for path, values in ((made.image, image), (made.mask, mask)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    return made


def describe(folder: Path, pairs: dict[str, Pair]) -> None:
    content = {"channel_names": {"0": "R"}, "labels": {"background": 0, "square": 1}, "numTraining": 40}
    (folder / "dataset.json").write_text(json.dumps(content))


NNUNET = DataSet(
    "nnunet", case_of_nnunet, {"layout": "nnunet", "label_values": {0: 0, 1: 1}}, finish=describe
)


@NNUNET.case("missing-cases", "dataset.json declares 40 training cases, imagesTr has 6")
def cases_that_are_missing(pair):
    pass
