"""Intervals, paired tests and the comparison of objects, against tables that are resampled and scored again."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from segcore.comparison import statistics
from segcore.comparison.cluster_sums import cluster_sums, run_scores, weighted_scores
from segcore.comparison.compare import Contestant, compare
from segcore.comparison.leaderboard import leaderboard, leaderboard_text
from segcore.comparison.objects import lines
from segcore.comparison.results import Comparison
from segcore.errors import DataError
from segcore.metrics import METRICS, OBJECT_POLICY, class_metrics
from segcore.metrics import average_precision as ap_module
from segcore.metrics.scores import scores
from segcore.objects.count_interval import count_interval
from segcore.tables.objects import objects_table
from tests.segcore.comparison.test_compare import SUMMARY, TITLES, parameters
from tests.support.object_tables import Mask
from tests.support.scored_objects import counts_of, fast_image, random_masks, rectangle

CLASSES = ["background", "building", "tree"]
Tables = tuple[pd.DataFrame, pd.DataFrame]


def tables(skill: float, seed: int, clusters: int = 6, images: int = 2) -> Tables:
    """Counts and objects of random images; the truth does not depend on skill and seed."""
    rng, parts, names = np.random.default_rng(1000 + seed), [], []
    for cluster in range(clusters):
        for image in range(images):
            truth = np.random.default_rng([cluster, image])
            true = random_masks(truth, int(truth.choice([0, 1, 4, 7])))
            predicted = [
                Mask(m.pixels, m.class_index, float(rng.random())) for m in true if rng.random() < skill
            ]
            predicted += random_masks(rng, int(rng.choice([0, 1, 3])), true)
            item, name = f"{cluster}-{image}", f"cluster-{cluster:02d}"
            parts.append(fast_image(true, predicted, item, name))
            names.append((item, name))
    return counts_of(names, CLASSES), objects_table(parts)


def run(both: Tables, score: float = 0.2) -> Any:
    return cluster_sums(both[0], [1, 2], both[1], score)


def of_clusters(both: Tables, weights: dict[str, int]) -> Tables:
    """The tables of some clusters, as often as they are drawn; images that are repeated have other names."""
    found = []
    for table in both:
        copies = [
            table[table["cluster"] == name].assign(item=lambda t, n=n: t["item"] + f" copy {n}")
            for name, times in weights.items()
            for n in range(times)
        ]
        found.append(pd.concat(copies, ignore_index=True))
    return found[0], found[1]


def test_scores_from_clusters_are_those_of_the_tables() -> None:
    both = tables(0.7, 0)
    expected = scores(both[0], [1, 2], both[1], 0.2)
    assert run_scores(run(both)) == pytest.approx(expected, abs=1e-12)
    assert len(expected) > 300 and "ap/image/tree" in expected


def test_the_bootstrap_of_every_score_equals_scoring_the_resampled_images_again() -> None:
    both = tables(0.7, 0)
    drawn = statistics.bootstrap([run(both)], draws=20, seed=3)
    weights = np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), size=20)
    names = sorted(set(both[0]["cluster"]))
    # thirds of the true objects stay those of the whole test set
    keys = [
        key for key in drawn if not key.startswith("recall_") and key != "empty_image_false_positive_rate"
    ]
    assert sum(key.startswith("ap") for key in keys) == 2 * 3 * 5
    for draw in range(20):
        resampled = of_clusters(both, dict(zip(names, weights[draw].tolist(), strict=True)))
        again = scores(resampled[0], [1, 2], resampled[1], 0.2)
        for key in keys:
            assert drawn[key][draw] == pytest.approx(again[key], abs=1e-9), (key, draw)


def test_chunks_of_draws_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "ap/dataset/foreground_mean"
    whole = statistics.bootstrap([run(tables(0.7, 0))], draws=50, keys=[key])[key]
    monkeypatch.setattr(ap_module, "_CHUNK", 100)
    assert np.array_equal(whole, statistics.bootstrap([run(tables(0.7, 0))], draws=50, keys=[key])[key])


@pytest.mark.parametrize(
    "key", ["ap/dataset/foreground_mean", "pq/image/tree", "count_bias/dataset/building"]
)
def test_the_permutation_test_equals_a_loop_that_swaps_tables(key: str) -> None:
    a, b = tables(0.8, 0, clusters=4), tables(0.6, 5, clusters=4)
    compared = METRICS[key.partition("/")[0]].compared

    def difference(swap: int) -> float:
        mixed: list[list[pd.DataFrame]] = [[], []]
        for one, other in zip(a, b, strict=True):
            taken = one["cluster"].map(lambda name: bool(swap >> int(name[-2:]) & 1)).to_numpy()
            also = other["cluster"].map(lambda name: bool(swap >> int(name[-2:]) & 1)).to_numpy()
            mixed[0].append(pd.concat([one[~taken], other[also]], ignore_index=True))
            mixed[1].append(pd.concat([other[~also], one[taken]], ignore_index=True))
        of_a, of_b = (scores(counts, [1, 2], objects, 0.2)[key] for counts, objects in mixed)
        return float(compared(of_a) - compared(of_b))

    differences = np.abs([difference(swap) for swap in range(16)])
    p = statistics.permutation_test([run(a)], [run(b)], key)
    assert p == (differences >= differences[0] - 1e-12).mean()


def test_the_names_of_clusters_do_not_change_an_interval() -> None:
    both, keys = tables(0.7, 0, clusters=30, images=1), ["ap/dataset/tree", "pq/dataset/tree"]
    order = np.random.default_rng(0).permutation(30)
    renamed = tuple(
        table.assign(cluster=[f"cluster-{order[int(name[-2:])]:02d}" for name in table["cluster"]])
        for table in both
    )
    for key in keys:
        first, second = (
            statistics.bootstrap([run(one)], draws=2000, seed=1, keys=keys)[key] for one in (both, renamed)
        )
        ends = np.array([statistics.interval(draws, 0.9) for draws in (first, second)])
        assert np.abs(ends[0] - ends[1]).max() < 0.15 * (ends[0][1] - ends[0][0])
        # one draw of all clusters once is the score, whatever their order
        ones = [np.ones((1, 30))]
        values = [weighted_scores([run(one)], ones, [key])[key][0] for one in (both, renamed)]
        assert values[0] == pytest.approx(values[1], abs=1e-12)


def test_only_the_metric_that_is_asked_for_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("average precision was computed")

    for module in ("object_sums", "pooled"):
        monkeypatch.setattr(f"segcore.metrics.{module}.average_precision", refuse)
    a, b = run(tables(0.8, 0)), run(tables(0.6, 5))
    for key in ("iou/dataset/foreground_mean", "pq/dataset/foreground_mean", "f1_50/image/tree"):
        statistics.permutation_test([a], [b], key)
        statistics.bootstrap([a], 20, keys=[key])
    with pytest.raises(AssertionError, match="average precision"):
        statistics.permutation_test([a], [b], "ap/dataset/foreground_mean")


def contestant(name: str, skill: float, seeds: int = 1, **facts: Any) -> Contestant:
    found = {"method": "components", "score": 0.2, "precision": 0.8, "recall": 0.7, "count_bias": -0.1}
    summary = SUMMARY | {"title": TITLES[name], "objects": found | {"truth": "given"} | facts}
    start = list(TITLES).index(name) * 100
    each = [tables(skill, start + seed, clusters=16) for seed in range(seeds)]
    return Contestant(
        name, TITLES[name], "model", [t for t, _ in each], [summary] * seeds, [t for _, t in each]
    )


def compared(metric: str, *contestants: Contestant, seeds: int = 1) -> Comparison:
    models = [one.name for one in contestants if one.kind == "model"]
    p = parameters(models, list(range(seeds)))
    data = p.data.model_dump(mode="json") | {
        "classes": CLASSES,
        "colors": [[0, 0, 0], [255, 0, 0], [0, 255, 0]],
        "label_values": {0: 0, 1: 1, 2: 2},
        "instances": True,
    }
    values = p.model_dump(mode="json") | {"data": data}
    values["compare"] |= {"metric": metric, "bootstrap": 60, "permutations": 100}
    return compare(list(contestants), type(p).model_validate(values), "group")


@pytest.mark.parametrize("metric", ["pq", "ap", "count_error", "merged"])
def test_every_kind_of_metric_ranks_and_has_intervals_and_tests(metric: str) -> None:
    result = compared(metric, contestant("fcn", 0.3), contestant("unet", 0.95))
    sign, key = METRICS[metric].sign, f"{metric}/dataset/foreground_mean"
    estimates = [row.scores[key].estimate for row in result.models]
    assert sign * estimates[0] >= sign * estimates[1] and result.models[0].rank == 1
    assert all(
        row.scores[key].low <= row.scores[key].estimate <= row.scores[key].high for row in result.models
    )
    (test,) = result.tests
    assert test.difference == pytest.approx(estimates[0] - estimates[1], abs=1e-6)
    assert METRICS[metric].title in result.verdict


def test_a_signed_metric_ranks_by_its_distance_from_zero() -> None:
    table = contestant("unet", 0.9)
    biased = replace(contestant("fcn", 0.9), objects=[table.objects[0]], tables=table.tables)
    # without predictions the bias is -100 %, with three times as many more than +100 %
    nothing = table.objects[0][~table.objects[0]["kind"].isin(["prediction", "pair"])]
    none = replace(biased, objects=[nothing])
    result = compared("count_bias", none, table)
    key = "count_bias/dataset/foreground_mean"
    first, second = result.models
    # that of two classes is the mean of their distances from 0
    assert first.architecture == "unet" and second.scores[key].estimate == 1
    assert {second.scores[f"count_bias/dataset/{name}"].estimate for name in CLASSES[1:]} == {-1}
    assert abs(first.scores[key].estimate) < 1
    (test,) = result.tests
    assert (
        test.difference == pytest.approx(abs(first.scores[key].estimate) - 1, abs=1e-6)
        and test.difference < 0
    )


def limit_of(objects: pd.DataFrame, counts: pd.DataFrame) -> Contestant:
    return Contestant("components-of-truth", "Perfect mask, components", "limit", [counts], (), [objects])


def test_a_limit_stands_below_the_models_without_a_rank() -> None:
    unet = contestant("unet", 0.5)
    limit = limit_of(contestant("fcn", 0.95).objects[0], unet.tables[0])
    result = compared("pq", unet, limit)
    assert [(row.kind, row.rank) for row in result.leaderboard] == [("model", 1), ("limit", None)]
    assert result.tests == [] and [row.architecture for row in result.models] == ["unet"]
    note = next(note for note in result.notes if "perfect mask" in note)
    assert note.startswith("U-Net with components finds ") and "would reach F1 " in note
    own, most = (100 * result.objects.pooled[name]["f1"] for name in ("unet", "components-of-truth"))
    assert f"(F1 {own:.1f} %); a perfect mask with components would reach F1 {most:.1f} %" in note
    lost = f"Of the {100 - own:.1f} points of F1 that it lacks, {100 - most:.1f} are lost by components of any mask"
    assert lost in note and note.endswith("errors of its own mask, which can also join objects.")
    text = leaderboard_text(result)
    assert "Perfect mask, components" in text and "(human)" not in text


def test_the_note_states_what_objects_that_touch_cost() -> None:
    pair = [Mask(rectangle(2, 2, 6, 6)), Mask(rectangle(2, 8, 6, 6))]
    joined = [Mask(rectangle(2, 2, 6, 12))]
    alone = [Mask(rectangle(20, 20, 5, 5))]
    names = [(f"i{n}", f"c{n}") for n in range(8)]
    table = objects_table([fast_image(pair + alone, joined + alone, *name) for name in names])
    better = objects_table([fast_image(pair + alone, pair + alone, *name) for name in names])
    counts = counts_of(names, CLASSES)
    unet = replace(contestant("unet", 0.5), tables=[counts], objects=[table])
    notes = compared("pq", unet, limit_of(table, counts)).notes
    touch = "because objects touch or have several parts"
    # of three objects one is found by one of two predictions
    all_lost = f"Components of any mask lose 60.0 points of F1 {touch}."
    assert any(note.endswith(f"reach F1 40.0 %. {all_lost}") for note in notes)
    perfect = replace(unet, objects=[better])
    notes = compared("pq", perfect, limit_of(better, counts)).notes
    assert any(note.endswith(": no object is lost because true objects touch.") for note in notes)
    notes = compared("pq", perfect, limit_of(table, counts)).notes
    assert any(note.endswith("U-Net separates objects that touch better than that.") for note in notes)
    missing = table[(table["prediction"] != 2) | (table["item"] != "i0")]
    weaker = replace(unet, objects=[missing])
    notes = compared("pq", weaker, limit_of(table, counts)).notes
    some_lost = f"points of F1 that it lacks, 60.0 are lost by components of any mask {touch}; the others"
    assert any(some_lost in note for note in notes)
    watershed = replace(weaker, summaries=contestant("unet", 0.5, method="watershed").summaries)
    notes = compared("pq", watershed, limit_of(table, counts)).notes
    assert any(note.startswith("U-Net with watershed") and note.endswith(all_lost) for note in notes)


@pytest.mark.parametrize("truth", ["given", "components"])
def test_the_note_recommends_the_method_that_is_better_on_the_validation_split(truth: str) -> None:
    def note(method: str, *f1: tuple[float, float]) -> str:
        one = contestant("unet", 0.7, seeds=len(f1))
        found = one.summaries[0]["objects"] | {"method": method, "truth": truth}
        summaries = [
            one.summaries[0] | {"objects": found | {"validation": {"components": c, "watershed": w}}}
            for c, w in f1
        ]
        notes = compared("pq", replace(one, summaries=summaries), seeds=len(f1)).notes
        return " ".join(text for text in notes if "evaluate.objects" in text)

    assert note("components", (0.78, 0.85), (0.80, 0.87)) == (
        "On the validation split, U-Net reached F1 86.0 % with watershed and 79.0 % with components: "
        "set evaluate.objects: watershed, which trains nothing again."
    )
    assert "set evaluate.objects: components," in note("watershed", (0.8, 0.7))
    assert note("components", (0.8, 0.805)) == note("watershed", (0.8, 0.9)) == ""


def of_kinds(
    metric: str, f1: dict[str, float], semantic: dict[str, float] | None = None, macs: int = 9_120_000_000
) -> Comparison:
    """U-Net with these validation F1, others with these by watershed, and an instance network that is better."""
    found = {"unet": (0.3, f1)} | {name: (0.2, f1 | {"watershed": w}) for name, w in (semantic or {}).items()}
    models = [contestant(name, skill, validation=each) for name, (skill, each) in found.items()]
    one = contestant("deeplab", 0.95, method="network", validation={"network": 0.9})
    own = replace(one, summaries=[s | {"kind": "instance", "macs": macs} for s in one.summaries])
    return compared(metric, *models, own)


def test_no_instance_network_is_needed_where_the_other_method_is_better_on_the_validation_split() -> None:
    result = of_kinds("pq", {"components": 0.879, "watershed": 0.979})
    assert result.models[0].architecture == "deeplab" and result.tests[0].significant
    reason = (
        "On the validation split, U-Net reached F1 97.9 % with watershed and 87.9 % with components: "
        "set evaluate.objects: watershed, which trains nothing again."
    )
    start = (
        " Whether these data need an instance network is not shown, by PQ: DeepLabV3+ leads the best semantic"
    )
    assert start in result.verdict and reason in result.verdict
    assert "These data need" not in result.verdict
    assert leaderboard_text(result).count(reason) == 1


def test_an_instance_network_is_needed_where_the_other_method_is_no_better() -> None:
    for f1 in ({"components": 0.879, "watershed": 0.885}, {"components": 0.879, "watershed": 0.4}):
        result = of_kinds("pq", f1)
        assert " These data need an instance network, by PQ: DeepLabV3+ leads" in result.verdict
        assert "evaluate.objects" not in leaderboard_text(result)
    # of another network, whose objects by the other method are still worse than those of the best one
    result = of_kinds("pq", {"components": 0.879, "watershed": 0.8}, {"fcn": 0.85})
    assert " These data need an instance network" in result.verdict


def test_the_other_method_of_any_semantic_network_counts() -> None:
    result = of_kinds("pq", {"components": 0.879, "watershed": 0.8}, {"fcn": 0.95})
    assert "On the validation split, FCN-8s reached F1 95.0 % with watershed and" in result.verdict


def test_the_note_on_the_method_does_not_need_a_leading_semantic_network() -> None:
    """Pixels do not depend on how objects are found, so that the verdict on them stays."""
    result = of_kinds("iou", {"components": 0.162, "watershed": 0.216})
    assert any("U-Net reached F1 21.6 % with watershed and 16.2 %" in note for note in result.notes)
    assert "evaluate.objects" not in result.verdict


def test_of_models_of_the_same_score_the_one_that_computes_less_is_first() -> None:
    one = contestant("deeplab", 0.95)
    for macs, order in (([9e9, 2e9], ["fcn", "deeplab"]), ([2e9, 9e9], ["deeplab", "fcn"])):
        models = [
            replace(
                one,
                name=name,
                title=TITLES[name],
                summaries=[one.summaries[0] | {"macs": m, "kind": "instance"}],
            )
            for name, m in zip(("deeplab", "fcn"), macs, strict=True)
        ]
        result = compared("pq", contestant("unet", 0.3), *models)
        assert [row.architecture for row in result.models] == [*order, "unet"]
        assert [row.rank for row in result.models] == [1, 1, 3]
        assert f"need an instance network, by PQ: {TITLES[order[0]]} leads" in result.verdict


def test_what_times_leave_out_is_stated_where_objects_are_compared() -> None:
    costs = {name: {"ms_per_megapixel": 100.0} for name in ("unet", "deeplab")}
    both = of_kinds("pq", {"components": 0.8, "watershed": 0.8})
    semantic = "Times of semantic networks leave out finding the objects in the class map"
    assert f"{semantic}; those of instance networks include it." in leaderboard_text(both, costs)
    assert semantic not in leaderboard_text(both)
    assert f"{semantic}.\n" in leaderboard_text(compared("pq", contestant("unet", 0.7)), costs)
    pixels = replace(contestant("unet", 0.7), objects=[], summaries=[SUMMARY | {"title": "U-Net"}])
    assert semantic not in leaderboard_text(compared("iou", pixels), costs)


def test_figures_of_all_objects_are_pooled_and_not_means_of_classes() -> None:
    """Nine buildings that are found and one tree that is not are 90 % of the objects, not 50 %."""
    buildings = [Mask(rectangle(10 * row, 10 * col, 6, 6)) for row in range(3) for col in range(3)]
    tree, false = Mask(rectangle(26, 26, 5, 5), 2), Mask(rectangle(28, 0, 3, 3), 2)
    names = [(f"i{n}", f"c{n}") for n in range(4)]
    table = objects_table([fast_image([*buildings, tree], [*buildings, false, false], *n) for n in names])
    counts = counts_of(names, CLASSES)
    unet = replace(contestant("unet", 0.5), tables=[counts], objects=[table])
    result = compared("pq", unet, limit_of(table, counts))
    expected = {"f1": 18 / 21, "precision": 9 / 11, "recall": 0.9, "count_bias": 0.1}
    for name in ("unet", "components-of-truth"):
        assert result.objects.pooled[name] == pytest.approx(expected, abs=1e-6)
    assert any(
        note.startswith("U-Net with components finds 90.0 % of the objects (F1 85.7 %)")
        for note in result.notes
    )
    content = json.loads(json.dumps(result.to_json()))
    for key in ("pooled", "validation"):
        del content["objects"][key]
    assert Comparison.from_json(content).objects.pooled == {}


def test_operating_scores_of_seeds_that_differ_are_a_range() -> None:
    one = contestant("unet", 0.7, seeds=2)
    chosen = [
        summary | {"objects": summary["objects"] | {"score": s}}
        for summary, s in zip(one.summaries, (0.65, 0.6), strict=True)
    ]
    result = compared("pq", replace(one, summaries=chosen), seeds=2)
    assert result.objects.operating["unet"]["score"] == [0.6, 0.65]
    assert "objects count from a score of 0.60 to 0.65, chosen" in leaderboard_text(result)


def test_the_count_of_one_class_is_followed_by_its_true_number_and_then_by_the_interval() -> None:
    result = compared("pq", contestant("unet", 0.7))
    count = {"true": 225.0, "predicted": 165.0, "low": 188.0, "high": 1278.0}
    objects = replace(result.objects, counts={"unet": {"cell": count}})
    assert lines(replace(result, objects=objects))[0] == (
        "Objects counted by U-Net: cell 165 (true 225); corrected by the ratio of true to predicted objects on the "
        "validation images, 95 %: 188 to 1,278."
    )


def test_counts_operating_scores_and_policy_are_part_of_the_result() -> None:
    clusters = {"building": [[9, 7], [12, 6], [5, 4], [8, 9]], "tree": [[3, 3], [9, 5], [4, 6], [7, 7]]}
    first, second = (
        contestant(name, s, seeds=2, counts=clusters) for name, s in (("unet", 0.7), ("fcn", 0.5))
    )
    first.summaries[0]["objects"]["score"] = 0.2
    result = compared("pq", first, second, seeds=2)
    objects = result.objects
    assert objects is not None and objects.policy == OBJECT_POLICY and objects.truth == "given"
    assert "0.0 in errors" in result.empty_policy
    assert objects.operating["unet"] == {"score": [0.2], "precision": 0.8, "recall": 0.7, "count_bias": -0.1}
    small, medium, large = objects.sizes["small"], objects.sizes["medium"], objects.sizes["large"]
    assert small[0] == 0 and small[1] == medium[0] and medium[1] == large[0] and large[1] is None
    for k, name in enumerate(CLASSES[1:], 1):
        tables_of_unet = first.objects
        true = ((tables_of_unet[0]["kind"] == "truth") & (tables_of_unet[0]["class_index"] == k)).sum()
        predicted = [
            int(((t["kind"] == "prediction") & (t["class_index"] == k) & (t["score"] >= 0.2)).sum())
            for t in tables_of_unet
        ]
        count = objects.counts["unet"][name]
        assert (count["true"], count["predicted"]) == (true, np.mean(predicted))
        # as a prediction states it
        ends = np.mean([count_interval(number, clusters[name]) for number in predicted], axis=0)
        assert (count["low"], count["high"]) == tuple(ends)
    text = leaderboard_text(result)
    assert f"Objects: {OBJECT_POLICY}" in lines(result) and "counted by U-Net: building " in text
    # the definitions are too long for a terminal
    assert OBJECT_POLICY[:40] not in text and "scores.md have all definitions of object scores." in text
    count, other = (objects.counts["unet"][name] for name in CLASSES[1:])
    assert (
        f"; corrected by the ratio of true to predicted objects on the validation images, 95 %: building "
        f"{count['low']:.0f} to {count['high']:.0f}, tree {other['low']:.0f} to {other['high']:.0f}."
    ) in text
    assert "objects count from a score of 0.20, chosen on the validation split" in text
    keys = [column.key for column in leaderboard(result).columns if column.part == "scores"]
    wanted = [f"{name}/dataset/foreground_mean" for name in ("pq", "iou", "f1_50", "ap", "count_error")]
    assert [key for key in keys if key in wanted] == wanted
    assert all(f"{name}/dataset/foreground_mean" not in keys for name in ("aji", "f1_75"))
    again = Comparison.from_json(json.loads(json.dumps(result.to_json())))
    assert again == result


def test_the_interval_of_a_count_does_not_depend_on_the_true_objects_of_the_test_images() -> None:
    """A count that is corrected by the objects that it is to estimate shows nothing."""
    clusters = {name: [[9, 7], [12, 6], [5, 4]] for name in CLASSES[1:]}
    one = contestant("unet", 0.7, counts=clusters)
    table = one.objects[0]
    # another true object of each one
    truths = table[table["kind"] == "truth"]
    more = truths.assign(truth=truths["truth"] + 1000)
    twice = replace(one, objects=[pd.concat([table, more], ignore_index=True)])
    few, many = (compared("pq", each).objects.counts["unet"]["building"] for each in (one, twice))
    assert many["true"] == 2 * few["true"] and (many["low"], many["high"]) == (few["low"], few["high"])
    assert few["low"] is not None


def test_evaluations_without_counts_of_the_validation_split_have_no_interval() -> None:
    for counts in (None, {"building": [[9, 7]]}):
        result = compared("pq", contestant("unet", 0.7, counts=counts))
        assert all(one["low"] is one["high"] is None for one in result.objects.counts["unet"].values())
        assert "counted by U-Net: building " in leaderboard_text(result)
        assert "corrected by" not in leaderboard_text(result)


def test_truth_of_components_has_a_note() -> None:
    result = compared("iou", contestant("unet", 0.7, truth="components"))
    assert any("favours methods by components" in note for note in result.notes)
    assert result.objects is not None and result.objects.truth == "components"


def test_intervals_of_one_cluster_are_the_whole_range_of_bounded_scores_only() -> None:
    both = tables(0.7, 0, clusters=1)
    unet = replace(contestant("unet", 0.5), tables=[both[0]], objects=[both[1]])
    result = compared("pq", unet)
    found = result.models[0].scores
    assert (found["pq/dataset/tree"].low, found["pq/dataset/tree"].high) == (0, 1)
    assert found["count_error/dataset/tree"].low is None and found["count_bias/dataset/tree"].high is None


def test_without_objects_nothing_is_added_and_a_metric_of_objects_is_refused() -> None:
    unet = replace(contestant("unet", 0.7), objects=[], summaries=[SUMMARY | {"title": "U-Net"}])
    result = compared("iou", unet)
    content = result.to_json()
    assert "objects" not in content and not set(result.models[0].scores) & set(class_metrics("objects"))
    assert not any(key.partition("/")[0] in class_metrics("objects") for key in result.models[0].scores)
    assert "object" not in leaderboard_text(result)
    assert Comparison.from_json(content).objects is None
    with pytest.raises(DataError, match=r"compare\.metric is pq, but U-Net has no objects"):
        compared("pq", unet)


def test_slices_score_objects_where_the_ranking_is_by_objects() -> None:
    unet = contestant("unet", 0.7)
    counts, objects = unet.tables[0], unet.objects[0]
    site = {item: "north" if int(item.partition("-")[0]) < 8 else "south" for item in counts["item"]}
    sliced = counts.assign(**{"slice.site": counts["item"].map(site)})
    for metric in ("pq", "recall_small", "count_bias"):
        result = compared(metric, replace(unet, tables=[sliced]))
        assert [(one.word, one.text, one.images) for one in result.slices] == [
            ("site", "north", 16),
            ("site", "south", 16),
        ]
        north = result.slices[0]
        images = {item for item, name in site.items() if name == "north"}
        expected = run_scores(
            cluster_sums(
                counts[counts["item"].isin(images)],
                [1, 2],
                objects,
                0.2,
                (result.objects.sizes["medium"][0], result.objects.sizes["medium"][1]),
            )
        )[f"{metric}/dataset/foreground_mean"]
        assert north.scores["unet"].estimate == pytest.approx(expected, abs=1e-6)
        assert north.scores["unet"].low < north.scores["unet"].high
        whole = result.models[0].scores[f"{metric}/dataset/foreground_mean"].estimate
        assert north.overall["unet"] == pytest.approx(whole, abs=1e-6)


def test_objects_of_other_images_are_refused() -> None:
    both = tables(0.7, 0)
    with pytest.raises(DataError, match="images are missing from the object table"):
        cluster_sums(both[0], [1, 2], both[1][both[1]["item"] != "0-0"])


def test_where_no_true_object_was_found_on_the_validation_split_the_score_is_called_the_default() -> None:
    nothing = {"score": 0.5, "precision": 0.0, "recall": 0.0, "count_bias": -1.0}
    text = leaderboard_text(compared("iou", contestant("unet", 0.7, **nothing)))
    assert (
        "U-Net: on the validation split, no true object is found, so that objects count from the default"
        in text
    )
