"""Problems of a folder, a pattern or an item are reported before any file is read."""

import dataclasses
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from segcore.errors import DataError
from segcore.ingest.inbox_files import is_ignored
from segcore.io import layouts
from segcore.io.images import open_source
from segcore.io.layouts.pairs import mask_files
from tests.support.layouts import by_name, fails, find, problem, touch
from tests.support.tiny import make_pairs, params_for

# --- Problems of a pattern or folder --------------------------------------------------------------------


def test_no_image_names_the_pattern_and_the_archives(tmp_path):
    kind, text = fails(tmp_path)
    assert kind == "no-images" and "no image matches 'images/*.png'" in text and "data.images" in text
    touch(tmp_path, "all.zip", "x.tar.gz")
    assert "all.zip, x.tar.gz" in fails(tmp_path)[1] and "unpack" in fails(tmp_path)[1]


def test_no_folder_and_no_layout(tmp_path):
    assert fails(tmp_path / "nowhere")[0] == "no-folder"
    kind, text = fails(tmp_path, layout="_files")
    assert kind == "no-layout" and "cityscapes, coco, listing, nnunet, pairs, voc" in text


@pytest.mark.parametrize("field", ["masks", "group", "valid"])
@pytest.mark.parametrize(
    "word", ["sten", "stem.__class__", "0", "", "cell:0", "cell:x", "cell:-1", "parent4"]
)
def test_unknown_placeholders_fail_and_the_available_ones_are_listed(tmp_path, field, word):
    kind, text = fails(make_pairs(tmp_path / "d", 1), **{field: f"x/{{{word}}}.png"})
    assert kind == "bad-pattern" and f"{{{word}}}" in text and "cell:500" in text
    if "cell" not in word:
        assert "{stem}, {name}, {parent}, {parent2}, {parent3}" in text


@pytest.mark.parametrize(
    "images", ["/images/*.png", "../*.png", "a/../*.png", "{a-b}.png", "{cell:5}/*", "", "/"]
)
def test_images_patterns_that_leave_the_folder_or_make_no_sense_fail(tmp_path, images):
    assert fails(make_pairs(tmp_path / "d", 1), images=images)[0] == "bad-pattern"


def test_a_parent_that_an_image_does_not_have_fails(tmp_path):
    kind, text = fails(make_pairs(tmp_path / "d", 1), group="{parent2}")
    assert kind == "bad-pattern" and "{parent2} of 'images/a0.png' does not exist" in text


def test_wildcards_left_in_a_group_fail(tmp_path):
    assert fails(make_pairs(tmp_path / "d", 1), group="*_*")[0] == "bad-pattern"


def test_one_pattern_may_match_images_and_masks(tmp_path):
    items = find(make_pairs(tmp_path / "d", 2), images="**/*.png")
    assert [i.id for i in items] == ["images__a0", "images__a1"] and all(i.problem is None for i in items)


def test_a_mask_pattern_that_gives_the_image_fails(tmp_path):
    assert fails(make_pairs(tmp_path / "d", 1), masks="images/{name}")[0] == "bad-pattern"


# --- Problems of an item --------------------------------------------------------------------------------


def test_a_missing_mask_is_named_with_its_path(tmp_path):
    folder = make_pairs(tmp_path / "d", 4)
    (folder / "masks" / "a3.png").unlink()
    assert problem(folder, "a3.png") == ("missing-mask", "a3.png: has no mask, masks/a3.png is missing")
    assert sum(i.problem is not None for i in find(folder)) == 1


def test_a_mask_with_another_extension_is_named_where_one_is_missing(tmp_path):
    folder = make_pairs(tmp_path / "d", 4)
    (folder / "masks/a3.png").unlink()
    (folder / "masks/a3.jpg").write_bytes(b"x")
    assert problem(folder, "a3.png")[1].endswith("masks/a3.png is missing; a3.jpg exists")


def test_masks_without_an_image_are_listed(tmp_path):
    folder = make_pairs(tmp_path / "d", 3)
    (folder / "images" / "a1.png").unlink()
    touch(folder, "masks/.hidden.png", "masks/a.aux.xml")
    data = params_for(folder).data
    used = {item.mask.as_posix() for item in layouts.find(data, folder)}
    assert [p.as_posix() for _, p, _ in layouts.strays(data, folder, used)] == ["masks/a1.png"]
    wide = params_for(folder, data={"images": "**/*.png"}).data
    assert [p.as_posix() for _, p, _ in layouts.strays(wide, folder, used)] == ["masks/a1.png"]
    assert mask_files(params_for(folder, data={"masks": "masks/a0.png"}).data, folder) == []


