"""data.objects gives the raster of object numbers of an image, in every layout."""

import json

import pandas as pd
import pytest

from segcore.ingest.companions import without_image
from tests.support.layouts import fails, find, problem, touch
from tests.support.tiny import params_for

NUMBERS = {"masks": "masks/{stem}.png", "objects": "{stem}_id.tif"}


def test_pairs_fill_the_pattern_and_numbers_are_no_images_of_their_own(tmp_path):
    touch(tmp_path, "a.png", "a_id.png", "b.png", "b_id.png", "masks/a.png", "masks/b.png")
    items = find(tmp_path, images="*.png", masks="masks/{stem}.png", objects="{stem}_id.png")
    assert [(i.image.name, i.objects.name, i.problem) for i in items] == [
        ("a.png", "a_id.png", None),
        ("b.png", "b_id.png", None),
    ]
    assert items[0].objects in items[0].files


def test_a_raster_that_is_missing_is_named_with_the_most_similar_one(tmp_path):
    touch(tmp_path, "a.png", "masks/a.png", "a_ids.tif")
    kind, text = problem(tmp_path, "a.png", images="*.png", **NUMBERS)
    assert kind == "missing-mask"
    assert text.startswith("a.png: has no raster of object numbers, a_id.tif is missing; a_ids.tif exists")


def test_an_unknown_word_in_the_pattern_fails_the_ingest(tmp_path):
    touch(tmp_path, "a.png", "masks/a.png")
    kind, text = fails(tmp_path, images="*.png", masks="masks/{stem}.png", objects="{site}_id.tif")
    assert kind == "bad-pattern" and text.startswith("data.objects '{site}_id.tif': {site} does not exist")


def test_a_listing_names_the_column(tmp_path):
    touch(tmp_path, "a.png", "b.png", "m.png", "n.tif")
    rows = [{"image": "a.png", "mask": "m.png", "objects": "n.tif"}]
    rows.append({"image": "b.png", "mask": "m.png", "objects": ""})
    pd.DataFrame(rows).to_csv(tmp_path / "list.csv", index=False)
    one, other = find(tmp_path, listing="list.csv", objects="objects")
    assert one.objects.name == "n.tif" and one.problem is None and "objects" not in one.words
    assert other.problem.kind == "missing-mask" and "its cell in list.csv" in other.problem.what
    assert fails(tmp_path, listing="list.csv", objects="ids")[1].startswith(
        "list.csv: lacks the column 'ids'"
    )
    # without the setting, it is a word as any other column
    assert find(tmp_path, listing="list.csv")[0].words == {"objects": "n.tif"}


def test_public_layouts_use_their_words(tmp_path):
    voc, city, nnunet, coco = (tmp_path / name for name in ("voc", "city", "nnunet", "coco"))
    touch(voc, "JPEGImages/a.jpg", "SegmentationClass/a.png", "SegmentationObject/a.png")
    frame = "aachen_000000_000019"
    touch(city, f"leftImg8bit/train/aachen/{frame}_leftImg8bit.png")
    touch(city, *(f"gtFine/train/aachen/{frame}_gtFine_{kind}Ids.png" for kind in ("label", "instance")))
    touch(nnunet, "imagesTr/c_0000.nii.gz", "labelsTr/c.nii.gz", "instancesTr/c.nii.gz")
    touch(coco, "train/1.jpg", "ids/1.tif", "annotations/instances_train.json")
    text = json.dumps({"images": [{"id": 1, "file_name": "1.jpg"}]})
    (coco / "annotations/instances_train.json").write_text(text)
    for folder, pattern, path in (
        (voc, "SegmentationObject/{stem}.png", "SegmentationObject/a.png"),
        (
            city,
            "gtFine/{split}/{city}/{frame}_gtFine_instanceIds.png",
            f"gtFine/train/aachen/{frame}_gtFine_instanceIds.png",
        ),
        (nnunet, "instancesTr/{case}.nii.gz", "instancesTr/c.nii.gz"),
        (coco, "ids/{stem}.tif", "ids/1.tif"),
    ):
        masks = {"masks": "masks/{stem}.png"}
        (item,) = find(folder, layout=folder.name.replace("city", "cityscapes"), objects=pattern, **masks)
        assert item.problem is None and item.objects.as_posix() == path
        (item,) = find(folder, layout=folder.name.replace("city", "cityscapes"), **masks)
        assert item.objects is None


@pytest.mark.parametrize("layout", ["pairs", "voc", "nnunet"])
def test_a_raster_of_numbers_without_its_image_waits_for_it(layout):
    data = params_for(".", data={"layout": layout, "objects": "ids/{stem}.tif"}).data
    assert without_image(data, ["ids/a.tif", "other/a.tif"]) == ["ids/a.tif"]
