"""Path patterns: what they match, and the masks, groups and splits that they give."""

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from segcore.errors import DataError
from segcore.io.layouts import _patterns
from tests.support.layouts import by_name, find, problem, touch
from tests.support.tiny import make_pairs, write_tif


def test_pairs_by_stem_are_sorted_and_without_problems(tmp_path):
    items = find(make_pairs(tmp_path / "d", 3))
    assert [i.id for i in items] == ["a0", "a1", "a2"] == [i.group for i in items]
    assert [i.mask.as_posix() for i in items] == [f"masks/a{i}.png" for i in range(3)]
    assert all(i.problem is None and i.split is None for i in items)


@pytest.mark.parametrize(
    ("images", "masks", "group"),
    [
        ("*/images/*.png", "{parent2}/masks/{stem}.png", "{parent2}"),
        ("*/images/*.png", "*/masks/*.png", "{parent2}"),
        ("{patient}/images/{image}.png", "{patient}/masks/{image}.png", "{patient}"),
        ("**/images/*.png", "**/masks/{name}", "{parent2}"),
        ("**/a?.png", "**/../masks/a?.png", "{parent2}"),
    ],
)
def test_one_folder_per_patient(tmp_path, images, masks, group):
    for patient in ("p 1", "p2"):
        make_pairs(tmp_path / patient, 2)
    items = [
        i for i in find(tmp_path, images=images, masks=masks, group=group) if i.image.parent.name == "images"
    ]
    assert [i.group for i in items] == ["p2", "p2", "p 1", "p 1"]
    assert all(i.problem is None and (tmp_path / i.mask).samefile(tmp_path / i.group / "masks" / i.image.name)
               for i in items)  # fmt: skip


def test_ids_of_folders_are_stable(tmp_path):
    make_pairs(tmp_path / "p 1", 1)
    items = find(tmp_path, images="*/images/*.png", masks="*/masks/*.png")
    assert [i.id for i in items] == ["p_1__images__a0"]


def test_images_of_tiles_with_spaces(tmp_path):
    touch(
        tmp_path,
        "Tile 1/images/p 001.jpg",
        "Tile 1/masks/p 001.png",
        "Tile 22/images/p.jpg",
        "Tile 22/masks/p.png",
    )
    items = find(
        tmp_path, images="Tile */images/*.jpg", masks="Tile */masks/{stem}.png", group="Tile {parent2}",
    )  # fmt: skip
    assert [i.problem for i in items] == [None, None] and items[0].group == "Tile Tile 1"


def test_a_repeated_word_must_match_the_same_text(tmp_path):
    touch(tmp_path, "a/a_img.png", "a/b_img.png", "a/a_mask.png")
    items = find(tmp_path, images="{case}/{case}_img.png", masks="{case}/{case}_mask.png")
    assert [i.image.as_posix() for i in items] == ["a/a_img.png"]


def test_brackets_in_names_are_not_wildcards(tmp_path):
    touch(tmp_path, "Tile [1]/a.png", "Tile 1/a.png", "masks/a.png")
    assert [i.image.as_posix() for i in find(tmp_path, images="Tile [1]/*.png")] == ["Tile [1]/a.png"]


def test_masks_in_the_folder_of_their_images_are_not_images(tmp_path):
    touch(tmp_path, "d/a.png", "d/a_mask.png", "d/b.png", "d/b_mask.png")
    items = find(tmp_path, images="d/*.png", masks="d/{stem}_mask.png")
    assert [(i.id, i.mask.name) for i in items] == [("a", "a_mask.png"), ("b", "b_mask.png")]


def test_one_file_of_polygons_is_shared_by_all_images(tmp_path):
    touch(tmp_path, "train/img/a.tif", "train/img/b.tif", "train/osm/labels_2019.geojson")
    for masks in ("train/osm/labels_2019.geojson", "train/osm/labels_*.geojson"):
        items = find(tmp_path, images="train/img/{tile}.tif", masks=masks)
        assert [i.mask.as_posix() for i in items] == ["train/osm/labels_2019.geojson"] * 2
    touch(tmp_path, "train/osm/labels_2020.geojson")
    kind, what = problem(tmp_path, "a.tif", images="train/img/{tile}.tif", masks="train/osm/labels_*.geojson")
    assert kind == "missing-mask" and "2 files match 'train/osm/labels_*.geojson' as its mask" in what
    kind, what = problem(tmp_path, "a.tif", images="train/img/{tile}.tif", masks="train/*.json")
    assert (kind, what) == ("missing-mask", "a.tif: has no mask, train/*.json is missing")


def test_baselines_and_valid_masks_are_matched_too(tmp_path):
    folder = make_pairs(tmp_path / "d", 2)
    touch(folder, "valid/a0.png", "valid/a1.png", "second/a0.png", "second/a1.png")
    items = find(folder, valid="valid/{name}", baselines={"second": "second/{stem}.png"})
    assert items[1].valid.as_posix() == "valid/a1.png"
    assert {k: v.as_posix() for k, v in items[1].baselines.items()} == {"second": "second/a1.png"}
    (folder / "second" / "a1.png").unlink()
    assert problem(folder, "a1.png", baselines={"second": "second/{stem}.png"}) == (
        "missing-mask", "a1.png: has no baseline second, second/a1.png is missing"
    )  # fmt: skip


