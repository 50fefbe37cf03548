"""The section data of folders as users have them, guessed, and found again by the readers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rasterio.transform import from_origin

from segcore.errors import DataError
from segcore.io import layouts
from segcore.params import Data
from segcore.planning.guess.section import guess
from tests.support.tiny import blobs, write_tif
from tests.support.volumes import write_nifti, write_seg, write_series

SIDE = 24


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if mode == "P":
        image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.save(path)


def picture(path: Path, seed: int = 0) -> None:
    save(path, blobs(SIDE, SIDE, seed)[0])


def mask(path: Path, seed: int = 0, top: int = 1) -> None:
    save(path, (blobs(SIDE, SIDE, seed)[1] * top).astype(np.uint8))


def classes(path: Path, seed: int = 0, values: tuple[int, ...] = (0, 0, 0, 1, 2)) -> None:
    """Rows of values, of which 0 is the most frequent."""
    rng = np.random.default_rng(seed)
    save(
        path,
        np.repeat(np.repeat(rng.permutation(np.resize(values, 36)).reshape(6, 6), 4, 0), 4, 1).astype(
            np.uint8
        ),
    )


def folders(folder: Path) -> None:
    for i in range(4):
        picture(folder / f"images/a{i}.jpg", i)
        mask(folder / f"masks/a{i}.png", i, 255)


def side_by_side(folder: Path) -> None:
    for i in range(4):
        picture(folder / f"img{i}.png", i)
        mask(folder / f"img{i}_mask.png", i)


def same_names(folder: Path) -> None:
    """JPEG and PNG of one name, as labelling programs write them."""
    for i in range(3):
        picture(folder / f"x{i}.jpg", i)
        classes(folder / f"x{i}.png", i)


def other_words(folder: Path) -> None:
    for i in range(3):
        picture(folder / f"sat/tile_{i}_sat.jpg", i)
        classes(folder / f"groundTruth/tile_{i}_gt.png", i, (0, 0, 0, 1, 2, 255))


def prefixes(folder: Path) -> None:
    for i in range(3):
        picture(folder / f"image_{i:03d}.png", i)
        mask(folder / f"mask_{i:03d}.png", i)


def splits(folder: Path) -> None:
    for split in ("train", "val", "test"):
        for i in range(2):
            picture(folder / f"{split}/images/{split}{i}.png", i)
            mask(folder / f"{split}/labels/{split}{i}.png", i)


def splits_inside(folder: Path) -> None:
    for split in ("train", "val"):
        for i in range(3):
            picture(folder / f"images/{split}/{split}{i}.png", i)
            mask(folder / f"masks/{split}/{split}{i}.png", i)


def unlabelled_test(folder: Path) -> None:
    """As competitions publish them: train, train_masks, test."""
    for i in range(3):
        picture(folder / f"train/c{i}.jpg", i)
        mask(folder / f"train_masks/c{i}_mask.gif", i, 255)
        picture(folder / f"test/t{i}.jpg", i)


def patients(folder: Path) -> None:
    for p in range(5):
        for s in range(2):
            picture(folder / f"images/patient_{p:02d}_slice_{s:03d}.png", 2 * p + s)
            mask(folder / f"masks/patient_{p:02d}_slice_{s:03d}.png", 2 * p + s)


def case_folders(folder: Path) -> None:
    for p in range(4):
        rng = np.random.default_rng(p)
        labels = np.repeat(rng.integers(0, 2, (6, 6, 2)), 2, 2).astype(np.uint8)
        write_nifti(folder / f"case_{p:03d}/image.nii.gz", rng.integers(0, 90, (6, 6, 4)).astype(np.int16))
        write_nifti(folder / f"case_{p:03d}/seg.nii.gz", labels)


def channels(folder: Path) -> None:
    for p in range(3):
        rng = np.random.default_rng(p)
        for name in ("t1", "flair"):
            values = rng.integers(0, 90, (6, 6, 4)).astype(np.int16)
            write_nifti(folder / f"BRATS_{p}/BRATS_{p}_{name}.nii.gz", values)
        write_nifti(
            folder / f"BRATS_{p}/BRATS_{p}_seg.nii.gz", rng.integers(0, 2, (6, 6, 4)).astype(np.uint8)
        )


def class_folders(folder: Path) -> None:
    for i in range(3):
        picture(folder / f"images/s{i}.png", i)
        mask(folder / f"masks/road/s{i}.png", i + 10, 255)
        save(folder / f"masks/water/s{i}.png", 255 - 255 * blobs(SIDE, SIDE, i + 10, 0.8)[1])


def class_files(folder: Path) -> None:
    for i in range(3):
        write_nifti(
            folder / f"s{i:04d}/ct.nii.gz",
            np.random.default_rng(i).integers(-900, 90, (6, 6, 4)).astype(np.int16),
        )
        for number, name in enumerate(("liver", "spleen")):
            values = np.zeros((6, 6, 4), np.uint8)
            values[3 * number : 3 * number + 2] = 1
            write_nifti(folder / f"s{i:04d}/segmentations/{name}.nii.gz", values)


def object_files(folder: Path) -> None:
    """One file per object, as in the Data Science Bowl of 2018."""
    for i in range(3):
        picture(folder / f"id{i}a/images/id{i}a.png", i)
        for k in range(3):
            one = np.zeros((SIDE, SIDE), np.uint8)
            one[8 * k : 8 * k + 5, 2:9] = 255
            save(folder / f"id{i}a/masks/{i}{k}f.png", one)


def numbered(folder: Path) -> None:
    for i in range(4):
        picture(folder / f"images/n{i}.png", i)
        values = np.zeros((SIDE, SIDE), np.uint16)
        for k in range(3 + i):
            values[4 * (k // 3) : 4 * (k // 3) + 3, 8 * (k % 3) : 8 * (k % 3) + 5] = k + 1
        save(folder / f"labels/n{i}.png", values)


def colored(folder: Path) -> None:
    table = np.array([(10, 200, 30), (200, 10, 30), (155, 155, 155)], np.uint8)
    for i in range(3):
        picture(folder / f"images/c{i}.png", i)
        index = np.random.default_rng(i).integers(0, 3, (SIDE, SIDE))
        save(folder / f"masks/c{i}.png", table[index])
    (folder / "class_dict.csv").write_text(
        "name,r,g,b\ngrass,10,200,30\nroof,200,10,30\nunlabeled,155,155,155\n"
    )


def palettes(folder: Path) -> None:
    for i in range(3):
        picture(folder / f"images/p{i}.png", i)
        (folder / "masks").mkdir(exist_ok=True)
        save(folder / f"masks/p{i}.png", np.resize(np.array([0, 0, 1, 2], np.uint8), (SIDE, SIDE)), "P")
    (folder / "classes.txt").write_text("background\ncat\ndog\n")


def annotators(folder: Path) -> None:
    """Fundus images with two annotators and a field of view, as DRIVE."""
    for i in range(3):
        picture(folder / f"images/{i}_training.png", i)
        mask(folder / f"1st_manual/{i}_manual1.gif", i, 255)
        mask(folder / f"2nd_manual/{i}_manual2.gif", i, 255)
        save(folder / f"fov/{i}_training_fov.png", np.full((SIDE, SIDE), 255, np.uint8))


def tiles(folder: Path) -> None:
    for column in range(4):
        for row in range(4):
            image, labels = blobs(SIDE, SIDE, 4 * column + row)
            place = {"transform": from_origin(5e5 + SIDE * column, 5e6 - SIDE * row, 1, 1)}
            write_tif(folder / f"images/t-{column}-{row}.tif", np.moveaxis(image, -1, 0), **place)
            write_tif(folder / f"labels/t-{column}-{row}.tif", labels[None], **place)


def decathlon(folder: Path) -> None:
    for p in range(3):
        rng = np.random.default_rng(p)
        write_nifti(folder / f"imagesTr/hip_{p:03d}.nii.gz", rng.integers(0, 90, (6, 6, 4)).astype(np.int16))
        write_nifti(folder / f"labelsTr/hip_{p:03d}.nii.gz", rng.integers(0, 3, (6, 6, 4)).astype(np.uint8))
    labels = {"0": "background", "1": "Anterior", "2": "Posterior"}
    content = {"modality": {"0": "MRI"}, "labels": labels, "numTraining": 3, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))


def coco(folder: Path) -> None:
    for i in range(3):
        picture(folder / f"images/{i}.jpg", i)
    outline = [[2, 2, 12, 2, 12, 12, 2, 12]]
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": SIDE, "height": SIDE} for i in range(3)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 7, "segmentation": outline} for i in range(3)
        ],
        "categories": [{"id": 7, "name": "car"}, {"id": 8, "name": "never"}],
    }
    (folder / "annotations.json").write_text(json.dumps(content))


def labelme(folder: Path) -> None:
    for i in range(3):
        picture(folder / f"p{i}.jpg", i)
        shape = {"label": "dog", "points": [[2, 2], [12, 2], [12, 12]], "shape_type": "polygon"}
        content = {"shapes": [shape], "imagePath": f"p{i}.jpg", "imageHeight": SIDE, "imageWidth": SIDE}
        (folder / f"p{i}.json").write_text(json.dumps(content))


def yolo(folder: Path) -> None:
    for split in ("train", "valid"):
        for i in range(2):
            picture(folder / f"{split}/images/{split}{i}.jpg", i)
            (folder / f"{split}/labels").mkdir(exist_ok=True)
            (folder / f"{split}/labels/{split}{i}.txt").write_text(
                "1 0.1 0.1 0.5 0.1 0.5 0.5\n0 0.6 0.6 0.9 0.6 0.9 0.9\n"
            )


def series(folder: Path) -> None:
    for p in range(3):
        write_series(
            folder / f"dicom/P{p}/ST1/SE1",
            np.random.default_rng(p).integers(0, 400, (3, 6, 5)).astype(np.uint16),
        )
        values = np.zeros((5, 6, 3), np.uint8)
        values[1:3, 1:4] = 1
        write_nifti(folder / f"masks/P{p}/ST1/SE1.nii.gz", values)


def segmentations(folder: Path) -> None:
    for p in range(2):
        at = folder / f"ct/P{p}"
        write_series(at, np.random.default_rng(p).integers(0, 400, (3, 6, 5)).astype(np.uint16))
        values = np.zeros((3, 6, 5), np.uint8)
        values[1, 1:3, 1:4] = 1
        (folder / "labels").mkdir(exist_ok=True)
        write_seg(folder / f"labels/P{p}.dcm", at, values, ["tumour"])


def listing(folder: Path) -> None:
    for i in range(3):
        picture(folder / f"some/{i}/photo.jpg", i)
        mask(folder / f"else/m{i}.png", i)
    rows = "".join(f"some/{i}/photo.jpg,else/m{i}.png\n" for i in range(3))
    (folder / "items.csv").write_text("image,mask\n" + rows)


FOREGROUND = {"classes": ["background", "foreground"]}
# what a folder gives: number of items, and keys
CASES: dict[Callable[[Path], None], tuple[int, dict[str, Any]]] = {
    folders: (
        4,
        {
            "images": "images/*.jpg",
            "masks": "masks/{stem}.png",
            "label_values": {0: "background", 255: "foreground"},
        },
    ),
    side_by_side: (4, {"masks": "{stem}_mask.png", **FOREGROUND}),
    same_names: (
        3,
        {"images": "*.jpg", "masks": "{stem}.png", "classes": ["background", "class_1", "class_2"]},
    ),
    other_words: (
        3,
        {
            "masks": "groundTruth/{stem}_gt.png",
            "label_values": {0: "background", 1: "class_1", 2: "class_2", 255: "ignore"},
        },
    ),
    prefixes: (3, {"images": "image_{stem}.png", "masks": "mask_{stem}.png"}),
    splits: (
        6,
        {"images": "{split}/images/*.png", "splits": {"train": "train", "val": "validation", "test": "test"}},
    ),
    splits_inside: (6, {"masks": "masks/{split}/{stem}.png", "splits": {"train": "train", "val": "test"}}),
    unlabelled_test: (3, {"images": "train/*.jpg", "masks": "train_masks/{stem}_mask.gif"}),
    patients: (10, {"images": "images/patient_{patient}_{part}.png", "group": "{patient}"}),
    case_folders: (
        4,
        {"images": "{case}/image.nii.gz", "masks": "{case}/seg.nii.gz", "group": "{case}", "scale": "item"},
    ),
    channels: (
        3,
        {
            "images": ["{folder}/{stem}_flair.nii.gz", "{folder}/{stem}_t1.nii.gz"],
            "masks": "{folder}/{stem}_seg.nii.gz",
        },
    ),
    class_folders: (3, {"masks": {"road": "masks/road/{stem}.png", "water": "masks/water/{stem}.png"}}),
    class_files: (3, {"images": "{folder}/ct.nii.gz", "classes": ["background", "liver", "spleen"]}),
    object_files: (3, {"masks": "{folder}/masks/*.png", "instances": True}),
    numbered: (4, {"instances": True, "label_values": {"0": "background", "others": "object"}}),
    colored: (
        3,
        {
            "classes": ["grass", "roof"],
            "background": None,
            "label_values": {"#0AC81E": "grass", "#C80A1E": "roof", "#9B9B9B": "ignore"},
        },
    ),
    palettes: (3, {"classes": ["background", "cat", "dog"], "colors": [[0, 0, 0], [200, 0, 0], [0, 200, 0]]}),
    annotators: (
        3,
        {
            "masks": "1st_manual/{stem}_manual1.gif",
            "baselines": {"2nd": "2nd_manual/{stem}_manual2.gif"},
            "valid": "fov/{stem}_training_fov.png",
        },
    ),
    tiles: (16, {"images": "images/*.tif", "group": "{cell:48}"}),
    decathlon: (3, {"layout": "nnunet", "classes": ["background", "Anterior", "Posterior"]}),
    coco: (3, {"masks": "annotations.json", "classes": ["background", "car"], "instances": True}),
    labelme: (3, {"masks": "{stem}.json", "label_values": {"dog": "dog"}}),
    yolo: (4, {"masks": "{split}/labels/{stem}.txt", "label_values": {0: "class_0", 1: "class_1"}}),
    segmentations: (
        2,
        {"images": "ct/*", "masks": "labels/{stem}.dcm", "label_values": {"tumour": "tumour"}},
    ),
    listing: (3, {"listing": "items.csv", **FOREGROUND}),
    series: (
        3,
        {"images": "dicom/{folder}/ST1/SE1", "masks": "masks/{folder}/ST1/SE1.nii.gz", "group": "{folder}"},
    ),
}


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_a_folder_gives_its_section(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path)
    count, expected = CASES[make]
    made = guess(tmp_path)
    assert {key: made.keys.get(key) for key in expected} == expected
    assert len(made.images) == count
    # the readers find the same items, and read each
    data = Data.model_validate(made.ordered)
    items = [item for item in layouts.find(data, tmp_path) if item.problem is None]
    assert sorted(item.image.as_posix() for item in items) == sorted(made.images)


def test_the_same_folder_gives_the_same_section(tmp_path: Path) -> None:
    patients(tmp_path)
    assert guess(tmp_path) == guess(tmp_path)


def test_what_has_no_partner_is_named(tmp_path: Path) -> None:
    folders(tmp_path)
    picture(tmp_path / "images/alone.jpg")
    mask(tmp_path / "masks/other.png")
    made = guess(tmp_path)
    assert (made.without_mask, made.without_image) == (["images/alone.jpg"], ["masks/other.png"])
    for i in range(6):
        picture(tmp_path / f"images/alone{i}.jpg")
    # an ingest would refuse more than half
    assert guess(tmp_path).keys["max_quarantined"] >= 7 / 11


def test_annotators_and_classes_are_told_apart_by_their_pixels(tmp_path: Path) -> None:
    class_folders(tmp_path)
    for i in range(3):
        mask(tmp_path / f"masks/water/s{i}.png", i + 10, 255)
    made = guess(tmp_path)
    assert (
        made.keys["baselines"] == {"water": "masks/water/{stem}.png"}
        and made.keys["masks"] == "masks/road/{stem}.png"
    )


def test_smoothed_masks_get_ranges(tmp_path: Path) -> None:
    folders(tmp_path)
    for path in (tmp_path / "masks").iterdir():
        with Image.open(path) as image:
            image.resize((4 * SIDE, 4 * SIDE), Image.Resampling.BICUBIC).resize((SIDE * 2, SIDE * 2)).save(
                path
            )
    assert guess(tmp_path).keys["label_values"] == {"0-127": "background", "128-255": "foreground"}


def _only_text(folder: Path) -> None:
    (folder / "notes.txt").write_text("nothing")


def _archive(folder: Path) -> None:
    (folder / "data.zip").write_bytes(b"PK")


def _linked_folder(folder: Path) -> None:
    picture(folder / ".elsewhere/a.png")
    (folder / "images").symlink_to(folder / ".elsewhere")


def _images_alone(folder: Path) -> None:
    picture(folder / "images/a.png")


def _jpeg_masks(folder: Path) -> None:
    picture(folder / "images/a.jpg")
    picture(folder / "masks/a.jpg")


def _empty_masks(folder: Path) -> None:
    for i in range(2):
        picture(folder / f"images/a{i}.png", i)
        save(folder / f"masks/a{i}.png", np.zeros((SIDE, SIDE), np.uint8))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_only_text, "no image found"),
        (_archive, "unpack data.zip"),
        (_linked_folder, "not through links to folders, images,"),
        (_images_alone, "no masks found"),
        (_jpeg_masks, "JPEG"),
        (_empty_masks, "masks hold 0 alone"),
    ],
)
def test_a_folder_without_pairs_is_refused_with_what_was_looked_for(
    make: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        guess(tmp_path)
    assert caught.value.remedy


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        guess(tmp_path / "nowhere")
