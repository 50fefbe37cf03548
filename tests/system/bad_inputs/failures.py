"""Bad input that is not the fault of a single item: the ingest fails, or a process must be ended."""

import json
import os
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from segcore.errors import DataError
from segcore.ingest import catalog, companions, inspection, label_keys
from segcore.ingest.reader_pool import run_each
from segcore.io import layouts
from segcore.splits.assignment import decide
from tasks.accepted import Accepted, compare
from tests.support import broken_reader
from tests.support.drawn import CAR, labelme, shape
from tests.support.tiny import blobs, make_pairs, params_for, write_tif
from tests.system.bad_inputs import annotations, scenes
from tests.system.bad_inputs.case import data_section

# Size of the pictures of make_pairs, as labelme states it.
SIZE = {"imageHeight": 48, "imageWidth": 56}


class Failure(NamedTuple):
    """A folder that cannot be ingested.

    Attributes:
        name: of the case.
        kind: expected kind of the error.
        text: expected part of the error.
        data: keys of the data section, see `data_section`.
        damage: damages the folder.
    """

    name: str
    kind: str
    text: str
    data: dict[str, Any]
    damage: Callable[[Path], None]


FAILURES: list[Failure] = []


def failure(kind: str, text: str, **data: Any) -> Callable[[Any], Any]:
    """Register a function that damages a folder of twelve pairs."""

    def add(damage: Callable[[Path], None]) -> Callable[[Path], None]:
        FAILURES.append(Failure(damage.__name__, kind, text, data, damage))
        return damage

    return add


def error_of(case: Failure, folder: Path) -> DataError:
    """The error of ingesting twelve pairs that a case has damaged."""
    make_pairs(folder, 12)
    case.damage(folder)
    data = data_section(folder, case.data)
    try:
        table = catalog.build(data, folder, folder.parent / f"{case.name}-work")
        catalog.require_enough(table, data)
        label_keys.require_matched(table, data)
    except DataError as error:
        return error
    raise AssertionError(f"{case.name} was ingested: {table[['image', 'kind', 'reason']]}")


@failure("no-folder", "no such folder")
def folder_that_is_gone(folder):
    folder.rename(folder.with_name("elsewhere"))


@failure("no-folder", "no such folder")
def file_instead_of_a_folder(folder):
    folder.rename(folder.with_name("elsewhere-too"))
    folder.write_text("no folder")


@failure("no-images", "no image matches 'photos/*'", images="photos/*")
def pattern_that_matches_nothing(folder):
    pass


@failure("no-images", "it has archives: images.tar.gz")
def archive_that_was_not_unpacked(folder):
    with tarfile.open(folder / "images.tar.gz", "w:gz") as archive:
        archive.add(folder / "images", "images")
    for path in (folder / "images").iterdir():
        path.unlink()


@failure("no-images", "", images="images/*")
def folder_of_folders(folder):
    for path in [*(folder / "images").iterdir()]:
        path.unlink()
        path.mkdir()


@failure("other-labels", "1 (thing) is not in data.label_values", layout="nnunet")
def dataset_json_of_other_labels(folder):
    (folder / "images").rename(folder / "imagesTr")
    (folder / "masks").rename(folder / "labelsTr")
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "thing": 1}}))


@failure(
    "unmatched-key",
    "7 matches no pixel of any mask",
    label_values={"0": "background", "7": "square", "others": "ignore"},
)
def class_that_no_mask_has(folder):
    pass


@failure("no-layout", "'cocoa' is unknown", layout="cocoa")
def layout_that_does_not_exist(folder):
    pass


@failure("bad-pattern", "is not a path inside data.source", images="../*.png")
def pattern_that_climbs_out(folder):
    pass


@failure("bad-pattern", "is not a path inside data.source", images="/etc/*")
def absolute_pattern(folder):
    pass


@failure("bad-pattern", "{patient} does not exist", masks="masks/{patient}.png")
def placeholder_that_does_not_exist(folder):
    pass


@failure("bad-pattern", "every image is also a mask", images="images/*.png", masks="images/{stem}.png")
def images_that_are_their_own_masks(folder):
    pass