@pytest.mark.parametrize(
    "mask", ["../a0.png", "{parent}/../../a0.png", "/etc/{stem}.png", "link/{name}", "out/*.png"]
)
def test_masks_that_leave_the_folder_are_refused(tmp_path, mask):
    folder = make_pairs(tmp_path / "d", 1)
    touch(tmp_path, "a0.png", "elsewhere/a0.png")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "out").mkdir()
    (folder / "out" / "a0.png").symlink_to(tmp_path / "a0.png")
    kind, what = problem(folder, "a0.png", masks=mask)
    assert kind == "outside" and "is outside the source folder" in what


def test_links_out_of_the_folder_are_named_and_not_followed(tmp_path):
    folder = make_pairs(tmp_path / "d", 1)
    touch(tmp_path, "far/b.png", "b.png")
    (folder / "images" / "b.png").symlink_to(tmp_path / "b.png")
    assert problem(folder, "b.png")[0] == "outside"
    (folder / "more").symlink_to(tmp_path / "far")
    items = find(folder, images="**/*.png", masks="masks/{stem}.png")
    assert [(i.id, i.problem and i.problem.kind) for i in items] == [
        ("images__a0", None), ("images__b.png", "outside"), ("more", "outside")
    ]  # fmt: skip
    assert problem(folder, "more", images="mor*", masks="masks/a0.png")[0] == "outside"


def test_a_linked_folder_of_images_outside_is_reported(tmp_path):
    make_pairs(tmp_path / "far", 2)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "images").symlink_to(tmp_path / "far" / "images")
    assert problem(tmp_path / "d", "images") == (
        "outside", "images: images is outside the source folder"
    )  # fmt: skip
    (tmp_path / "d" / "leftImg8bit").symlink_to(tmp_path / "far")
    kind, text = fails(tmp_path / "d", layout="cityscapes", masks="masks/{stem}.png")
    assert kind == "no-images" and "leftImg8bit points outside the folder" in text


def test_links_within_the_folder_are_fine_and_loops_end(tmp_path):
    folder = make_pairs(tmp_path / "d", 1)
    (folder / "images" / "loop").symlink_to(folder)
    (folder / "images" / "self").symlink_to(folder / "images" / "self")
    (folder / "masks" / "b.png").symlink_to(folder / "masks" / "a0.png")
    (folder / "images" / "b.png").symlink_to(folder / "images" / "a0.png")
    items = find(folder, images="images/**/*.png")
    assert [i.id for i in items] == ["a0", "b"] and all(i.problem is None for i in items)


@pytest.mark.parametrize("name", ["a\nb.png", "a\tb.png", "a\x1b[31m.png", "a\udcff.png", "a\u2028b.png"])
def test_control_characters_in_names_are_refused_and_escaped(tmp_path, name):
    folder = make_pairs(tmp_path / "d", 1)
    touch(folder, f"images/{name}", f"masks/{name}")
    bad = [i for i in find(folder) if i.problem]
    assert len(bad) == 1 and bad[0].problem.kind == "bad-name"
    for text in (bad[0].problem.what, str(bad[0].image), bad[0].group, bad[0].id):
        assert text.isprintable() and text.encode("utf-8")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.7z", "a.rar", "a.TAR", "a.tif.gz"])
def test_archives_are_reported(tmp_path, name):
    folder = make_pairs(tmp_path / "d", 1)
    touch(folder, f"images/{name}")
    assert problem(folder, name, images="images/*", masks="masks/a0.png")[0] == "archive"
    touch(folder, "packed/a0.zip")
    assert problem(folder, "a0.png", masks="packed/{stem}.zip")[0] == "archive"


def test_unsupported_extensions_are_reported_and_junk_is_skipped(tmp_path):
    folder = make_pairs(tmp_path / "d", 1)
    touch(
        folder, *(f"images/{n}" for n in ("._a0.png", ".DS_Store", "a0.png.aux.xml", "Thumbs.db", ".x/y.png"))
    )
    assert list(by_name(folder, images="images/*")) == ["a0.png"]
    touch(folder, "images/notes.txt")
    assert problem(folder, "notes.txt", images="images/*")[0] == "unknown-format"


def test_spaces_and_other_scripts_are_fine_and_give_plain_ids(tmp_path):
    names = ["a b (1)", "Zürich", "Zurich", "图", "像", "x" * 200]
    touch(tmp_path, *(f"{k}/{n}.png" for n in names for k in ("images", "masks")))
    items = find(tmp_path)
    assert all(i.problem is None for i in items) and len({i.id for i in items}) == len(names)
    assert all(i.id.isascii() and len(i.id) < 140 for i in items)
    assert all(set(i.id) <= set("abcdefghijklmnopqrstuvwxyzZ0123456789_.-") for i in items)
    assert {i.group for i in items} == set(names)


