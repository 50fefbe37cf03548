"""A table may name images and masks."""

import pandas as pd
import pytest

from tests.support.layouts import fails, find, touch
from tests.support.tiny import make_pairs

ROWS = [
    {
        "image": "images/a0.png",
        "mask": "masks/a0.png",
        "group": "g 1",
        "split": "train",
        "second": "masks/a1.png",
    },
    {"image": "images/a1.png", "mask": "masks/a1.png", "group": "", "split": "val", "second": "masks/a0.png"},
    {
        "image": "images\\a2.png",
        "mask": "./masks/a2.png",
        "group": "g 1",
        "split": "",
        "second": "masks/a0.png",
    },
]


def listed(folder, rows, form="csv", **data):
    make_pairs(folder, 4)
    table = pd.DataFrame(rows)
    if form == "parquet":
        table.to_parquet(folder / "list.parquet")
    else:
        table.to_csv(folder / "list.csv", index=False, sep={"csv": ",", "semicolon": ";", "tab": "\t"}[form])
    return {"listing": "list.parquet" if form == "parquet" else "list.csv", **data}


@pytest.mark.parametrize("form", ["csv", "semicolon", "tab", "parquet"])
def test_a_listing_gives_items(tmp_path, form):
    data = listed(tmp_path / "d", ROWS, form, baselines={"other": "second"})
    items = find(tmp_path / "d", **data)
    assert [(i.id, i.group, i.split, i.problem) for i in items] == [
        ("images__a0", "g 1", "train", None),
        ("images__a1", "a1", "validation", None),
        ("images__a2", "g 1", None, None),
    ]
    assert (
        items[2].mask.as_posix() == "masks/a2.png"
        and items[0].baselines["other"].as_posix() == "masks/a1.png"
    )


def test_the_split_of_a_listing_is_mapped(tmp_path):
    data = listed(tmp_path / "d", ROWS, splits={"val": "test", "train": "train"})
    assert [i.split for i in find(tmp_path / "d", **data)] == ["train", "test", None]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"mask": "masks/gone.png"}, "missing-mask"),
        ({"mask": ""}, "missing-mask"),
        ({"image": "images/gone.png"}, "unreadable"),
        ({"image": ""}, "missing-mask"),
        ({"image": "../secret.png"}, "outside"),
        ({"image": "/etc/hostname"}, "outside"),
        ({"mask": "../secret.png"}, "outside"),
        ({"valid": "../secret.png"}, "outside"),
        ({"second": "/etc/hostname"}, "outside"),
        ({"split": "holdout"}, "unknown-split"),
        ({"image": "images/a1.zip"}, "archive"),
        ({"image": "images/a1.txt"}, "unknown-format"),
        ({"image": "images/a\nb.png"}, "bad-name"),
        ({"image": "images/a0.png"}, "same-id"),
        ({"image": "images/\0.png"}, "bad-name"),
    ],
)
def test_bad_rows_of_a_listing_are_quarantined(tmp_path, change, kind):
    data = listed(tmp_path / "d", [ROWS[0], {**ROWS[1], **change}], "parquet", baselines={"other": "second"})
    touch(tmp_path, "secret.png", "d/images/a1.zip", "d/images/a1.txt")
    items = find(tmp_path / "d", **data)
    assert kind in {i.problem.kind for i in items if i.problem}
    assert all(i.problem is None or i.problem.what.isprintable() for i in items)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "cannot be read"),
        (b"image;label\na;b\n", "lacks the column 'mask'"),
        (b"a,b\n1,2\n", "lacks the column 'image'; it has 'a', 'b'"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b'image,mask\n"a,b\n', "cannot be read"),
        (b"image,mask, mask\n1,2,3\n", "has a column twice"),
    ],
)
@pytest.mark.parametrize("extension", ["csv", "parquet"])
def test_a_listing_that_cannot_be_used_fails(tmp_path, content, expected, extension):
    (tmp_path / f"list.{extension}").write_bytes(content)
    if extension == "parquet":
        expected = "cannot be read"
    kind, text = fails(tmp_path, listing=f"list.{extension}")
    assert kind == "no-list" and text.startswith(f"list.{extension}: ") and expected in text


def test_a_listing_must_exist_within_the_folder_and_have_rows(tmp_path):
    touch(tmp_path, "out.csv", "d/x")
    assert fails(tmp_path / "d", listing="list.csv")[0] == "no-list"
    assert fails(tmp_path / "d", layout="listing")[0] == "no-list"
    kind, text = fails(tmp_path / "d", listing="../out.csv")
    assert kind == "no-list" and "is outside" in text
    (tmp_path / "d" / "list.csv").write_text("image,mask\n")
    assert fails(tmp_path / "d", listing="list.csv")[0] == "no-images"
    (tmp_path / "d" / "list.csv").write_text("image,mask\na,b\n")
    kind, text = fails(tmp_path / "d", listing="list.csv", baselines={"other": "second"})
    assert kind == "no-list" and "lacks the column 'second'" in text


def test_absolute_paths_within_the_folder_become_relative(tmp_path):
    folder = tmp_path / "d"
    data = listed(folder, [{"image": str(folder / "images/a0.png"), "mask": str(folder / "masks/a0.png")}])
    item = find(folder, **data)[0]
    assert (item.image.as_posix(), item.mask.as_posix(), item.id) == (
        "images/a0.png",
        "masks/a0.png",
        "images__a0",
    )


def test_further_columns_are_words_unless_they_have_no_name_or_text(tmp_path):
    rows = [
        row | {"site": site, "sun angle": "30", "sensor": "s1"} for row, site in zip(ROWS, "ab ", strict=True)
    ]
    items = find(tmp_path / "d", **listed(tmp_path / "d", rows, baselines={"other": "second"}))
    assert [item.words for item in items] == [
        {"site": "a", "sensor": "s1"},
        {"site": "b", "sensor": "s1"},
        {"sensor": "s1"},
    ]
