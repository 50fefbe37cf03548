"""Linked groups stay together, no group changes its split when data are added, and fractions are approximated."""

import json

import numpy as np
import pandas as pd
import pytest

from segcore.errors import DataError, LeakError
from segcore.ingest.links.footprints import same_places
from segcore.params import Split
from segcore.splits.assignment import decide, read_split_file, write_split_file
from segcore.splits.blocks import BLOCKS, bucket, fraction
from segcore.splits.regions import assign
from segcore.splits.split_file import GroupSplit

FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}
SPLIT = Split(fractions=FRACTIONS)
HASHED = Split(fractions=FRACTIONS, stratify=False)


def catalogue(names, groups=None, seed=0, **columns):
    """Items whose pixels per class vary as much as in real data sets."""
    rng = np.random.default_rng(seed)
    pixels = rng.lognormal(8, 1, (max(len(names), 1), 3)).astype(int)
    table = pd.DataFrame(
        {
            "id": names,
            "group": groups or names,
            "height": 48,
            "width": 48,
            "sha256": [f"sha of {name}" for name in names],
            "pixels_per_class": [json.dumps(dict(zip("abc", map(int, row), strict=True))) for row in pixels],
        }
    )
    return table.assign(**columns)


def linked(*pairs):
    rows = [[*sorted(pair), "near-duplicate", "as the test says"] for pair in pairs]
    return pd.DataFrame(rows, columns=["a", "b", "kind", "detail"])


def shares(table, groups):
    """(splits, classes and groups) fractions by plain addition."""
    counts = pd.DataFrame([json.loads(c) for c in table["pixels_per_class"]]).assign(groups=1)
    sums = counts.groupby(table["group"].map(groups).to_numpy()).sum().reindex(list(FRACTIONS), fill_value=0)
    return (sums / sums.sum()).to_numpy()


def deviation(table, groups):
    return float(np.abs(shares(table, groups) - np.array(list(FRACTIONS.values()))[:, None]).max())


def names(count):
    return [f"i{k:04d}" for k in range(count)]


@pytest.mark.parametrize("count", [10, 14, 20, 30])
def test_shares_of_groups_and_of_class_pixels_come_close_to_the_fractions(count):
    for seed in range(5):
        table = catalogue(names(count), seed=seed)
        groups = decide(table, linked(), Split(fractions=FRACTIONS, seed=seed), {}).groups
        held = pd.Series(groups).value_counts(normalize=True)
        assert all(abs(held[s] - share) <= 1.01 / count for s, share in FRACTIONS.items())
        assert deviation(table, groups) < 0.16


def test_stratified_shares_deviate_less_than_those_of_plain_hashing():
    better = []
    for seed in range(20):
        table = catalogue(names(20), seed=seed)
        plain = {g: bucket(fraction(seed, g), FRACTIONS) for g in table["group"]}
        settings_ = {"fractions": FRACTIONS, "seed": seed}
        assert decide(table, linked(), Split(stratify=False, **settings_), {}).groups == plain
        groups = decide(table, linked(), Split(**settings_), {}).groups
        better.append(deviation(table, plain) / deviation(table, groups))
    assert min(better) > 1 and np.median(better) > 3


@pytest.mark.parametrize("count", [3, 4, 5, 8])
def test_every_split_gets_a_group_as_soon_as_there_are_three(count):
    for seed in range(10):
        split = Split(fractions={"train": 0.9, "validation": 0.05, "test": 0.05}, seed=seed)
        assert set(decide(catalogue(names(count), seed=seed), linked(), split, {}).groups.values()) == set(
            FRACTIONS
        )


@pytest.mark.parametrize("split", [SPLIT, HASHED], ids=["stratified", "hashed"])
@pytest.mark.parametrize("more", [1, 10, 50, 100])
def test_growth_by_any_share_never_moves_a_group(split, more):
    everything = catalogue(names(200))
    pairs = linked(*((f"i{k:04d}", f"i{k + 100:04d}") for k in range(0, 100, 7)), ("i0003", "i0004"))
    before = decide(everything[:100], pairs, split, {})
    after = decide(everything[: 100 + more], pairs, split, before.entries)
    assert {g: after.groups[g] for g in before.groups} == before.groups
    assert all(after.groups[f"i{k + 100:04d}"] == before.groups[f"i{k:04d}"] for k in range(0, more, 7))
    if split.stratify:
        assert deviation(everything[: 100 + more], after.groups) < 0.03


