"""The verdict and its notes, on tables whose differences are known."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from segcore.comparison.compare import Contestant, _postprocess_notes, compare
from segcore.comparison.leaderboard import leaderboard_markdown, leaderboard_text
from segcore.comparison.results import Comparison
from segcore.errors import DataError
from segcore.inference.tiling import tile_starts
from segcore.metrics.scores import scores
from segcore.params import Params
from segcore.tables import counts

TITLES = {"fcn": "FCN-8s", "unet": "U-Net", "deeplab": "DeepLabV3+"}
SUMMARY = {
    "parameters": 1_230_000,
    "macs": 4_560_000_000,
    "receptive_field": 321,
    "global_context": False,
    "encoder": "mobilenet_v2",
    "weights": "imagenet",
    "steps": 10,
}


def parameters(architectures: list[str], seeds: list[int], **train: dict[str, Any]) -> Params:
    common = {"steps": 10, "batch": 2, "crop": 32, "validate_every": 5}
    return Params.model_validate(
        {
            "architectures": architectures,
            "seeds": seeds,
            "data": {
                "name": "toy",
                "source": "toy",
                "classes": ["background", "building"],
                "colors": [[0, 0, 0], [255, 0, 0]],
                "label_values": {0: 0, 1: 1},
            },
            "split": {"fractions": {"train": 0.5, "validation": 0.2, "test": 0.3}},
            "prepare": {"window": 32, "stride": 16},
            "train": {"common": common, **train},
            "compare": {"bootstrap": 200, "permutations": 500},
        }
    )


def table(skill: float, seed: int, clusters: int = 16, size: int = 16) -> pd.DataFrame:
    """Tables of maps that are right with probability `skill`, lower in some clusters; all have the same truth."""
    rng = np.random.default_rng(seed)
    images = []
    for cluster in range(clusters):
        label = (np.random.default_rng(cluster).random((size, size)) < 0.4).astype(np.uint8)
        right = rng.random(label.shape) < skill - 0.01 * (cluster % 5)
        images.append(
            (f"i{cluster}", f"c{cluster:02d}", counts.count(np.where(right, label, 1 - label), label, 2))
        )
    return counts.counts_table(images, ["background", "building"])


def model(name: str, skills: list[float], **keywords: int) -> Contestant:
    start = list(TITLES).index(name) * 100
    tables = [table(skill, start + seed, **keywords) for seed, skill in enumerate(skills)]
    return Contestant(name, TITLES[name], "model", tables, [SUMMARY | {"title": TITLES[name]}] * len(skills))


def compared(skills: dict[str, list[float]], *humans: Contestant, **keywords: int) -> dict[str, Any]:
    seeds = list(range(len(next(iter(skills.values())))))
    models = [model(name, values, **keywords) for name, values in skills.items()]
    return compare([*models, *humans], parameters(list(skills), seeds), "group").to_json()


def test_clear_winner_is_named_with_difference_interval_and_corrected_test() -> None:
    result = compared({"fcn": [0.7], "unet": [0.95], "deeplab": [0.8]})
    assert result["verdict"].startswith("U-Net (dataset IoU ")
    assert " is best: it leads DeepLabV3+ by " in result["verdict"] and "95 % interval" in result["verdict"]
    assert [(row["architecture"], row["rank"]) for row in result["leaderboard"]] == [
        ("unet", 1),
        ("deeplab", 2),
        ("fcn", 3),
    ]
    assert [(t["a"], t["b"]) for t in result["tests"]] == [
        ("unet", "deeplab"),
        ("unet", "fcn"),
        ("deeplab", "fcn"),
    ]
    for test in result["tests"]:
        assert test["significant"] and test["p"] <= test["p_holm"] <= 0.05
        assert 0 < test["low"] <= test["difference"] <= test["high"]


def test_seeds_that_disagree_show_no_difference_however_small_p_is() -> None:
    result = compared({"unet": [0.9, 0.9], "deeplab": [0.3, 0.899]})
    (test,) = result["tests"]
    assert test["p_holm"] <= 0.05 and test["low"] <= 0 < test["high"] and not test["significant"]
    assert result["verdict"].startswith("No difference shown between U-Net")


def test_no_difference_shown_is_a_verdict() -> None:
    result = compared({"fcn": [0.8], "unet": [0.8], "deeplab": [0.8]})
    assert result["verdict"].startswith("No difference shown between ") and " or " in result["verdict"]
    assert not any(test["significant"] for test in result["tests"])
    result = compared({"fcn": [0.6], "unet": [0.8], "deeplab": [0.8]})
    assert result["verdict"].startswith("No difference shown between ")
    assert result["verdict"].count("FCN-8s by ") == 1  # differs from the best, so it is not called equal


def test_scores_average_several_seeds_and_carry_interval_and_spread() -> None:
    skills = {"fcn": [0.7, 0.72, 0.75], "unet": [0.8, 0.85, 0.9]}
    result = compared(skills)
    key = result["headline"]
    assert key == "iou/dataset/foreground_mean"
    for row in result["leaderboard"]:
        each = [scores(t, [1])[key] for t in model(row["architecture"], skills[row["architecture"]]).tables]
        score = row["scores"][key]
        assert score["estimate"] == pytest.approx(np.mean(each), abs=1e-6)
        assert score["seed_std"] == pytest.approx(np.std(each, ddof=1), abs=1e-6)
        assert score["low"] < score["estimate"] < score["high"] and row["seeds"] == 3
    assert not any("one seed only" in note for note in result["notes"])


def test_notes_state_one_seed_and_few_clusters() -> None:
    result = compared({"fcn": [0.6], "unet": [0.95]}, clusters=4)
    notes = " ".join(result["notes"])
    assert "one seed only" in notes and "only 4 test groups" in notes and "cannot" not in result["verdict"]
    assert "no difference, however large, can be shown" in notes  # 2^-3 > 0.05
    assert result["verdict"].startswith("No difference shown")
    assert all(row["scores"][result["headline"]]["seed_std"] is None for row in result["leaderboard"])


@pytest.mark.parametrize("skill", [[0.6], [0.6, 0.7]])
def test_notes_on_one_architecture_speak_of_no_difference_or_test(skill: list[float]) -> None:
    notes = " ".join(compared({"fcn": skill})["notes"])
    assert ("The architecture was trained with one seed only" in notes) == (len(skill) == 1)
    assert "architectures" not in notes and "the tests" not in notes and "difference" not in notes


def test_one_cluster_says_nothing_about_others() -> None:
    result = compared({"fcn": [0.6], "unet": [0.95]}, clusters=1)
    score = result["leaderboard"][0]["scores"][result["headline"]]
    assert (score["low"], score["high"]) == (0, 1) and (
        result["tests"][0]["low"],
        result["tests"][0]["high"],
    ) == (-1, 1)
    assert any("nothing is known about other" in note for note in result["notes"])


def test_single_architecture_is_not_called_best() -> None:
    result = compared({"unet": [0.9]})
    assert "nothing to compare" in result["verdict"] and result["tests"] == []


def test_equal_scores_share_a_rank() -> None:
    same = [table(0.8, 0)]
    models = [Contestant(n, TITLES[n], "model", same, [SUMMARY]) for n in ("fcn", "unet")]
    result = compare(models, parameters(["fcn", "unet"], [0]), "group").to_json()
    assert [row["rank"] for row in result["leaderboard"]] == [1, 1]
    assert result["tests"][0]["p"] == 1.0


def test_human_has_no_rank_and_is_compared_in_a_note() -> None:
    human = Contestant("second-annotator", "Second annotator", "human", [table(0.85, 7)])
    result = compared({"fcn": [0.7], "unet": [0.9]}, human)
    row = result["leaderboard"][-1]
    assert (row["kind"], row["rank"], row["summary"], row["seeds"]) == ("human", None, None, 1)
    note = next(note for note in result["notes"] if note.startswith("Second annotator, a human"))
    assert "U-Net is " in note and note.endswith("above that.")
    assert all("second-annotator" not in (t["a"], t["b"]) for t in result["tests"])


def test_settings_that_differ_are_printed_beside_the_score() -> None:
    p = parameters(
        ["fcn", "unet"], [0], unet={"learning_rate": 0.01, "augment": {"flip": False}, "model": {"a": 1}}
    )
    models = [model("fcn", [0.8]), model("unet", [0.8])]
    models[1].summaries[0]["steps"] = 7  # stopped early
    result = compare(models, p, "block").to_json()
    assert result["differences"] == {
        "learning_rate": {"fcn": 0.001, "unet": 0.01},
        "augment.flip": {"fcn": True, "unet": False},
        "steps": {"fcn": 10, "unet": 7},
    }
    assert any("learning_rate" in note and "settings are not the same" in note for note in result["notes"])
    assert "They were not trained alike: steps (" in result["verdict"]
    assert "U-Net 7" in result["verdict"] and "FCN-8s 10" in result["verdict"]
    assert "other settings (augment.flip and learning_rate) differ." in result["verdict"]
    assert compared({"fcn": [0.8], "unet": [0.8]})["differences"] == {}


def test_the_verdict_names_unequal_budgets_seeds_and_settings_and_nothing_where_all_are_alike() -> None:
    p = parameters(["fcn", "unet"], [0], fcn={"batch": 4, "patience": 3})
    result = compare([model("fcn", [0.7]), model("unet", [0.95])], p, "group").to_json()
    assert result["verdict"].endswith(
        " They were not trained alike: batch (U-Net 2, FCN-8s 4) and patience (U-Net none, FCN-8s 3) differ."
    )
    seeds = parameters(["fcn", "unet"], [0, 1])
    stopped = [model("fcn", [0.7, 0.7]), model("unet", [0.95, 0.95])]
    stopped[0] = replace(stopped[0], summaries=[SUMMARY | {"steps": n, "title": "FCN-8s"} for n in (5, 8)])
    verdict = compare(stopped, seeds, "group").to_json()["verdict"]
    assert "steps (U-Net 10, FCN-8s 5 to 8) differ." in verdict
    with pytest.raises(DataError, match=r"\d seeds against \d"):
        compare([model("fcn", [0.7]), model("unet", [0.95, 0.95])], seeds, "group")
    many = {"learning_rate": 0.1, "loss": "dice", "weight_decay": 0.5, "warmup_steps": 3, "schedule": "poly"}
    p = parameters(["fcn", "unet"], [0], fcn=many)
    result = compare([model("fcn", [0.7]), model("unet", [0.95])], p, "group").to_json()
    assert "not trained alike: settings (" in result["verdict"]
    assert " and 2 more settings) differ." in result["verdict"]
    assert "alike" not in compared({"fcn": [0.7], "unet": [0.95]})["verdict"]


def test_initial_weights_of_one_architecture_stand_in_the_verdict() -> None:
    p = parameters(["fcn", "unet"], [0])
    models = [model("fcn", [0.7]), model("unet", [0.95])]
    models[1].summaries[0]["initial_weights"] = "of the champion (0123abcd)"
    result = compare(models, p, "group").to_json()
    values = {"unet": "of the champion (0123abcd)", "fcn": "none"}
    assert result["differences"] == {"initial_weights": values}
    assert result["verdict"].endswith("They were not trained alike: settings (initial_weights) differ.")


def test_post_processing_is_a_note_on_the_seeds_that_have_it() -> None:
    words = ["building: holes filled", "", "building: holes filled"]
    of = Contestant(
        "unet", "U-Net", "model", [], [{"seed": s, "postprocess": t} for s, t in enumerate(words)]
    )
    (note,) = _postprocess_notes([of, Contestant("fcn", "FCN-8s", "model", [], [{"seed": 0}])])
    assert note == (
        "U-Net (seeds 0, 2) is scored after post-processing, chosen on the validation split: building: holes filled."
    )


def test_comparison_is_deterministic_and_plain_json() -> None:
    skills = {"fcn": [0.75, 0.8], "unet": [0.8, 0.85]}
    text = json.dumps(compared(skills), allow_nan=False)
    assert text == json.dumps(compared(skills), allow_nan=False)
    assert json.loads(text)["leaderboard"][0]["summary"]["parameters"] == 1_230_000


def test_evaluations_of_other_images_are_refused() -> None:
    models = [model("fcn", [0.8]), model("unet", [0.8], clusters=15)]
    with pytest.raises(DataError, match="differ in their test images"):
        compare(models, parameters(["fcn", "unet"], [0]), "group")


def test_leaderboard_names_aggregation_and_shows_both_means() -> None:
    result = compared({"fcn": [0.7], "unet": [0.95]}, Contestant("other", "Other", "human", [table(0.85, 7)]))
    costs = {"unet": {"ms_per_megapixel": 123.4, "train_seconds": 90.0}}
    markdown = leaderboard_markdown(Comparison.from_json(result), costs)
    for title in (
        "IoU dataset, foreground",
        "IoU dataset, all classes",
        "IoU image, foreground",
        "123.4",
        "1.5",
    ):
        assert title in markdown
    text = leaderboard_text(Comparison.from_json(result), costs)
    assert result["verdict"] in text and "1.23" in text and "4.56" in text and "321" in text
    best = next(line for line in text.splitlines() if "U-Net" in line)
    score = result["leaderboard"][0]["scores"][result["headline"]]
    assert f"{100 * score['estimate']:.1f} [{100 * score['low']:.1f}, {100 * score['high']:.1f}]" in best
    rows = [line for line in text.splitlines() if line.lstrip().startswith(("1 ", "2 ", "- "))]
    assert len(rows) == 3 and len({line.index("[") for line in rows}) == 1  # columns are aligned
    assert "123.4" not in leaderboard_text(Comparison.from_json(result))


def _of_kinds(skills: dict[str, float], instance: str, macs: int = 9_120_000_000) -> Comparison:
    """A comparison in which one of the architectures is an instance network."""
    models = [model(name, [skill]) for name, skill in skills.items()]
    models = [
        replace(m, summaries=[{**s, "kind": "instance", "macs": macs} for s in m.summaries])
        if m.name == instance
        else m
        for m in models
    ]
    return compare(models, parameters(list(skills), [0]), "group")


def test_the_verdict_says_which_kind_of_network_the_data_need_and_what_it_costs() -> None:
    cost = "DeepLabV3+ computes 2.0 times as much as U-Net (9.12 and 4.56 GMACs for 256x256 pixels)."
    found = _of_kinds({"fcn": 0.7, "unet": 0.8, "deeplab": 0.95}, "deeplab")
    test = next(t for t in found.tests if (t.a, t.b) == ("deeplab", "unet"))
    assert (
        " Class maps of these data need an instance network, by IoU: DeepLabV3+ leads the best semantic "
        "network, U-Net, by " in (found.verdict)
    )
    assert f"{100 * test.difference:.1f} points (95 % interval " in found.verdict and cost in found.verdict
    found = _of_kinds({"fcn": 0.7, "unet": 0.95, "deeplab": 0.8}, "deeplab")
    assert (
        " Class maps of these data need no instance network, by IoU: U-Net leads the best instance "
        "network, DeepLabV3+, by " in (found.verdict)
    )
    assert cost in found.verdict


@pytest.mark.parametrize(("steps", "is_short"), [(120, True), (999, True), (1000, False)])
def test_the_verdict_names_short_trainings_of_instance_networks(steps: int, is_short: bool) -> None:
    skills = {"unet": 0.8, "deeplab": 0.95}
    models = [model(name, [skill]) for name, skill in skills.items()]
    short = [replace(m, summaries=[{**s, "steps": steps} for s in m.summaries]) for m in models]
    one = replace(short[1], summaries=[{**s, "kind": "instance"} for s in short[1].summaries])
    p = parameters(list(skills), [0])
    sentence = f" {steps} steps show the procedure, not what the instance networks reach."
    result = compare([short[0], one], p, "group")
    assert (sentence in result.verdict) == is_short == (sentence in leaderboard_text(result))
    assert "procedure" not in compare(short, p, "group").verdict


@pytest.mark.parametrize("overlap", [0, 100, 128])
def test_the_cost_counts_the_overlapping_windows_of_a_tile(overlap: int) -> None:
    skills = {"unet": 0.8, "deeplab": 0.95}
    unet, deeplab = (model(name, [skill]) for name, skill in skills.items())
    facts = {"kind": "instance", "macs": 9_120_000_000, "tile": 256, "overlap": overlap}
    one = replace(deeplab, summaries=[{**s, **facts} for s in deeplab.summaries])
    p = parameters(list(skills), [0])
    p = p.model_copy(update={"evaluate": p.evaluate.model_copy(update={"tile": 704})})
    number = len(tile_starts(704, 256, overlap)) ** 2
    assert (
        f"DeepLabV3+ computes {2 * number * 256**2 / 704**2:.1f} times as much as U-Net (9.12 and 4.56 GMACs for "
        f"256x256 pixels; DeepLabV3+ predicts 704x704 pixels in {number} overlapping windows of 256x256)."
    ) in compare([unet, one], p, "group").verdict


def test_no_kind_of_network_is_recommended_where_no_difference_is_shown() -> None:
    # the other semantic network is worse, which shows nothing about the kinds
    found = _of_kinds({"fcn": 0.5, "unet": 0.8, "deeplab": 0.8}, "deeplab", macs=2_280_000_000)
    assert " No difference is shown between " in found.verdict and "need" not in found.verdict
    assert "U-Net computes 2.0 times as much as DeepLabV3+ (4.56 and 2.28 GMACs" in found.verdict


def test_a_comparison_of_semantic_networks_says_nothing_of_kinds() -> None:
    skills = {"fcn": [0.7], "unet": [0.95]}
    models = [model(name, values) for name, values in skills.items()]
    plain = compare(models, parameters(list(skills), [0]), "group")
    assert "network" not in plain.verdict and "semantic" not in leaderboard_text(plain)
    mixed = _of_kinds({name: values[0] for name, values in skills.items()}, "fcn")
    assert mixed.verdict.startswith(plain.verdict)
    text = leaderboard_text(mixed)
    assert "instance, own objects" in text and "semantic" in text
