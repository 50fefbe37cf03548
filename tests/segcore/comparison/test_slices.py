"""Scores by slice are those of the slice's images alone, and the rest of a comparison does not depend on them."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from segcore.comparison.compare import Contestant, compare
from segcore.comparison.leaderboard import leaderboard_text
from segcore.comparison.results import Comparison, read_comparison
from segcore.comparison.slices import MOST, MOST_WORDS, worst_slice
from segcore.constants import IGNORE
from segcore.metrics import METRICS
from segcore.metrics.scores import scores
from segcore.params import Params
from segcore.tables.slices import PREFIX
from tests.support.sliced_counts import CLASSES, table

SUMMARY = {"parameters": 1, "macs": 1, "receptive_field": 1}


def parameters(**compare_: object) -> Params:
    return Params.model_validate(
        {
            "architectures": ["fcn", "unet"],
            "seeds": [0],
            "data": {
                "name": "toy",
                "source": "toy",
                "classes": CLASSES,
                "colors": [[0, 0, 0], [255, 0, 0], [0, 255, 0]],
                "label_values": {0: 0, 1: 1, 2: 2},
            },
            "split": {"fractions": {"train": 0.5, "validation": 0.2, "test": 0.3}},
            "prepare": {"window": 32, "stride": 16},
            "train": {"common": {"steps": 10, "batch": 2, "crop": 32, "validate_every": 5}},
            "compare": {"bootstrap": 200, "permutations": 200, **compare_},
        }
    )


def compared(sites: list[str], p: Params | None = None, without: str = "", **skill: float) -> Comparison:
    p = p or parameters()
    models = []
    for number, name in enumerate(("unet", "fcn")):
        tables = [table(sites, skill, 10 * number + seed, without) for seed in p.seeds]
        models.append(Contestant(name, name.upper(), "model", tables, [SUMMARY] * len(tables)))
    return compare(models, p, "group")


def test_a_slice_has_the_score_of_its_images_and_the_interval_of_its_clusters() -> None:
    sites = ["oslo"] * 5 + ["bergen"] * 4
    found = compared(sites)
    assert [(s.word, s.text, s.images, s.clusters) for s in found.slices] == [
        ("site", "bergen", 8, 4),
        ("site", "oslo", 10, 5),
    ]
    counts = table(sites, {}, 0)
    mine = counts[counts[f"{PREFIX}site"] == "oslo"]
    key, one = "iou/dataset/foreground_mean", found.slices[1].scores["unet"]
    assert one.estimate == pytest.approx(scores(mine, [1, 2])[key], abs=1e-6)
    clusters = sorted(mine["cluster"].unique())
    draws = []
    for times in np.random.default_rng(0).multinomial(5, np.full(5, 1 / 5), size=200):
        drawn = [
            mine[mine["cluster"] == name].assign(item=lambda t, n=n: t["item"] + f" {n}")
            for name, repeat in zip(clusters, times, strict=True)
            for n in range(repeat)
        ]
        draws.append(scores(pd.concat(drawn), [1, 2])[key])
    assert (one.low, one.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=1e-6)
    assert found.slices[1].overall["unet"] == found.models[0].scores[key].estimate


def test_the_rest_of_the_comparison_does_not_depend_on_words() -> None:
    sites = ["oslo"] * 5 + ["bergen"] * 4
    with_words = compared(sites).to_json()
    p, models = parameters(), []
    for number, name in enumerate(("unet", "fcn")):
        plain = table(sites, {}, 10 * number).drop(columns=f"{PREFIX}site")
        models.append(Contestant(name, name.upper(), "model", [plain], [SUMMARY]))
    without = compare(models, p, "group").to_json()
    assert "slices" not in without and with_words.pop("slices")
    assert without == with_words


def test_one_cluster_gives_a_score_without_interval_and_is_never_called_worse() -> None:
    found = compared(["oslo"] * 6 + ["bergen"], bergen=0.3)
    one = found.slices[0]
    assert (one.text, one.clusters) == ("bergen", 1)
    assert one.scores["unet"].low is None and one.scores["unet"].estimate < 0.4
    assert worst_slice(found) == ""


def test_classes_that_a_slice_does_not_contain_are_left_out_of_its_mean() -> None:
    sites = ["oslo"] * 5 + ["bergen"] * 4
    found = compared(sites, without="bergen", bergen=0.5)
    bergen, oslo = found.slices
    assert (bergen.absent, oslo.absent) == (["roof"], [])
    counts = table(sites, {"bergen": 0.5}, 0, without="bergen")
    mine = counts[counts[f"{PREFIX}site"] == "bergen"]
    assert bergen.scores["unet"].estimate == pytest.approx(scores(mine, [1])["iou/dataset/road"], abs=1e-6)
    assert bergen.overall["unet"] == found.models[0].scores["iou/dataset/road"].estimate
    assert "for the same classes on all test images" in worst_slice(found)


def test_a_slice_without_foreground_has_no_score() -> None:
    counts = table(["oslo"] * 3 + ["sea"] * 2, {}, 0)
    at_sea = counts[f"{PREFIX}site"] == "sea"
    counts.loc[at_sea & (counts["class_index"] > 0), ["tp", "fn"]] = 0
    found = compare([Contestant("unet", "U-Net", "model", [counts], [SUMMARY])], parameters(), "group")
    sea = found.slices[1]
    assert (sea.text, sea.absent, sea.scores, sea.overall) == ("sea", ["road", "roof"], {}, {})


def test_rare_texts_are_pooled_and_a_word_that_divides_nothing_is_left_out() -> None:
    rare = [f"rare{number:02d}" for number in range(8)]
    frequent = [f"f{number:02d}" for number in range(MOST)]
    found = compared([*frequent, *frequent, *rare]).slices
    assert [one.text for one in found] == [*frequent, None]
    assert (found[-1].pooled, found[-1].images, found[-1].clusters) == (8, 16, 8)
    # one text more than fits is shown and not pooled alone
    assert [one.text for one in compared([*frequent, *frequent, "z"]).slices] == [*frequent, "z"]
    assert compared(["oslo"] * 4).slices == []
    counts = table([str(number) for number in range(MOST)], {}, 0)
    counts[f"{PREFIX}number"] = counts["item"]
    found = compare([Contestant("unet", "U-Net", "model", [counts], [SUMMARY])], parameters(), "group").slices
    assert {one.word for one in found} == {"site"}


def test_a_listing_of_many_columns_does_not_flood_the_report() -> None:
    counts = table(["oslo"] * 3 + ["bergen"] * 3, {}, 0)
    many = {f"{PREFIX}w{number}": counts[f"{PREFIX}site"] for number in range(20)}
    one = Contestant("unet", "U-Net", "model", [counts.assign(**many)], [SUMMARY])
    words = dict.fromkeys(slice_.word for slice_ in compare([one], parameters(), "group").slices)
    assert list(words) == ["site", *(f"w{number}" for number in range(MOST_WORDS - 1))]


def test_images_without_a_valid_pixel_or_without_a_text_are_in_no_slice() -> None:
    counts = table(["oslo"] * 3 + ["bergen"] * 3, {}, 0)
    nodata = counts["item"] == "i00-0"
    counts.loc[nodata, [c for c in counts if c in ("tp", "fp", "fn", "pixels")]] = 0
    counts.loc[nodata, "ignored"] = IGNORE
    counts.loc[counts["item"] == "i01-0", f"{PREFIX}site"] = None
    found = compare([Contestant("unet", "U-Net", "model", [counts], [SUMMARY])], parameters(), "group")
    assert [(one.text, one.images) for one in found.slices] == [("bergen", 6), ("oslo", 4)]


def test_the_worst_slice_is_named_only_if_its_interval_is_below_the_score_on_all_images() -> None:
    sites = ["oslo"] * 8 + ["bergen"] * 8 + ["tromsø"] * 8
    assert worst_slice(compared(sites)) == ""
    found = compared(sites, bergen=0.6, tromsø=0.75)
    sentence, best = worst_slice(found), found.models[0]
    bergen = found.slices[0].scores[best.architecture]
    assert sentence.startswith(
        f"Of 3 slices of the test images, {best.title} is shown to be worse in one, where site is bergen: IoU "
        f"{100 * bergen.estimate:.1f} % (95 % interval {100 * bergen.low:.1f} to {100 * bergen.high:.1f}, "
    )
    assert "likely too narrow with 8 groups" in sentence and sentence in leaderboard_text(found)
    both = worst_slice(compared([*["oslo"] * 20, *sites[8:]], bergen=0.5, tromsø=0.6))
    assert "worse in 2, most where site is bergen" in both


def test_where_lower_is_better_the_worst_slice_is_the_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compared(["oslo"] * 8 + ["bergen"] * 8, bergen=0.6)
    assert "where site is bergen" in worst_slice(found)
    monkeypatch.setitem(METRICS, "iou", replace(METRICS["iou"], higher_is_better=False))
    assert "where site is oslo" in worst_slice(found)


def test_slices_survive_json_and_an_earlier_comparison_has_none(tmp_path) -> None:
    found = compared(["oslo"] * 3 + ["bergen"], parameters(metric="dice"))
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(found.to_json(), allow_nan=False))
    assert read_comparison(path) == found
    earlier = found.to_json()
    del earlier["slices"]
    path.write_text(json.dumps(earlier))
    assert read_comparison(path) == replace(found, slices=[])


def test_several_seeds_give_a_mean_and_its_spread() -> None:
    p = parameters().model_copy(update={"seeds": [0, 1, 2]})
    one = compared(["oslo"] * 3 + ["bergen"] * 3, p).slices[0].scores["unet"]
    assert one.seed_std is not None and one.low < one.estimate < one.high