def test_growth_a_group_at_a_time_keeps_the_shares_close():
    everything, registry = catalogue(names(60)), {}
    for count in range(20, 61):
        decision = decide(everything[:count], linked(), SPLIT, registry)
        assert all(decision.groups[g] == entry.split for g, entry in registry.items())
        registry = decision.entries
    assert deviation(everything, decision.groups) < 0.05


@pytest.mark.parametrize("split", [SPLIT, HASHED], ids=["stratified", "hashed"])
def test_without_the_registry_the_same_data_give_the_same_result_in_any_order_of_rows(split):
    table = catalogue(names(40), [f"g{k % 25}" for k in range(40)])
    pairs = linked(("i0001", "i0002"), ("i0002", "i0003"), ("i0010", "i0030"))
    first = decide(table, pairs, split, {})
    again = decide(table.sample(frac=1, random_state=1), pairs.iloc[::-1], split, {})
    assert first == again
    assert decide(table, pairs, split, first.entries).groups == first.groups


def test_linked_groups_are_one_unit_and_count_as_one_cluster():
    table = catalogue(names(12))
    decision = decide(table, linked(("i0000", "i0005"), ("i0005", "i0009")), SPLIT, {})
    assert len({decision.groups[g] for g in ("i0000", "i0005", "i0009")}) == 1
    assert decision.clusters["i0009"] == decision.clusters["i0000"] == "i0000"
    assert decision.clusters["i0001"] == "i0001"
    assert sorted(decision.entries[g].reason.split(" ")[0] for g in ("i0000", "i0005", "i0009")) == [
        "linked",
        "linked",
        "stratified",
    ]


def test_equal_content_links_even_if_the_table_of_links_lacks_it():
    table = catalogue(names(30), sha256=[f"sha {k % 10}" for k in range(30)])
    groups = decide(table, linked(), SPLIT, {}).groups
    assert all(len({groups[f"i{k + m:04d}"] for m in (0, 10, 20)}) == 1 for k in range(10))


def test_a_new_group_that_bridges_two_splits_is_set_aside_and_stays_so():
    before = decide(catalogue(names(12)), linked(), SPLIT, {})
    one = min(g for g, s in before.groups.items() if s == "train")
    two = min(g for g, s in before.groups.items() if s == "test")
    table = catalogue([*names(12), "new", "next"])
    pairs = linked((one, "new"), (two, "new"), ("new", "next"))
    after = decide(table, pairs, SPLIT, before.entries)
    assert after.groups["new"] is None and set(after.aside) == {"new"}
    assert one in after.aside["new"] and two in after.aside["new"]
    assert after.groups["next"] in FRACTIONS  # what it was linked to takes no part
    later = decide(table[table["id"] != one], pairs, SPLIT, after.entries)
    assert later.groups["new"] is None and later.entries[one] == after.entries[one]


def test_an_item_of_a_later_batch_that_links_known_groups_of_two_splits_is_set_aside_alone():
    table = catalogue(names(30), batch="0")
    before = decide(table, linked(), SPLIT, {})
    one = {value: min(n for n, v in before.groups.items() if v == value) for value in FRACTIONS}
    for mine, other in (("train", "test"), ("test", "train"), ("validation", "test")):
        new = catalogue(["new", "sound"], [one[mine]] * 2, seed=1, batch="20300101-abc")
        both = pd.concat([table, new], ignore_index=True)
        after = decide(both, linked(("new", one[other])), SPLIT, before.entries)
        assert set(after.aside) == {"new"} and after.groups == before.groups
        assert f"linked to {one[other]} (near-duplicate), which is in {other}" in after.aside["new"]
        regions = assign(both[~both["id"].isin(list(after.aside))], SPLIT, after)
        assert regions.loc[regions["item"] == "sound", "split"].tolist() == [mine]
        # of one batch nobody knows which is the newcomer, and a person is there to tell
        with pytest.raises(LeakError, match="new"):
            decide(both.assign(batch="0"), linked(("new", one[other])), SPLIT, before.entries)


def test_a_chain_of_new_groups_between_two_splits_is_cut_at_one_of_them():
    before = decide(catalogue(names(12)), linked(), SPLIT, {})
    one = min(g for g, s in before.groups.items() if s == "train")
    two = min(g for g, s in before.groups.items() if s == "test")
    after = decide(
        catalogue([*names(12), "x", "y"]), linked((one, "x"), ("x", "y"), ("y", two)), SPLIT, before.entries
    )
    assert sorted(str(after.groups[g]) for g in "xy") in (["None", "test"], ["None", "train"])


