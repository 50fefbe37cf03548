"""Data sets in the layouts of Pascal VOC, Cityscapes and COCO."""

import json

import pytest

from tests.support.layouts import by_name, fails, find, problem, touch

# --- Pascal VOC ------------------------------------------------------------------------------------------------


def make_voc(root, **lists):
    for names in lists.values():
        touch(root, *(f"JPEGImages/{n}.jpg" for n in names))
    for name, names in lists.items():
        if name != "test":
            touch(root, *(f"SegmentationClass/{n}.png" for n in names))
        touch(root, f"ImageSets/Segmentation/{name}.txt")
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("\n".join(names) + "\n")
    return root


@pytest.mark.parametrize("depth", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_voc_lists_define_items_and_splits(tmp_path, depth):
    make_voc(tmp_path / depth, train=["2007_1", "2007_2"], val=["2007_3"], test=["2007_9"])
    touch(tmp_path / depth, "JPEGImages/unlisted.jpg")
    items = find(tmp_path, layout="voc")
    assert [(i.id, i.split) for i in items] == [
        ("2007_1", "train"), ("2007_2", "train"), ("2007_3", "validation")
    ]  # fmt: skip
    assert all(i.problem is None and i.mask.name == f"{i.id}.png" for i in items)
    assert [i.split for i in find(tmp_path, layout="voc", splits={"val": "test"})] == [
        "train",
        "train",
        "test",
    ]


def test_voc_without_lists_takes_every_image(tmp_path):
    touch(tmp_path, "JPEGImages/a.jpg", "JPEGImages/b.png", "SegmentationClass/a.png")
    items = by_name(tmp_path, layout="voc")
    assert items["a.jpg"].problem is None and items["a.jpg"].split is None
    assert items["b.png"].problem.what == "b.png: has no mask, SegmentationClass/b.png is missing"


def test_voc_problems(tmp_path):
    make_voc(tmp_path, train=["a", "b", "c"], val=["b"])
    (tmp_path / "JPEGImages" / "c.jpg").unlink()
    items = by_name(tmp_path, layout="voc")
    assert "b.jpg: is in train.txt and val.txt" in items["b.jpg"].problem.what
    assert items["c.jpg"].problem.what == "c.jpg: is named by train.txt, but JPEGImages/c.jpg is missing"
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_bytes(b"\xff\xfe\xff")
    assert fails(tmp_path, layout="voc")[0] == "no-list"
    assert fails(tmp_path / "ImageSets", layout="voc")[0] == "no-images"


def test_several_voc_years_have_separate_ids(tmp_path):
    for year in ("VOC2011", "VOC2012"):
        make_voc(tmp_path / year, train=["a"])
    assert [i.id for i in find(tmp_path, layout="voc")] == ["VOC2011__a", "VOC2012__a"]


def test_a_name_in_a_voc_list_cannot_leave_the_folder(tmp_path):
    touch(tmp_path, "secret.jpg", "secret.png")
    make_voc(tmp_path / "d", train=["a"])
    (tmp_path / "d" / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n../../secret\n")
    assert problem(tmp_path / "d", "secret.jpg", layout="voc")[0] == "outside"


# --- Cityscapes ------------------------------------------------------------------------------------------------


def make_cityscapes(folder):
    for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "lindau"), ("test", "berlin")):
        frame = f"{city}_000000_000019"
        touch(folder, f"leftImg8bit/{split}/{city}/{frame}_leftImg8bit.png")
        if split != "test":
            touch(
                folder,
                *(f"gtFine/{split}/{city}/{frame}_gtFine_{k}.png" for k in ("labelIds", "labelTrainIds")),
            )
    return folder


def test_cityscapes_has_splits_of_folders_and_groups_of_cities(tmp_path):
    items = find(make_cityscapes(tmp_path), layout="cityscapes", masks="masks/{stem}.png")
    assert [(i.id, i.group, i.split, i.problem) for i in items] == [
        ("aachen_000000_000019", "aachen", "train", None),
        ("bochum_000000_000019", "bochum", "train", None),
        ("lindau_000000_000019", "lindau", "validation", None),
    ]
    assert items[0].mask.as_posix() == "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
    assert [item.words["city"] for item in items] == ["aachen", "bochum", "lindau"]