def _labelme(folder: Path, label: str) -> None:
    (folder / "shapes").mkdir()
    for path in (folder / "images").iterdir():
        labelme(folder / f"shapes/{path.stem}.json", [shape(label, CAR)], imagePath=path.name, **SIZE)


@failure(
    "no-unlabelled",
    "without a label, and params.yaml gives them no class",
    masks="shapes/{stem}.json",
    background=None,
    label_values={"car": 1},
)
def outlines_of_some_land_alone(folder):
    _labelme(folder, "car")


@failure(
    "no-object-class",
    "could be any of background, square",
    images="images/*.tif",
    masks="areas.geojson",
    background=None,
    unlabelled="ignore",
    label_values={0: 0},
)
def polygons_that_could_be_of_any_class(folder):
    image = np.moveaxis(blobs(64, 64, 1)[0], -1, 0)
    write_tif(folder / "images" / "scene.tif", image, transform=scenes.place(1))
    annotations.geojson(folder / "areas.geojson", annotations.polygon(annotations.ring(1)))


@failure("all-bad", "12 of 12 items cannot be used", masks="../{stem}.png")
def masks_outside_of_the_folder(folder):
    for path in (folder / "masks").iterdir():
        path.rename(folder.parent / path.name)


@failure("all-bad", "outside the declared classes: 255", label_values={0: 0, 1: 1})
def masks_of_0_and_255_where_1_is_declared(folder):
    pass


@failure("no-list", "items.csv is missing", listing="items.csv")
def list_that_is_gone(folder):
    pass


@failure("no-list", "lacks the column 'mask'", listing="items.csv")
def list_without_masks(folder):
    (folder / "items.csv").write_text("image,label\nimages/a0.png,masks/a0.png\n")


@failure("no-list", "cannot be read as CSV or Parquet", listing="items.csv")
def list_of_undecodable_bytes(folder):
    (folder / "items.csv").write_bytes(b"image,mask\n\xff\xfe\xfd,x\n")


@failure("no-list", "cannot be read as CSV or Parquet", listing="items.csv")
def list_that_is_empty(folder):
    (folder / "items.csv").write_bytes(b"")


@failure("no-list", "cannot be read as CSV or Parquet", listing="items.parquet")
def parquet_that_is_cut_off(folder):
    table = pd.DataFrame({"image": ["images/a0.png"], "mask": ["masks/a0.png"]})
    table.to_parquet(folder / "items.parquet")
    (folder / "items.parquet").write_bytes((folder / "items.parquet").read_bytes()[:200])


@failure("no-list", "is outside the source folder", listing="../items.csv")
def list_outside_of_the_folder(folder):
    (folder.parent / "items.csv").write_text("image,mask\n")


@failure("no-list", "is a folder, FIFO or device", listing="items.csv")
def fifo_as_a_list(folder):
    os.mkfifo(folder / "items.csv")


@failure("no-list", "is a FIFO or device", layout="coco")
def fifo_as_coco_annotations(folder):
    (folder / "annotations").mkdir()
    os.mkfifo(folder / "annotations" / "instances_train.json")


@failure("no-list", "is not a COCO file", layout="coco")
def coco_annotations_that_are_a_list(folder):
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_train.json").write_text("[1, 2]")