def test_given_splits_are_honoured_and_what_is_linked_follows():
    split = SPLIT.model_copy(update={"given": {"test": ["i0003"], "validation": ["i0001"]}})
    decision = decide(catalogue(names(12)), linked(("i0003", "i0007")), split, {})
    assert decision.groups["i0003"] == decision.groups["i0007"] == "test"
    assert decision.groups["i0001"] == "validation"
    assert decision.entries["i0003"] == GroupSplit("test", "given")
    kept = decide(catalogue(names(12)), linked(), SPLIT, decision.entries)
    assert kept.groups == decision.groups


def test_given_groups_must_exist_and_stand_once():
    with pytest.raises(DataError, match=r"unknown groups \['i9'\]"):
        decide(catalogue(["i0"]), linked(), SPLIT.model_copy(update={"given": {"test": ["i9"]}}), {})
    twice = SPLIT.model_copy(update={"given": {"test": ["i0"], "train": ["i0"]}})
    with pytest.raises(DataError, match="twice"):
        decide(catalogue(["i0"]), linked(), twice, {})


def test_duplicates_across_given_splits_fail_closed_with_the_pair():
    by_hand = SPLIT.model_copy(update={"given": {"test": ["i0003"], "train": ["i0001"]}})
    with pytest.raises(LeakError) as caught:
        decide(catalogue(names(9)), linked(("i0001", "i0003")), by_hand, {})
    assert "i0001" in str(caught.value) and "i0003" in str(caught.value)
    own = catalogue(names(6), split=["train", "train", "train", "test", "test", "validation"])
    with pytest.raises(LeakError, match=r"i000[03] .*i000[03] "):
        decide(own, linked(("i0000", "i0003")), SPLIT, {})
    # train is divided then, but its link to test is still a leak
    only = own[own["split"] != "validation"]
    with pytest.raises(LeakError, match=r"i000[03] .*i000[03] "):
        decide(only, linked(("i0000", "i0003")), SPLIT, {})


def test_a_group_whose_items_are_given_different_splits_fails_with_the_pair():
    table = catalogue(["a", "b", "c"], ["p", "p", "q"], split=["train", "test", "test"])
    with pytest.raises(LeakError, match=r"a \(train\) and b \(test\) are in one group, p"):
        decide(table, linked(), SPLIT, {})


@pytest.mark.parametrize(("present", "lacking"), [("test", "validation"), ("validation", "test")])
def test_a_split_that_the_data_set_lacks_is_taken_from_its_train_groups(present, lacking):
    own = ["train"] * 20 + [present] * 20
    table = catalogue(names(40), split=own)
    decision = decide(table, linked(("i0000", "i0001")), SPLIT, {})
    groups = decision.groups
    assert {groups[g] for g in names(40)[20:]} == {present}
    counts = pd.Series([groups[g] for g in names(20)]).value_counts()
    # 0.6 to 0.2
    assert dict(counts) == {"train": 15, lacking: 5}
    assert groups["i0000"] == groups["i0001"]
    grown = catalogue(names(48), split=[*own, *["train"] * 4, *[present] * 2, lacking, None])
    after = decide(grown, linked(("i0000", "i0001")), SPLIT, decision.entries)
    assert {g: after.groups[g] for g in groups} == groups
    assert after.groups["i0046"] == lacking