def test_cityscapes_may_have_other_masks_and_groups(tmp_path):
    make_cityscapes(tmp_path)
    items = find(
        tmp_path, layout="cityscapes", group="{split}_{city}",
        masks="gtFine/{split}/{city}/{frame}_gtFine_labelTrainIds.png",
    )  # fmt: skip
    assert items[0].mask.name.endswith("labelTrainIds.png") and items[0].group == "train_aachen"


def test_cityscapes_problems(tmp_path):
    assert fails(tmp_path, layout="cityscapes", masks="masks/{stem}.png")[0] == "no-images"
    make_cityscapes(tmp_path)
    (tmp_path / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png").unlink()
    name = "aachen_000000_000019_leftImg8bit.png"
    assert problem(tmp_path, name, layout="cityscapes", masks="masks/{stem}.png")[0] == "missing-mask"


# --- COCO ------------------------------------------------------------------------------------------------------


def coco(folder, name, files):
    touch(folder, name)
    (folder / name).write_text(
        json.dumps({"images": [{"id": i, "file_name": f} for i, f in enumerate(files)]})
    )


@pytest.mark.parametrize("where", ["{}/", "images/{}/", "images/"])
def test_coco_items_are_the_images_that_the_annotations_list(tmp_path, where):
    for split, files in (("train2017", ["1.jpg", "2.jpg"]), ("val2017", ["sub/3.jpg"])):
        touch(tmp_path, *(where.format(split) + f for f in [*files, "unnamed.jpg"]))
        coco(tmp_path, f"annotations/instances_{split}.json", files)
    items = find(tmp_path, layout="coco")
    assert [(i.image.name, i.split, i.problem) for i in items] == [
        ("1.jpg", "train", None), ("2.jpg", "train", None), ("3.jpg", "validation", None)
    ]  # fmt: skip
    assert items[0].mask.as_posix() == "annotations/instances_train2017.json"
    assert items[0].image.as_posix() == where.format("train2017") + "1.jpg"


def test_coco_as_roboflow_writes_it(tmp_path):
    for split in ("train", "valid", "test"):
        touch(tmp_path, f"{split}/{split}1.jpg")
        coco(tmp_path, f"{split}/_annotations.coco.json", [f"{split}1.jpg"])
    assert [(i.id, i.split) for i in find(tmp_path, layout="coco")] == [
        ("test__test1", "test"), ("train__train1", "train"), ("valid__valid1", "validation")
    ]  # fmt: skip


def test_coco_problems(tmp_path):
    assert fails(tmp_path, layout="coco")[0] == "no-images"
    touch(tmp_path, "d/train/a.jpg", "secret.jpg")
    coco(tmp_path / "d", "annotations/instances_train.json", ["a.jpg", "gone.jpg", "../../secret.jpg"])
    items = by_name(tmp_path / "d", layout="coco")
    assert items["a.jpg"].problem is None
    assert items["gone.jpg"].problem.kind == "unreadable"
    assert "gone.jpg: is named by instances_train.json" in items["gone.jpg"].problem.what
    assert items["secret.jpg"].problem.kind == "outside"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"images": 3}', '{"images": [{}]}', '{"images": [1]}', "[" * 99999]
)
def test_an_annotation_file_that_lists_no_images_fails(tmp_path, text):
    touch(tmp_path, "annotations/instances_train.json")
    (tmp_path / "annotations/instances_train.json").write_text(text)
    assert fails(tmp_path, layout="coco")[0] == "no-list"


def test_one_image_in_two_annotation_files_is_reported(tmp_path):
    touch(tmp_path, "images/a.jpg")
    for split in ("train", "val"):
        coco(tmp_path, f"annotations/instances_{split}.json", ["a.jpg"])
    items = find(tmp_path, layout="coco")
    assert [i.problem.kind for i in items] == ["same-id", "same-id"] and items[0].id != items[1].id
