"""Images and masks in several files are found by a pattern for each."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.support.layouts import by_name, fails, find, problem, touch
from tests.support.tiny import params_for

CHANNELS = ["images/{case}_0000.nii.gz", "images/{case}_0001.nii.gz"]
CLASSES = {"classes": ["background", "road", "tree"], "colors": [[0, 0, 0]] * 3}


def names(paths):
    return [path.as_posix() for path in paths]


def test_further_bands_are_found_by_the_words_of_the_first_pattern(tmp_path):
    touch(tmp_path, *(f"images/p{i}_000{c}.nii.gz" for i in range(2) for c in range(2)))
    touch(tmp_path, "masks/p0.nii.gz", "masks/p1.nii.gz")
    items = find(tmp_path, images=CHANNELS, masks="masks/{case}.nii.gz", group="{case}")
    assert [(i.id, i.group, names(i.images), i.mask.as_posix()) for i in items] == [
        (
            f"p{n}_0000",
            f"p{n}",
            [f"images/p{n}_0000.nii.gz", f"images/p{n}_0001.nii.gz"],
            f"masks/p{n}.nii.gz",
        )
        for n in range(2)
    ]
    assert not any(item.problem or item.notes for item in items)


def test_further_bands_may_be_in_other_folders_and_have_wildcards(tmp_path):
    touch(tmp_path, "R10m/T1_B02_x.tif", "R20m/T1_2020_B05.tif", "masks/T1.png")
    (item,) = find(tmp_path, images=["R10m/{t}_B02_{x}.tif", "R20m/{t}_*_B05.tif"], masks="masks/{t}.png")
    assert names(item.channels) == ["R20m/T1_2020_B05.tif"] and item.problem is None


def test_a_channel_that_is_also_matched_by_the_first_pattern_is_no_image(tmp_path):
    touch(tmp_path, "a.tif", "a_nir.tif", "b.tif", "b_nir.tif", "masks/a.png", "masks/b.png")
    items = find(tmp_path, images=["{s}.tif", "{s}_nir.tif"], masks="masks/{s}.png")
    assert [(i.image.name, i.problem) for i in items] == [("a.tif", None), ("b.tif", None)]


def test_a_missing_channel_is_named(tmp_path):
    touch(tmp_path, "images/p0_0000.nii.gz", "masks/p0.nii.gz")
    kind, text = problem(tmp_path, "p0_0000.nii.gz", images=CHANNELS, masks="masks/{case}.nii.gz")
    assert kind == "missing-channel"
    assert text == "p0_0000.nii.gz: has no channel 2, images/p0_0001.nii.gz is missing"


def test_images_that_share_a_mask_are_noted_with_the_setting_that_joins_them(tmp_path):
    touch(
        tmp_path, *(f"images/{i}_{c}.png" for i in "ab" for c in ("t1", "t2")), "masks/a.png", "masks/b.png"
    )
    found = by_name(tmp_path, images="images/{case}_*.png", masks="masks/{case}.png")
    assert found["a_t1.png"].notes == (("shared-mask", "shares its mask masks/a.png with a_t2.png"),)
    touch(tmp_path, "all.geojson")
    assert not any(i.notes for i in find(tmp_path, images="images/*.png", masks="all.geojson"))


def test_a_mask_may_be_a_file_for_each_class(tmp_path):
    touch(
        tmp_path,
        "images/0.png",
        "images/1.png",
        "masks/0-road-0.png",
        "masks/0-road-1.png",
        "masks/0-tree.png",
    )
    touch(tmp_path, "masks/1-tree.png")
    masks = {"road": "masks/{stem}-road-*.png", "tree": "masks/{stem}-tree.png"}
    found = by_name(tmp_path, images="images/{n}.png", masks=masks, **CLASSES)
    parts = [("road", "0-road-0.png"), ("road", "0-road-1.png"), ("tree", "0-tree.png")]
    assert [(name, path.name) for name, path in found["0.png"].parts] == parts
    assert found["0.png"].mask == Path("masks/0-road-0.png") and not found["0.png"].notes
    assert [(name, path.name) for name, path in found["1.png"].parts] == [("tree", "1-tree.png")]
    assert found["1.png"].notes == (("class-absent", "has no mask of road (masks/1-road-*.png)"),)
    assert found["1.png"].problem is None


def test_an_image_without_any_of_its_masks_has_a_problem(tmp_path):
    touch(tmp_path, "images/0.png")
    kind, text = problem(tmp_path, "0.png", masks={"road": "masks/{stem}-road.png"}, **CLASSES)
    assert (kind, text) == ("missing-mask", "0.png: has no mask of any class, masks/0-road.png is missing")


def test_several_files_of_a_mask_are_its_objects_with_instances(tmp_path):
    touch(
        tmp_path, "x/images/x.png", *(f"x/masks/{i}.png" for i in range(3)), "y/images/y.png", "y/masks/1.png"
    )
    setting = {"images": "*/images/*.png", "masks": "{parent2}/masks/*.png"}
    found = by_name(tmp_path, **setting, instances=True)
    assert [(name, path.name) for name, path in found["x.png"].parts] == [("", f"{i}.png") for i in range(3)]
    assert found["y.png"].parts == () and found["y.png"].mask == Path("y/masks/1.png")
    problem = by_name(tmp_path, **setting)["x.png"].problem
    assert problem.what == "x.png: has no mask, x/masks/x.png is missing"
    assert "stands for the text of `*` in data.images, 'x'" in problem.remedy
    assert "if each file there is one object, set data.instances: true" in problem.remedy


def test_several_files_of_a_mask_name_both_settings_that_join_them(tmp_path):
    touch(tmp_path, "images/1.png", "masks/1-road-0.png", "masks/1-tree-0.png")
    problem = by_name(tmp_path, images="images/{n}.png", masks="masks/{n}-*.png")["1.png"].problem
    assert problem.kind == "missing-mask" and "2 files match 'masks/1-*.png' as its mask" in problem.what
    assert "data.masks: {class: pattern}" in problem.remedy and "data.instances: true" in problem.remedy


def test_a_star_keeps_standing_for_the_images_text_where_masks_are_found_so(tmp_path):
    touch(tmp_path, "p/images/a.png", "p/images/b.png", "p/masks/a.png")
    setting = {"masks": "{parent2}/masks/*.png", "instances": True}
    found = by_name(tmp_path, images="p/images/*.png", **setting)
    assert found["a.png"].mask == Path("p/masks/a.png") and found["b.png"].problem.kind == "missing-mask"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"masks": {"raod": "a.png"}}, "masks has a pattern for 'raod'; known: ignore, background, square"),
        ({"images": ["a.png", "b.png"], "layout": "voc"}, "need layout: pairs"),
        ({"masks": {"square": "a.png"}, "listing": "items.csv"}, "need layout: pairs"),
    ],
)
def test_settings_of_several_files_that_cannot_be_used_are_refused(data, message):
    with pytest.raises(ValidationError, match=message):
        params_for(".", data=data)


def test_placeholders_of_all_patterns_are_checked(tmp_path):
    touch(tmp_path, "a.png")
    assert "{sten} does not exist" in fails(tmp_path, images="*.png", masks={"square": "m/{sten}.png"})[1]
    assert "{sten} does not exist" in fails(tmp_path, images=["*.png", "m/{sten}.png"])[1]


@pytest.mark.parametrize("ending", [".png", ".tif", ".nii.gz", ".geojson"])
def test_a_star_in_place_of_the_extension_stands_for_any(tmp_path, ending):
    touch(tmp_path, "images/a.tif", f"masks/a{ending}", "masks/ab.png", f"masks/a{ending}.aux.xml")
    for images in ("images/*", "images/*.tif", "images/*.*", "images/{x}.tif"):
        (item,) = find(tmp_path, images=images, masks="masks/{stem}.*")
        assert (item.problem, item.mask) == (None, Path(f"masks/a{ending}"))


def test_several_extensions_of_a_mask_are_an_error_and_other_files_beside_it_are_not(tmp_path):
    touch(
        tmp_path,
        "images/a.tif",
        "images/b.tif",
        "masks/a.shp",
        "masks/a.dbf",
        "masks/a.prj",
        "masks/a.txt.bak",
    )
    touch(tmp_path, "masks/b.png", "masks/b.json")
    found = by_name(tmp_path, images="images/*", masks="masks/{stem}.*")
    assert (found["a.tif"].problem, found["a.tif"].mask) == (None, Path("masks/a.shp"))
    assert found["b.tif"].problem.what.endswith(
        "2 files match 'masks/b.*' as its mask: masks/b.json, masks/b.png"
    )


def test_any_extension_works_for_valid_masks_and_baselines_and_beside_the_image(tmp_path):
    touch(tmp_path, "a.tif", "a.geojson", "v/a.png", "b/a.gif")
    setting = {"masks": "{stem}.*", "valid": "v/{stem}.*", "baselines": {"second": "b/{stem}.*"}}
    (item,) = find(tmp_path, images="*.tif", **setting)
    assert [p.as_posix() for p in (item.mask, item.valid, item.baselines["second"])] == [
        "a.geojson",
        "v/a.png",
        "b/a.gif",
    ]


@pytest.mark.parametrize("key", ["masks", "valid"])
def test_a_star_that_stands_for_a_name_with_extension_says_to_use_the_stem(tmp_path, key):
    touch(tmp_path, "images/a.tif", "images/b.png", "masks/a.png", "masks/b.png")
    setting = {"masks": "masks/{stem}.*", key: "masks/*.png"}
    problem = by_name(tmp_path, images="images/*", **setting)["a.tif"].problem
    assert problem.what.startswith("a.tif: has no ") and "masks/a.tif.png is missing" in problem.what
    assert f"write {{stem}} in data.{key}" in problem.remedy and "such as 'masks/{stem}.*'" in problem.remedy


@pytest.mark.parametrize(
    ("exists", "difference"),
    [
        ("23_mask .png", ": its name has a space before the extension"),
        ("23_Mask.png", ": upper and lower case differ"),
        ("23-mask.png", ": its `_`, `-` or `.` differ"),
        ("023_mask.png", ": it has other leading zeros"),
        ("23_mask.gif", ""),
        (
            "23 mask.TIF",
            ": its file extension differs and it has other spaces and its `_`, `-` or `.` differ",
        ),
        ("23_masks.png", ": the most similar name"),
        ("23.png", ": the most similar name"),
        ("picture.png", None),
        ("24_mask.png", None),
    ],
)
def test_the_most_similar_file_is_named_where_a_mask_is_missing(tmp_path, exists, difference):
    touch(tmp_path, "images/23.jpg", f"masks/{exists}", "masks/7_mask.png", "masks/readme.txt")
    _, text = problem(tmp_path, "23.jpg", images="images/*.jpg", masks="masks/{stem}_mask.png")
    hint = "" if difference is None else f"; {exists} exists{difference}"
    assert text == f"23.jpg: has no mask, masks/23_mask.png is missing{hint}"


def test_letters_of_another_unicode_form_and_folders_are_named_too(tmp_path):
    touch(tmp_path, "images/e\u0301.png", "Masks/x.png")
    _, text = problem(tmp_path, "e\u0301.png", masks="masks/{stem}.png")
    assert text.endswith("is missing; Masks exists: upper and lower case differ")
    touch(tmp_path, "images/b.png", "masks/\uff42.png")
    _, text = problem(tmp_path, "b.png", masks="masks/{stem}.png")
    assert text.endswith("\uff42.png exists: its letters have another Unicode form")


def test_thousands_of_missing_masks_are_named_in_a_second(tmp_path):
    touch(
        tmp_path,
        *(f"images/{i:05d}.png" for i in range(3000)),
        *(f"masks/{i}_label.png" for i in range(3000)),
    )
    items = find(tmp_path, masks="masks/{stem}.png")
    assert all("_label.png exists" in item.problem.what for item in items[1:])
