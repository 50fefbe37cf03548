"""The data card and the printed summary: every problem is listed, any data can be shown, the page stays small."""

import html
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from segcore.errors import DataError
from segcore.ingest.problems import KINDS
from tasks.data_card import card
from tasks.data_card.pictures import MOST_PAIRS, MOST_PICTURES, choose, distinct_parts, pictured_pairs
from tasks.data_card.values import found
from tests.support.fake_catalogue import bad_row, card_data, card_row, catalogue

LINKS = ["a", "b", "kind", "detail"]
NO_LINKS = pd.DataFrame(columns=LINKS)


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A store of packed items, with the picture cache beside it."""
    (tmp_path / "items").mkdir()
    return tmp_path / "items"


def _card(
    rows: list[dict[str, Any]], store: Path, links: pd.DataFrame = NO_LINKS, strays: Any = (), **data: Any
) -> str:
    target = store / "reports" / "data.html"
    assert card.write_card(catalogue(rows), links, list(strays), card_data(**data), store, target) == target
    return target.read_text(encoding="utf-8")


class _Tags(HTMLParser):
    """Collects the attributes of every tag and checks that tags close in order."""

    VOID = frozenset({"meta", "link", "img", "input", "path", "rect", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)


def _sound(page: str) -> _Tags:
    """Check that a page is well formed and loads nothing external."""
    tags = _Tags(page)
    assert not tags.wrong and not tags.open
    addresses = [
        a[k] or "" for _, a in tags.found for k in ("src", "href", "xlink:href", "action", "data") if k in a
    ]
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"https?://|@import|url\(", page)
    ids = [a["id"] for _, a in tags.found if "id" in a]
    assert len(ids) == len(set(ids))
    assert {address[1:] for address in addresses if address.startswith("#")} <= set(ids)
    assert all(a.get("alt") for tag, a in tags.found if tag == "img" and a.get("src"))
    return tags


def _pictures(tags: _Tags) -> int:
    return sum(tag == "img" and "src" in a for tag, a in tags.found)


MIXED = [
    bad_row("cut", "unreadable", "cut.tif: ends at byte 512 of 4096", "copy it again"),
    bad_row("torn", "unreadable", "torn.tif: ends at byte 7 of 4096", "copy it again"),
    bad_row("wide", "size-mismatch", "wide.tif and its mask wide.png: sizes differ", "crop the mask"),
]


def test_every_quarantined_file_is_listed_with_reason_and_remedy(tmp_path: Path) -> None:
    page = html.unescape(_card([card_row("good", tmp_path), *MIXED], tmp_path))
    for bad in MIXED:
        assert bad["image"] in page and bad["remedy"] in page
        assert bad["reason"].removeprefix(f"{bad['id']}.tif: ") in page
    assert page.count("copy it again") == 1  # a remedy shared by many files is shown once
    assert "3 of 4 items are quarantined, more than data.max_quarantined (0.5) allows" in page


def test_page_is_self_contained_and_shows_each_item_with_and_without_mask(tmp_path: Path) -> None:
    tags = _sound(_card([card_row("one", tmp_path), card_row("two", tmp_path), *MIXED], tmp_path))
    assert _pictures(tags) == 4


def test_file_names_reasons_and_notes_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'"
    rows = [
        card_row("good", tmp_path, id=evil, group=evil + "g", notes=json.dumps([["empty-mask", evil]])),
        bad_row("bad", "unreadable", f"{evil}: cannot be read", evil) | {"image": evil},
    ]
    links = pd.DataFrame([(evil, evil, "duplicate", evil)], columns=LINKS)
    page = _card(rows, tmp_path, links, [("mask-without-image", Path(evil), evil)], source=evil)
    assert "<script>alert" not in page and html.escape("<script>alert(1)</script>") in page
    scripts = [tag for tag, _ in _sound(page).found if tag == "script"]
    assert len(scripts) == 1


def test_stray_mask_whose_name_is_not_utf8_is_listed(tmp_path: Path) -> None:
    stray = Path(b"masks/sk\xe9ne.tif".decode("utf-8", "surrogateescape"))
    rows = [card_row("good", tmp_path)]
    assert "masks/sk\\udce9ne.tif" in _card(rows, tmp_path, strays=[("mask-without-image", stray, "")])
    assert "masks/sk\\udce9ne.tif" in card.summary(
        catalogue(rows), NO_LINKS, [("mask-without-image", stray, "")]
    )


def test_card_of_nothing_accepted_lists_the_problems(tmp_path: Path) -> None:
    page = _card(MIXED, tmp_path)
    assert "None of the 3 items can be used." in page and _pictures(_sound(page)) == 0


@pytest.mark.parametrize(
    ("bands", "dtype", "depth"), [(1, "uint8", 1), (2, "float32", 1), (13, "uint16", 1), (1, "int16", 5)]
)
def test_one_item_of_any_bands_dtype_and_depth_can_be_shown(
    tmp_path: Path, bands: int, dtype: str, depth: int
) -> None:
    page = _card([card_row("one", tmp_path, bands, dtype, depth)], tmp_path)
    assert "The one item can be used." in page and _pictures(_sound(page)) == 2
    assert ("plane 3 of 5" in page) == (depth == 5)


def test_volumes_show_spacing_and_maps_their_pixel_size(tmp_path: Path) -> None:
    volume = card_row("v", tmp_path, 1, "int16", 5, crs=None, transform="null", orientation="LPS")
    assert "3 × 1 × 1" in (page := _card([volume], tmp_path)) and "LPS" in page
    assert "0.5 metre" in _card([card_row("m", tmp_path)], tmp_path)


def test_page_of_ten_thousand_items_stays_small(tmp_path: Path) -> None:
    good = [card_row("a", tmp_path, notes=json.dumps([["nan-pixels", "7 pixels"]])), card_row("bb", tmp_path)]
    rows = [good[i % 2] | {"id": f"folder__image_{i:05}", "group": f"g{i % 700}"} for i in range(5000)]
    rows += [
        bad_row(f"b{i}", "label-values", f"b{i}.tif: holds {i}, which is no class", "map it")
        for i in range(5000)
    ]
    names = [row["id"] for row in rows[:5000]]
    links = pd.DataFrame([(a, b, "duplicate", "same") for a, b in pairwise(names)], columns=LINKS)
    page = _card(rows, tmp_path, links)
    assert _pictures(_sound(page)) == 2 * MOST_PICTURES + 2 * MOST_PAIRS + 1, "one kind of note"
    assert len(page) < 5_000_000
    assert "b4999.tif" in page and "and 1,500 more" in page


def test_missing_packed_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.safetensors"):
        _card([card_row("one", tmp_path, packed="gone.safetensors")], tmp_path)
    assert not (tmp_path / "reports" / "data.html").exists()


def test_linked_pairs_are_shown_side_by_side_with_every_kind_in_turn(tmp_path: Path) -> None:
    rows = [card_row(name, tmp_path) for name in "abc"]
    links = pd.DataFrame(
        [("a", "b", "duplicate", ""), ("a", "c", "duplicate", ""), ("b", "c", "same-place", "overlap 0.9")],
        columns=LINKS,
    )
    assert list(pictured_pairs(links, 2)["kind"]) == ["duplicate", "same-place"]
    assert "overlap 0.9" in (page := _card(rows, tmp_path, links)) and _pictures(_sound(page)) == 6 + 6


def test_remarkable_items_are_among_those_shown(tmp_path: Path) -> None:
    def with_water(i: int, water: int) -> dict[str, Any]:
        counts = {"background": 1000 - water, "water": water, "roof": 0}
        return {"id": f"i{i}", "pixels_per_class": json.dumps(counts), "notes": "[]", "valid_share": 1.0}

    table = pd.DataFrame([with_water(i, i) for i in range(100)]).assign(height=10, width=100, depth=1)
    table.loc[40, "notes"] = json.dumps([["constant-band", "band 1"]])
    table.loc[50, ["valid_share", "width"]] = [0.2, 120]
    why = {reason: row for row, reason in choose(table, card_data()) if reason}
    assert why == {
        "most foreground": 99,
        "least foreground": 1,
        "no foreground": 0,
        "constant-band": 40,
        "least valid": 50,
    }
    rows = [row for row, _ in choose(table, card_data())]
    assert len(rows) == MOST_PICTURES and rows == sorted(rows, reverse=True)


def test_names_are_shortened_to_their_distinct_parts() -> None:
    assert distinct_parts(["train__a_1_S1.tif", "train__b_2_S1.tif"]) == ["a_1", "b_2"]
    assert distinct_parts(["area1__images__f_00", "area2__images__f_07"]) == ["area1_00", "area2_07"]
    assert distinct_parts(["only_one"]) == ["only_one"] and distinct_parts(["same", "same"]) == [
        "same",
        "same",
    ]


def test_printed_summary_has_counts_kinds_examples_and_each_remedy_once(tmp_path: Path) -> None:
    many = [
        bad_row(f"n{i}", "empty-file", f"n{i}.tif: is empty (0 bytes)", "restore it from its source")
        for i in range(5)
    ]
    rows = [card_row("one", tmp_path, notes=json.dumps([["empty-mask", "background alone"]])), *MIXED, *many]
    links = pd.DataFrame([("one", "two", "near-duplicate", "4 of 64 bits")], columns=LINKS)
    text = card.summary(catalogue(rows), links, [("mask-without-image", Path("masks/lone.png"), "")])
    assert "9 items: 1 accepted, 8 quarantined, 1 with notes, 1 group" in text
    assert max(map(len, text.splitlines())) <= 100 and "\033" not in text
    assert (
        "    5  empty-file: the file is empty (0 bytes)" in text
        and text.count("restore it from its source") == 1
    )
    assert (
        "images/n2.tif: is empty (0 bytes)" in text and "images/n3.tif" not in text and "and 2 more" in text
    )
    assert "images/wide.tif and its mask wide.png: sizes differ" in text
    for words in (
        "masks/lone.png",
        "one: background alone",
        "one and two: 4 of 64 bits",
        "water",
        "3 of uint8",
    ):
        assert words in text
    numbers = [line.index("%") for line in text.splitlines() if re.match(r"  (background|water|roof) ", line)]
    assert len(set(numbers)) == 1 and len(numbers) == 3


def test_every_kind_of_note_has_a_picture_of_its_first_item_and_advice(tmp_path: Path) -> None:
    notes = [[], [["turned", "as tag 6 says"]], [["turned", "as tag 3 says"], ["empty-mask", "none"]]]
    rows = [card_row(f"i{n}", tmp_path, notes=json.dumps(texts)) for n, texts in enumerate(notes)]
    page = _card(rows, tmp_path, strays=[("mask-without-image", Path("masks/lone.png"), "")])
    section = html.unescape(page[page.index('<section id="notes"') :])
    shown = re.findall(r'<img src="data:image[^"]+" alt="([^"]*)"', section)
    assert shown == [
        "i1: image with its labels; turned: as tag 6 says",
        "i2: image with its labels; empty mask: none",
    ]
    assert KINDS["empty-mask"].advice in section and "2 items" in section
    text = card.summary(catalogue(rows), NO_LINKS, [])
    assert "    2  turned" in text and "Advice: if there are objects in the image" in text


def test_no_advice_is_to_do_nothing() -> None:
    noted = {name: kind.advice for name, kind in KINDS.items() if kind.outcome == "noted"}
    assert not [name for name, advice in noted.items() if not advice or advice.startswith("nothing")]


def test_values_found_are_summed_beside_the_class_that_they_become(tmp_path: Path) -> None:
    values = {0: "background", 1: "water", "#FFB300": "roof", 9: "ignore"}
    data = card_data(label_values=values)
    counts = [{"0": 90, "1": 5, "#ffb300": 5}, {"1": 20, "9": 2, "77": 1}, {}]
    rows = [card_row(f"i{n}", tmp_path, label_counts=json.dumps(c)) for n, c in enumerate(counts)]
    table = found(catalogue(rows), data)
    assert table is not None
    assert [(r["value"], r["count"], r["items"], r["class"]) for r in table["rows"]] == [
        ("0", 90, 1, "background"),
        ("1", 25, 2, "water"),
        ("#ffb300", 5, 1, "roof"),
        ("9", 2, 1, "ignored"),
        ("77", 1, 1, ""),
    ]
    assert table["other"] == 0 and "Values found" in _card(rows, tmp_path, label_values=values)


@pytest.mark.parametrize(
    ("value", "values", "expected"),
    [
        ("130", {"0-127": "background", "128-255": "roof"}, "roof"),
        ("3 kidney", {3: "roof", "kidney": "water"}, "roof"),
        ("4 kidney", {3: "roof", "kidney": "water"}, "water"),
        ("id 3", {3: "roof"}, "roof"),
        ("1.0", {1: "water"}, "water"),
        ("polygons", {1: "roof"}, "roof"),
        ("polygons", {"others": "roof"}, "roof"),
        ("shed", {"house": "roof", "others": "water"}, "water"),
        # found by its id, which the name does not show
        ("shed", {7: "roof", "others": "water"}, ""),
        ("yes", {"yes": "roof"}, "roof"),
    ],
)
def test_the_class_of_a_value_is_that_of_its_key_range_or_number(
    value: str, values: dict[Any, str], expected: str, tmp_path: Path
) -> None:
    row = card_row("a", tmp_path, label_counts=json.dumps({value: 1}))
    table = found(catalogue([row]), card_data(label_values=values))
    assert table is not None and table["rows"][0]["class"] == expected


def test_object_numbers_are_one_row_per_class(tmp_path: Path) -> None:
    data = card_data(
        instances=True, label_values={0: "background", "1-99": "water", 100: "roof", "others": "roof"}
    )
    counts = [{"0": 900, "1": 40, "2": 5, "100": 8, "101": 3}, {"2": 5, "205": 7, "#FFB300": 1}]
    rows = [card_row(f"i{n}", tmp_path, label_counts=json.dumps(c)) for n, c in enumerate(counts)]
    table = found(catalogue(rows), data)
    assert table is not None
    assert [(r["value"], r["count"], r["items"], r["class"]) for r in table["rows"]] == [
        ("0", 900, 1, "background"),
        ("2 object numbers", 50, 2, "water"),
        ("3 object numbers", 11, 2, "roof"),
        ("100", 8, 1, "roof"),
    ]
    # the values of a property of polygons are no numbers of objects
    polygons = found(catalogue([row | {"label": "shapes.geojson"} for row in rows]), data)
    assert polygons is not None and "205" in {row["value"] for row in polygons["rows"]}


def test_annotations_without_objects_are_explained_and_unused_objects_are_pointed_out(tmp_path: Path) -> None:
    label = {"label": "shapes.geojson", "label_counts": json.dumps({"polygons": 523})}
    row = card_row("a", tmp_path, objects=517, **label)
    assert "Of the 523 annotations, 517 are objects" in _card([row], tmp_path)
    assert "523 annotations" not in _card([row | {"objects": 523}], tmp_path)
    hint = "517 objects are in the annotations; set data.instances: true to score and count them"
    assert hint in card.summary(catalogue([row]), NO_LINKS, [], card_data())
    assert "\n  objects      517\n" in card.summary(catalogue([row]), NO_LINKS, [])
    for used in ({"instances": True}, {"instances": "components"}, {"objects": "ids/{stem}.tif"}):
        assert "score and count" not in card.summary(catalogue([row]), NO_LINKS, [], card_data(**used))
    assert "score and count" not in card.summary(
        catalogue([card_row("b", tmp_path)]), NO_LINKS, [], card_data()
    )


def test_rare_values_are_counted_and_a_catalogue_without_values_is_read(tmp_path: Path) -> None:
    counts = json.dumps({str(n): 1000 - n for n in range(100)})
    table = found(catalogue([card_row("a", tmp_path, label_counts=counts)]), card_data())
    assert table is not None and len(table["rows"]) == 30 and table["other"] == 70
    assert table["other_count"] == sum(1000 - n for n in range(30, 100))
    old = catalogue([card_row("a", tmp_path)]).drop(columns="label_counts")
    assert found(old, card_data()) is None
    target = tmp_path / "old.html"
    assert "Values found" not in card.write_card(old, NO_LINKS, [], card_data(), tmp_path, target).read_text()


def test_printed_summary_of_nothing_accepted_and_hostile_names(tmp_path: Path) -> None:
    name = "a\033[31m\n" + "x" * 150
    text = card.summary(
        catalogue([bad_row("a", "bad-name", f"{name}: line break", "rename it")]), NO_LINKS, []
    )
    assert "\033" not in text and "\\x1b[31m\\n" in text and max(map(len, text.splitlines())) <= 100
    assert text.endswith("The one item cannot be used.")


def test_a_card_of_one_more_item_reuses_cached_pictures(tmp_path: Path) -> None:
    store = tmp_path / "items"
    store.mkdir()
    rows = [card_row(f"i{n:02}", store) for n in range(41)]
    for n, row in enumerate(rows):
        row["pixels_per_class"] = json.dumps(
            dict(zip(card_data().classes, (2000 - 40 * n, 40 * n, 240), strict=True))
        )
    _card(rows[:40], store)
    (drawn,) = tmp_path.glob("pictures/*/cells.json")
    before = json.loads(drawn.read_text())
    # pictures come from the cache and are not drawn again: their packed files may even be missing
    for name in before:
        (store / name).unlink()
    page = _card([*rows[:17], rows[40], *rows[17:40]], store)
    after = json.loads(drawn.read_text())
    assert len(before) == len(after) == MOST_PICTURES and _pictures(_sound(page)) == 2 * MOST_PICTURES
    assert len(set(before) & set(after)) >= MOST_PICTURES - 1


def test_chosen_items_are_spread_evenly_when_some_are_cached(tmp_path: Path) -> None:
    rows = [card_row(f"i{n:03}", tmp_path) for n in range(1)] * 200
    table = catalogue([{**row, "id": f"i{n}", "packed": f"p{n}"} for n, row in enumerate(rows)])
    first = [row for row, _ in choose(table, card_data())]
    known = {f"p{row + 3}" for row in first}
    again = [row for row, _ in choose(table, card_data(), known=known)]
    assert len(set(again)) == MOST_PICTURES and sum(f"p{row}" in known for row in again) >= MOST_PICTURES - 3
    assert (
        max(b - a for a, b in zip(sorted(again), sorted(again)[1:], strict=False)) <= 2 * 200 / MOST_PICTURES
    )


def test_a_problem_of_a_file_that_items_share_is_printed_once_with_its_name_and_the_number(
    tmp_path: Path,
) -> None:
    text = "all.json: is not valid JSON"
    shared = [bad_row(f"n{i}", "unreadable", text, "repair it") | {"label": "all.json"} for i in range(7)]
    masks = [
        bad_row(f"m{i}", "label-values", f"m{i}.png: has the value {i}", "declare it")
        | {"image": f"images/m{i}.png", "label": f"masks/m{i}.png"}
        for i in (1, 2)
    ]
    printed = card.summary(catalogue([*shared, *masks]), NO_LINKS, [])
    assert printed.count("is not valid JSON") == 1 and "all.json: is not valid JSON (7 items)" in printed
    assert "masks/m1.png: has the value 1" in printed and "more" not in printed
    page = _card([*shared, *masks], tmp_path)
    _sound(page)
    assert page.count("is not valid JSON (7 items)") == 1 and "The first" not in page


def test_a_set_of_look_alikes_is_told_with_the_setting(tmp_path: Path) -> None:
    rows = [card_row("one", tmp_path), card_row("two", tmp_path)]
    links = pd.DataFrame([("one", "two", "near-duplicate", "alike")], columns=LINKS)
    links.attrs["alike_share"] = 0.38
    for text in (card.summary(catalogue(rows), links, []), _card(rows, tmp_path, links)):
        assert "38% of all pairs look alike" in text and "split.links" in text


def test_several_notes_of_an_item_count_as_one_item(tmp_path: Path) -> None:
    notes = [["polygons-outside", f"polygon {i} is outside"] for i in range(3)]
    rows = [{**card_row(name, tmp_path), "notes": json.dumps(notes[: i + 1])} for i, name in enumerate("ab")]
    printed = card.summary(catalogue(rows), NO_LINKS, [])
    assert "-1 more" not in printed and "more" not in printed
    rows = [{**card_row(name, tmp_path), "notes": json.dumps(notes[:1])} for name in "abcde"]
    assert "and 2 more" in card.summary(catalogue(rows), NO_LINKS, [])


def test_a_problem_of_a_mask_that_is_named_like_its_image_shows_the_mask(tmp_path: Path) -> None:
    text = "masks/p1: is a folder that holds no DICOM image"
    row = bad_row("p1", "unreadable", text, "save it") | {"image": "s/images/p1", "label": "s/masks/p1"}
    assert "- s/masks/p1: is a folder" in card.summary(catalogue([row]), NO_LINKS, [])
    row |= {"reason": "p1: is a folder that holds no DICOM image"}
    assert "- s/images/p1: is a folder" in card.summary(catalogue([row]), NO_LINKS, [])
