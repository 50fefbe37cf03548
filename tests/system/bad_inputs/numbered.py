"""Bad objects: rasters of object numbers, files of one object each, and masks without objects."""

from pathlib import Path

import numpy as np
from PIL import Image

from segcore.objects.components import components
from tests.support.drawn import CAR, shape
from tests.support.tiny import write_tif
from tests.system.bad_inputs import drawn, pictures
from tests.system.bad_inputs.case import DataSet, Pair

SIZE = pictures.SIZE


def pair(folder: Path, name: str, seed: int) -> Pair:
    """A picture, masks/<name>_m.png of two classes, and ids/<name>_id.tif, which is the mask of the pair."""
    made = pictures.pair(folder, name, seed)
    made = Pair(made.image, folder / "ids" / f"{name}_id.tif", seed)
    write(made, components(classes_of(made), [1]).astype(np.uint16))
    return made


def classes_file(pair: Pair) -> Path:
    return pair.source / "masks" / f"{pair.image.stem}_m.png"


def classes_of(pair: Pair) -> np.ndarray:
    return (np.array(Image.open(classes_file(pair))) > 0).astype(np.uint8)


def write(pair: Pair, numbers: np.ndarray) -> None:
    write_tif(pair.mask, numbers[None], crs=None, transform=None)


def numbers_of(pair: Pair) -> np.ndarray:
    return components(classes_of(pair), [1])


NUMBERED = DataSet(
    "numbered",
    pair,
    {
        "images": "images/{file}",
        "masks": "masks/{stem}_m.*",
        "objects": "ids/{stem}_id.*",
        "classes": ["background", "square", "water"],
        "colors": [[0, 0, 0]] * 3,
        "label_values": {0: 0, 255: 1, 100: 2},
    },
    # the class water, which the data set must have
    finish=lambda folder, pairs: add_water(pairs["sound0"]),
)
case = NUMBERED.case


def add_water(pair: Pair) -> None:
    mask = np.array(Image.open(classes_file(pair)))
    numbers = numbers_of(pair)
    mask[numbers == 1] = 100
    Image.fromarray(mask).save(classes_file(pair))


@case("")
def numbers_with_gaps(pair):
    write(pair, numbers_of(pair) * np.uint32(70_001))


@case("")
def object_of_several_parts(pair):
    numbers = numbers_of(pair)
    write(pair, np.where(numbers == numbers.max(), 1, numbers))


@case("")
def object_of_one_pixel(pair):
    numbers = numbers_of(pair)
    row, col = np.argwhere(numbers)[0]
    numbers[row, col] = 500
    write(pair, numbers)


@case("")
def numbers_as_whole_floats(pair):
    write(pair, numbers_of(pair).astype(np.float32))


@case("label-fractions", "holds fractions (float32), such as 0.5", of="mask")
def numbers_with_fractions(pair):
    write(pair, numbers_of(pair).astype(np.float32) / 2)


@case("object-numbers", "object numbers range from -1 to ", of="mask")
def numbers_below_zero(pair):
    write(pair, numbers_of(pair).astype(np.int32) - 1)


@case(
    "size-mismatch", "and its object numbers numbers_of_another_size_id.tif: sizes differ in height x width"
)
def numbers_of_another_size(pair):
    write(pair, np.ones((9, 9), np.uint8))


@case("label-bands", "has 3 bands that differ where object numbers are expected", of="mask")
def numbers_as_colours(pair):
    colours = np.random.default_rng(pair.seed).integers(0, 255, (3, *SIZE), np.uint8)
    write_tif(pair.mask, colours, crs=None, transform=None)


@case("missing-mask", "has no raster of object numbers, ids/image_without_numbers_id.")
def image_without_numbers(pair):
    pair.mask.unlink()


@case("numbers-beside", "pixels with an object number are of no foreground class and in no object")
def numbers_on_background(pair):
    numbers = numbers_of(pair)
    write(pair, np.where(numbers == 0, 900, numbers).astype(np.uint16))


@case("numbers-missing", "pixels of foreground classes have no object number and are in no object")
def object_without_a_number(pair):
    numbers = numbers_of(pair)
    write(pair, np.where(numbers == 1, 0, numbers).astype(np.uint16))


@case(
    "mixed-objects", "1 objects have pixels of several classes: 1; each is of the class of most of its pixels"
)
def object_of_two_classes(pair):
    mask = np.array(Image.open(classes_file(pair)))
    row, col = np.argwhere(numbers_of(pair) == 1)[0]
    mask[row, col] = 100
    Image.fromarray(mask).save(classes_file(pair))


def pair_of_files(folder: Path, name: str, seed: int) -> Pair:
    """A picture, and a mask for each of two objects, masks/<name>_1.png and masks/<name>_2.png."""
    made = pictures.pair(folder, name, seed)
    made.mask.unlink()
    made = Pair(made.image, folder / "masks" / f"{name}_1.png", seed)
    for number in (1, 2):
        save(made, number, slice(20 * number - 15, 20 * number))
    return made


def save(pair: Pair, number: int, cols: slice) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[5:30, cols] = 255
    Image.fromarray(mask).save(pair.mask.with_name(f"{pair.image.stem}_{number}.png"))


FILES = DataSet(
    "files",
    pair_of_files,
    {
        "images": "images/{file}.png",
        "masks": "masks/{file}_*.png",
        "instances": True,
        "label_values": {0: 0, 255: 1},
    },
)


@FILES.case("objects-vanished", "1 (object_in_two_files_1.png) hidden by others")
def object_in_two_files(pair):
    save(pair, 2, slice(5, 20))


@FILES.case("objects-overlap", "1 (objects_that_overlap_1.png), 75 pixels in total")
def objects_that_overlap(pair):
    save(pair, 2, slice(17, 40))


@FILES.case("objects-vanished", "1 (file_without_an_object_2.png) that cover no pixel")
def file_without_an_object(pair):
    save(pair, 2, slice(5, 5))


TOUCHING = DataSet(
    "touching",
    drawn.drawn_pair,
    {
        "images": "images/{file}",
        "masks": "shapes/{stem}.*",
        "instances": True,
        "touching": True,
        "label_values": {"land": 0, "square": 1},
    },
)


@TOUCHING.case("objects-vanished", "shapes that have no pixel and are no objects: 1 (3) that cover no pixel")
def outline_that_covers_no_pixel(pair):
    thin = shape("square", [[30.6, 5], [30.9, 5], [30.9, 30], [30.6, 30]])
    drawn.write(pair, drawn.LAND, shape("square", CAR), thin)