def test_a_split_file_is_read_as_written_and_other_settings_are_an_error(tmp_path):
    path = tmp_path / "splits" / "mine.csv"
    assert read_split_file(path, SPLIT) == {}
    entries = {
        "b, with comma": GroupSplit("test", "given"),
        "#a": GroupSplit(None, 'set aside: linked to "x"'),
        "ü": GroupSplit(BLOCKS, "blocks of s"),
    }
    write_split_file(path, SPLIT, entries)
    assert read_split_file(path, SPLIT) == entries
    text = path.read_text(encoding="utf-8")
    write_split_file(path, SPLIT, dict(reversed(entries.items())))
    assert path.read_text(encoding="utf-8") == text and '"seed": 0' in text.splitlines()[0]
    for change in (
        {"seed": 1},
        {"stratify": False},
        {"block": 64},
        {"fractions": {**FRACTIONS, "train": 0.5}},
    ):
        with pytest.raises(
            DataError, match=r"3 groups were given their split with other settings: \w+ .* -> [\s\S]*delete"
        ):
            read_split_file(path, SPLIT.model_copy(update=change))
    assert read_split_file(path, SPLIT.model_copy(update={"given": {"test": ["ü"]}})) == entries


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text.split("\n", 1)[1],
        lambda text: text.replace("group,split", "g,s"),
        lambda text: text + "c,exam,hash\n",
        lambda text: text + "c,test\n",
        lambda text: text + "a,test,hash\n",
        lambda text: text.replace('"seed": 0', '"seed": '),
        lambda text: text.replace("given", "\udcff"),
    ],
    ids=[
        "empty",
        "no settings",
        "other header",
        "unknown split",
        "short row",
        "twice",
        "no JSON",
        "no UTF-8",
    ],
)
def test_a_damaged_split_file_is_an_error_that_names_it_and_the_remedy(tmp_path, damage):
    path = tmp_path / "mine.csv"
    write_split_file(path, SPLIT, {"a": GroupSplit("test", "given")})
    path.write_bytes(damage(path.read_text()).encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"mine.csv: .*[\s\S]*Remedy: restore it with `git checkout"):
        read_split_file(path, SPLIT)


def test_rows_of_groups_that_are_gone_are_kept():
    before = decide(catalogue(names(12)), linked(), SPLIT, {})
    after = decide(catalogue(names(6)), linked(), SPLIT, before.entries)
    assert set(after.entries) == set(names(12)) and set(after.groups) == set(names(6))


SCENES = Split(fractions=FRACTIONS, block=64, buffer=4)


def scenes(*places, size=192):
    ids = [name for name, *_ in places]
    transforms = [json.dumps([1, 0, 500000 + col, 0, -1, 5000000 - row]) for _, row, col in places]
    return catalogue(ids, crs="EPSG:32633", transform=transforms).assign(height=size, width=size)


def test_a_new_date_shares_the_blocks_of_the_first_even_if_its_name_comes_earlier():
    first = scenes(("m", 0, 0), ("z", 900, 900))
    before = decide(first, same_places(first), SCENES, {})
    more = scenes(("a", 0, 0), ("m", 0, 0), ("z", 900, 900))
    after = decide(more, same_places(more), SCENES, before.entries)
    assert after.anchors == {"a": "m", "m": "m", "z": "z"}
    assert after.entries["a"] == GroupSplit(BLOCKS, "blocks of m")
    old, new = assign(first, SCENES, before), assign(more, SCENES, after)
    pd.testing.assert_frame_equal(old, new[new["item"] != "a"].reset_index(drop=True))


def test_a_newcomer_that_overlaps_a_divided_scene_is_set_aside():
    first = scenes(("m", 0, 0))
    before = decide(first, same_places(first), SCENES, {})
    more = scenes(("m", 0, 0), ("n", 50, 50))
    after = decide(more, same_places(more), SCENES, before.entries)
    assert after.groups == {"m": BLOCKS, "n": None}
    assert "linked to m, which is divided into blocks of another grid" in after.aside["n"]


def test_an_item_that_joins_a_divided_group_on_another_grid_is_set_aside_alone():
    first = scenes(("m", 0, 0)).assign(group="city")
    before = decide(first, same_places(first), SCENES, {})
    more = scenes(("m", 0, 0), ("n", 900, 0)).assign(group="city")
    after = decide(more, same_places(more), SCENES, before.entries)
    assert after.groups == {"city": BLOCKS} and set(after.aside) == {"n"}
    assert set(assign(more, SCENES, after)["item"]) == {"m"}


def test_no_member_of_the_test_set_ever_enters_a_later_training_set_however_often_data_come(tmp_path):
    registry, frozen = tmp_path / "splits.csv", set()
    rng = np.random.default_rng(0)
    groups = [f"g{i:03d}" for i in rng.permutation(120)]
    # twenty new groups per night, in an order that is unrelated to their names
    for night in range(1, 7):
        table = catalogue(sorted(groups[: 20 * night]))
        decision = decide(table, linked(), SPLIT, read_split_file(registry, SPLIT))
        regions = assign(table.assign(volume=table["id"]), SPLIT, decision)
        held = {name: set(regions.loc[regions["split"] == name, "group"]) for name in FRACTIONS}
        assert frozen <= held["test"] and not frozen & (held["train"] | held["validation"])
        frozen = held["test"]
        write_split_file(registry, SPLIT, decision.entries)
    assert 0.15 < len(frozen) / 120 < 0.5