def test_files_that_give_the_same_id_name_each_other(tmp_path):
    touch(tmp_path, "images/a b.png", "images/a_b.png", "masks/a b.png", "masks/a_b.png")
    items = find(tmp_path)
    assert len({i.id for i in items}) == 2
    assert all(i.problem.kind == "same-id" and "a b.png" in i.problem.what and "a_b.png" in i.problem.what
               for i in items)  # fmt: skip


def test_items_can_be_sent_to_another_process(tmp_path):
    import multiprocessing

    folder = make_pairs(tmp_path / "d", 1)
    (folder / "masks" / "a0.png").unlink()
    item = find(folder)[0]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        received = pool.apply(dataclasses.replace, (item,))
    assert received.problem.what == item.problem.what and received.problem.kind == item.problem.kind


def test_layouts_read_no_pixels(tmp_path):
    folder = make_pairs(tmp_path / "d", 2)
    for path in (folder / "images").iterdir():
        path.write_bytes(b"no picture")
    assert all(i.problem is None for i in find(folder))
    Image.new("L", (4, 4)).save(folder / "images" / "a9.png")
    assert by_name(folder)["a9.png"].problem.kind == "missing-mask"


def test_links_may_point_into_declared_folders_such_as_the_cache_of_dvc(tmp_path):
    source, cache = make_pairs(tmp_path / "source", 3), tmp_path / "cache"
    cache.mkdir()
    for path in [*source.glob("*/*.png")]:
        path.rename(cache / f"{path.parent.name}-{path.name}")
        path.symlink_to(cache / f"{path.parent.name}-{path.name}")
    refused = layouts.find(params_for(source).data, source)
    allowed = layouts.find(params_for(source, data={"links_to": [str(cache)]}).data, source)
    assert {item.problem.kind for item in refused if item.problem} == {"outside"} and len(refused) == 3
    assert len(allowed) == 3 and not any(item.problem for item in allowed)


# --- Words ------------------------------------------------------------------------------------------------


def test_words_of_the_images_pattern_are_those_of_its_items_but_for_stem_and_split(tmp_path):
    touch(tmp_path, "train/oslo/s1_a.png", "train/oslo/s1_b.png", "test/san jose=1/s2_a.png")
    touch(tmp_path, *(f"masks/{name}.png" for name in ("a", "b")))
    items = find(tmp_path, images="{split}/{site}/{sensor}_{stem}.png", masks="masks/{stem}.png")
    assert [item.words for item in items] == [
        {"site": "san jose=1", "sensor": "s2"},
        {"site": "oslo", "sensor": "s1"},
        {"site": "oslo", "sensor": "s1"},
    ]
    assert not any(item.words for item in find(tmp_path, images="*/*/*.png", masks="masks/a.png"))


def test_the_same_word_in_composed_and_decomposed_letters_is_one_text(tmp_path):
    for name, text in (("a", "Troms\N{LATIN SMALL LETTER O WITH STROKE}\u00e5"), ("b", "Troms\u00f8a\u030a")):
        touch(tmp_path, f"images/{text}/{name}.png", f"masks/{name}.png")
    assert {i.words["site"] for i in find(tmp_path, images="images/{site}/{stem}.png")} == {
        "Troms\u00f8\u00e5"
    }


@pytest.mark.parametrize(
    ("name", "what", "command"),
    [
        ("a0.nc", "NetCDF", 'NETCDF:"a0.nc":VARIABLE a0.tif'),
        ("a0.h5", "HDF5", 'HDF5:"a0.h5"://DATASET a0.tif'),
        ("a0.zarr", "Zarr", 'ZARR:"a0.zarr":/ARRAY a0.tif'),
        ("a0.svs", "a whole-slide image", "vips tiffsave a0.svs a0.tif"),
    ],
)
def test_a_format_that_is_not_read_is_refused_with_its_conversion(tmp_path, name, what, command):
    folder = make_pairs(tmp_path / "s", 2)
    (folder / "images/a0.png").unlink()
    if name.endswith(".zarr"):
        (folder / "images" / name / "array").mkdir(parents=True)
        (folder / "images" / name / ".zgroup").write_text("{}")
    else:
        (folder / "images" / name).write_bytes(b"content")
    data = params_for(folder).data.model_copy(update={"images": "images/*"})
    problem = layouts.find(data, folder)[0].problem
    assert problem.kind == "unknown-format" and f"({what})" in problem.what and command in problem.remedy
    with pytest.raises(DataError) as caught, open_source(folder / "images" / name):
        pass
    assert caught.value.what == problem.what