def test_a_folder_that_matches_is_a_series_if_it_holds_files(tmp_path):
    touch(tmp_path, "p1.a/ct/1.dcm", "p1.a/seg.dcm", "p2/seg.dcm")
    (tmp_path / "p2" / "ct").mkdir()
    items = find(tmp_path, images="*/ct", masks="{parent}/seg.dcm", group="{parent}")
    assert [(i.id, i.image.as_posix(), i.group, i.problem) for i in items] == [
        ("p1.a__ct", "p1.a/ct", "p1.a", None)
    ]


@pytest.mark.parametrize(
    ("name", "stem"), [("x.nii.gz", "x"), ("x.y.png", "x.y"), ("X.TIF", "X"), ("x.foo", "x"), ("x", "x")]
)
def test_stems(name, stem):
    assert _patterns.stem_of(name) == stem


def test_the_split_of_the_path_is_translated(tmp_path):
    touch(tmp_path, *(f"{s}/{k}/{s}1.png" for s in ("train", "val", "old") for k in ("images", "masks")))
    given_patterns = {"images": "{split}/images/*.png", "masks": "{split}/masks/*.png"}
    items = by_name(tmp_path, **given_patterns, splits={"train": "train", "val": "validation"})
    assert (items["train1.png"].split, items["val1.png"].split) == ("train", "validation")
    assert items["old1.png"].problem.kind == "unknown-split" and "'old'" in items["old1.png"].problem.what
    assert {i.split for i in find(tmp_path, **given_patterns)} == {None}


def test_cells_come_from_the_centre_of_the_image(tmp_path):
    for name in ("a", "b"):
        write_tif(tmp_path / "images" / f"{name}.tif", np.ones((1, 40, 40), np.uint8))
        touch(tmp_path, f"masks/{name}.tif")
    over = {"images": "images/*.tif", "masks": "masks/{stem}.tif"}
    assert {i.group for i in find(tmp_path, **over, group="{cell:500}")} == {"E500000N4999500"}
    assert find(tmp_path, **over, group="x_{cell:7.5}")[0].group == "x_E500010N4999987.5"
    make_pairs(tmp_path / "d", 1)
    kind, what = problem(tmp_path / "d", "a0.png", group="{cell:500}")
    assert kind == "unusable" and "a0.png: has no transform" in what
    (tmp_path / "images" / "a.tif").write_bytes(b"")
    assert problem(tmp_path, "a.tif", **over, group="{cell:500}")[0] == "empty-file"


def test_cells_of_stacks_and_of_longitudes_past_180_are_those_of_their_place(tmp_path):
    for name, west in (("a", 200.0), ("b", -160.0)):
        for page in range(2):
            write_tif(
                tmp_path / "images" / f"{name}.tif", np.full((1, 40, 40), page + 1, np.uint8), crs="EPSG:4326",
                transform=rasterio.Affine(0.01, 0, west, 0, -0.01, -16), append_subdataset=page > 0,
            )  # fmt: skip
        touch(tmp_path, f"masks/{name}.tif")
    over = {"images": "images/*.tif", "masks": "masks/{stem}.tif", "pages": "planes"}
    assert {i.group for i in find(tmp_path, **over, group="{cell:1}")} == {"W160S17"}


@pytest.mark.parametrize(
    ("x", "y", "name"),
    [(499.9, -0.1, "E0S500"), (-0.1, 1000.0, "W500N1000"), (1e7, 5e6, "E10000000N5000000")],
)
def test_cell_names(x, y, name):
    assert _patterns.cell_name((1, 0, x, 0, -1, y), 0, 0, _patterns.Decimal(500)) == name


PART = st.sampled_from(
    ["*", "**", "?", "{", "}", "{a}", "{stem}", "{parent}", "{cell:5}", "{}", ".", "..", "a", "/"]
)
PATTERN = st.lists(PART | st.text(max_size=3), max_size=8).map("".join)
PATH = st.lists(
    st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=4), min_size=1, max_size=4
)


@settings(max_examples=200, deadline=None)
@given(images=PATTERN, other=PATTERN, path=PATH.map("/".join))
def test_patterns_raise_nothing_but_data_errors(images, other, path):
    kind = None
    try:
        pattern = _patterns.images_pattern(images)
        _patterns.check_placeholders("data.masks", other, pattern)
        match = pattern.match(path) or _patterns.Match(_patterns.PurePosixPath(path))
        filled = _patterns.fill("data.masks", other, match, lambda size: "E0N0")
        assert isinstance(_patterns.text_of(filled), str)
        _patterns.Pattern(filled)
        assert set(_patterns.safe_id(path)) <= set(map(chr, range(33, 127)))
    except DataError as error:
        kind = error.kind
    assert kind in (None, "bad-pattern")


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=5))
def test_a_star_matches_any_text_of_a_name(text):
    match = _patterns.images_pattern("x/*_{word}.png").match(f"x/{text}_end.png")
    assert match is not None and match.wild["*"][0] + "_" + match.words["word"] == text + "_end"