@failure("no-list", "is not a COCO file", layout="coco")
def coco_annotations_nested_too_deep(folder):
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_train.json").write_text("[" * 10**6)


@failure("all-bad", "is outside the source folder", layout="coco")
def coco_file_names_that_climb_out(folder):
    (folder / "annotations").mkdir()
    text = '{"images": [{"id": 1, "file_name": "../../../etc/hostname.png"}], "annotations": []}'
    (folder / "annotations" / "instances_train.json").write_text(text)


@failure("no-list", "is a folder, FIFO or device", layout="voc")
def fifo_as_a_voc_list(folder):
    (folder / "images").rename(folder / "JPEGImages")
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    os.mkfifo(folder / "ImageSets" / "Segmentation" / "train.txt")


def changed_while_read(folder: Path) -> DataError:
    """The error for a scene that another program writes to while it is read."""
    image = np.random.default_rng(0).integers(0, 255, (3, 1500, 1500)).astype(np.uint8)
    write_tif(folder / "images" / "growing.tif", image, compress="deflate")
    write_tif(folder / "masks" / "growing.tif", (image[:1] > 99).astype(np.uint8) * 255)
    data = params_for(folder, scene=True).data
    (item,) = layouts.find(data, folder)
    target = folder / "items"
    target.mkdir()
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            with (folder / item.image).open("ab") as stream:
                stream.write(bytes(64))
            time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        inspection.inspect(item, folder, data, target, "")
    except DataError as error:
        assert not list(target.iterdir()), "data of a file that changed while it was read was kept"
        return error
    finally:
        done.set()
        writer.join()
    raise AssertionError("the change was not noticed")


def slow_and_crashed() -> dict[str, DataError]:
    """Errors for a reader that hangs, and for one that crashes."""
    errors = dict(
        run_each(broken_reader.read, ["hang", "crash"], ["deep.gpkg", "odd.tif"], [1, 20], workers=2)
    )
    return {"slow": errors[0], "crashed": errors[1]}


def set_aside() -> str:
    """The message for a new item that links train and test."""
    ids = [f"i{n:02}" for n in range(12)]
    split = params_for(".").split
    table = pd.DataFrame({"id": ids, "group": ids, "height": 32, "width": 32})
    links = pd.DataFrame(columns=["a", "b", "kind", "detail"])
    before = decide(table, links, split, {})
    one, other = (min(g for g, s in before.groups.items() if s == part) for part in ("train", "test"))
    grown = pd.concat([table, pd.DataFrame({"id": ["new"], "group": ["new"], "height": 32, "width": 32})])
    links = pd.DataFrame(
        {"a": [one, other], "b": ["new", "new"], "kind": "duplicate", "detail": "same content"}
    )
    return f"new: {decide(grown, links, split, before.entries).aside['new']}"


def relabelled(folder: Path) -> DataError:
    """The error for a new image that the dataset already has with another mask."""
    data = params_for(make_pairs(folder / "dataset", 3)).data
    accepted = Accepted(catalog.build(data, folder / "dataset", folder / "work"), folder / "work" / "items")
    make_pairs(folder / "inbox", 3)
    mask = folder / "inbox/masks/a1.png"
    Image.fromarray(255 - np.asarray(Image.open(mask))).save(mask)
    table = catalog.build(data, folder / "inbox", folder / "snapshot")
    compare(data.model_copy(update={"source": "dataset"}), table, folder / "snapshot" / "items", accepted)
    (row,) = table[table["status"] == "quarantined"].to_dict("records")
    return DataError(row["reason"], row["remedy"], row["kind"])


def stray_mask(folder: Path) -> str:
    """Path of the mask without an image."""
    make_pairs(folder, 3)
    (folder / "images" / "a1.png").unlink()
    data = params_for(folder).data
    used = {item.mask.as_posix() for item in layouts.find(data, folder) if item.mask}
    ((kind, stray, _),) = layouts.strays(data, folder, used)
    assert kind == "mask-without-image"
    return stray.as_posix()


def unmatched_files(folder: Path) -> dict[str, tuple[str, str]]:
    """Path and text of the notes on images and annotations that no item has, by kind."""
    make_pairs(folder, 2)
    (folder / "images" / "a1.png").rename(folder / "images" / "a1.PNG")
    size = {"height": 64, "width": 64}
    images = [{"id": i, "file_name": name, **size} for i, name in enumerate(("a0.png", "a1.PNG"))]
    (folder / "all.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    data = params_for(folder, data={"images": "images/*.png", "masks": "all.json"}).data
    (item,) = layouts.find(data, folder)
    table = pd.DataFrame([{"batch": "", "image": str(item.image), "label": str(item.mask)}])
    found = [*layouts.strays(data, folder, set()), *companions.entries_without_image(table, {"": folder})]
    return {kind: (path.as_posix(), text) for kind, path, text in found}


def unused_key(folder: Path) -> str:
    """The note on a key that no mask of twelve pairs has, while its class has another key."""
    make_pairs(folder / "photos", 12)
    data = data_section(folder / "photos", {"label_values": {0: 0, 1: 1, 255: 1}})
    table = catalog.build(data, folder / "photos", folder / "work")
    label_keys.note_unused(table, data)
    ((kind, text),) = json.loads(table["notes"][0])
    assert kind == "unused-key" and (table["notes"][1:] == "[]").all()
    return str(text)