def test_images_whose_extension_is_spelled_otherwise_are_noted_with_the_pattern_that_helps(tmp_path):
    folder = make_pairs(tmp_path / "d", 4)
    (folder / "images/a1.png").rename(folder / "images/a1.PNG")
    touch(folder, "images/a9.txt", "masks/a0.PNG")
    data = params_for(folder, data={"images": "images/*.png"}).data
    used = {item.mask.as_posix() for item in layouts.find(data, folder)}
    assert used == {"masks/a0.png", "masks/a2.png", "masks/a3.png"}
    mask, image = layouts.strays(data, folder, used)
    assert mask[:2] == ("mask-without-image", Path("masks/a1.png")) and "images/a1.PNG" in mask[2]
    assert image[:2] == ("images-unmatched", Path("images/a1.PNG")) and "'images/*.*' does" in image[2]
    better = params_for(folder, data={"images": "images/*.*"}).data
    (folder / "images/a9.txt").unlink()
    found = layouts.find(better, folder)
    assert [(item.image.name, item.mask.name) for item in found if not item.problem] == [
        ("a0.png", "a0.png"),
        ("a1.PNG", "a1.png"),
        ("a2.png", "a2.png"),
        ("a3.png", "a3.png"),
    ]
    for name in ("a0", "a2", "a3"):
        (folder / f"images/{name}.png").unlink()
    with pytest.raises(DataError, match=r"(?s)a1.PNG differs only in the extension.*'images/\*.\*'"):
        layouts.find(data, folder)


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("images/*.jpg", ["b.jpeg", "c.JPG", "d.jpe"]),
        ("images/*.JPEG", ["a.jpg", "b.jpeg", "c.JPG", "d.jpe"]),
        ("images/{id}.tif", ["e.TIFF"]),
        ("images/*", []),
    ],
)
def test_spellings_of_one_format_are_other_spellings(tmp_path, pattern, left):
    touch(
        tmp_path,
        *(f"images/{name}" for name in ("a.jpg", "b.jpeg", "c.JPG", "d.jpe", "e.TIFF", "f.tif.aux.xml")),
    )
    data = params_for(tmp_path, data={"images": pattern, "masks": "a.json"}).data
    assert [path.name for kind, path, _ in layouts.strays(data, tmp_path, set())] == left


@pytest.mark.parametrize("masks", ["masks/{stem}.png", "masks/{stem}.*", "masks/*.png"])
@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_mask_whose_name_has_another_unicode_form_belongs_to_its_image(tmp_path, masks, forms):
    image, mask = (unicodedata.normalize(form, "Gebäude 1") for form in forms)
    touch(tmp_path, f"images/{image}.png", f"masks/{mask}.png")
    data = params_for(tmp_path, data={"images": "images/*.png", "masks": masks}).data
    (item,) = layouts.find(data, tmp_path)
    assert item.problem is None and item.mask == Path(f"masks/{mask}.png")


def test_a_mask_that_differs_in_case_is_named_without_its_extension(tmp_path):
    touch(tmp_path, "images/IMG_3.png", "masks/img_3.png")
    data = params_for(tmp_path, data={"images": "images/*.png", "masks": "masks/{stem}.*"}).data
    (item,) = layouts.find(data, tmp_path)
    assert "img_3.png exists: upper and lower case differ" in item.problem.what


METADATA = ("qml", "qgz", "tif.vat.dbf", "tif.aux.xml", "aux", "cpg", "lock", "tif.lock", "tif.xml", "sld")


def described(folder, xml="<metadata/>"):
    touch(folder, "images/a0.tif", "masks/a0.tif")
    for part in ("images", "masks"):
        touch(folder, *(f"{part}/a0.{ending}" for ending in METADATA))
        (folder / part / "a0.xml").write_text(f'<?xml version="1.0"?>{xml}')
    return params_for(folder, data={"images": "images/*", "masks": "masks/{stem}.*"}).data


def test_metadata_of_an_image_is_no_item_and_no_mask(tmp_path):
    data = described(tmp_path)
    found = layouts.find(data, tmp_path)
    assert [(i.image.as_posix(), i.mask.as_posix(), i.problem) for i in found] == [
        ("images/a0.tif", "masks/a0.tif", None)
    ]
    assert [path.as_posix() for path in mask_files(data, tmp_path)] == ["masks/a0.tif"]


@pytest.mark.parametrize("xml", ["<annotations><image/></annotations>", "<annotation>"])
def test_annotations_beside_a_raster_are_no_metadata(tmp_path, xml):
    data = described(tmp_path, xml)
    (tmp_path / "images/a0.xml").unlink()
    error = layouts.find(data, tmp_path)[0].problem
    assert "2 files match" in error.what and "write the file extension in data.masks" in error.remedy
    assert "masks/{stem}.tif" in error.remedy
    (tmp_path / "masks/a0.tif").unlink()
    (item,) = layouts.find(data, tmp_path)
    assert item.mask.as_posix() == "masks/a0.xml" and item.problem is None


def test_the_code_page_of_a_shapefile_comes_with_it_in_an_inbox():
    assert not is_ignored("masks/a0.cpg") and is_ignored("masks/a0.qml")
