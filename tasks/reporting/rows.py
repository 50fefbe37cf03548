"""What the report's templates show, worked out from its inputs: rows, sentences, captions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from segcore.comparison.leaderboard import METRICS, leaderboard_markdown, models_of
from segcore.plots.palette import HUMAN, colours
from tasks.formatting import chance, percent, points

if TYPE_CHECKING:  # its imports of charts and pictures are slow, and the data card needs none of them
    from tasks.reporting.inputs import Inputs

UNMEASURED = "not measured on this machine"


def score_name(key: str) -> str:
    """A score key in words: `iou/dataset/building` -> `IoU, building (pooled pixels)`."""
    if key == "empty_image_false_positive_rate":
        return "False-positive rate on images without foreground"
    metric, aggregate, *who = key.split("/")
    whose = {"foreground_mean": "mean of the foreground classes", "all_mean": "mean with background"}
    words = METRICS.get(metric, metric.replace("_", " ").capitalize())
    of = f", {whose.get(who[0], who[0])}" if who else ""
    return words + of + (" (pooled pixels)" if aggregate == "dataset" else " (mean of images)")


def _columns(comparison: Mapping[str, Any]) -> list[dict[str, str]]:
    metric, headline = comparison["metric"], comparison["headline"]
    others = [m for m in METRICS if m != metric]
    wanted = {
        f"{metric}/dataset/foreground_mean": METRICS[metric],
        f"{metric}/image/foreground_mean": "per image",
    }
    wanted |= {f"{m}/dataset/foreground_mean": METRICS[m] for m in others}
    wanted |= {f"{metric}/dataset/all_mean": "with background"}
    known = {key for row in comparison["leaderboard"] for key in row["scores"]}
    return [
        {"key": key, "label": label, "title": score_name(key)}
        for key, label in wanted.items()
        if key in known and key != headline
    ]


def _interval(score: Mapping[str, Any] | None, low: float, high: float) -> dict[str, float] | None:
    """Positions of an interval on an axis from `low` to `high`, in per cent of its width."""
    if score is None:
        return None
    span = max(high - low, 1e-9)
    ends = [score["estimate"] if score.get(end) is None else score[end] for end in ("low", "high")]
    place = [(value - low) / span * 100 for value in (*ends, score["estimate"])]
    return {"low": place[0], "high": place[1], "at": place[2]}


def _axis(scores: list[Mapping[str, Any]]) -> tuple[float, float]:
    ends = [v for s in scores for v in (s["estimate"], s.get("low"), s.get("high")) if v is not None] or [
        0.0,
        1.0,
    ]
    margin = max(0.01, (max(ends) - min(ends)) * 0.06)
    return max(0.0, min(ends) - margin), min(1.0, max(ends) + margin)


def _leader_rows(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    headline = comparison["headline"]
    rows = sorted(
        comparison["leaderboard"], key=lambda row: row["kind"] == "human"
    )  # stable: rank order stays
    low, high = _axis([row["scores"][headline] for row in rows if headline in row["scores"]])
    palette = colours(row["architecture"] for row in models_of(comparison))
    return [
        dict(row)
        | {
            "headline": row["scores"].get(headline),
            "interval": _interval(row["scores"].get(headline), low, high),
            "colour": (HUMAN if row["kind"] == "human" else palette[row["architecture"]])[1:],
        }
        for row in rows
    ]


def in_words(test: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """A paired test in plain words; no difference shown is a finding too."""
    a, b = titles.get(test["a"], test["a"]), titles.get(test["b"], test["b"])
    if test["difference"] < 0:
        a, b = b, a
    gap = f"{abs(test['difference']) * 100:.1f} points"
    if test["significant"]:
        return f"{a} is better than {b} by {gap}."
    return f"No difference shown between {a} and {b}: a gap of {gap} can be chance."


def _tests(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    titles = {row["architecture"]: row["title"] for row in comparison["leaderboard"]}
    tests = comparison["tests"]
    reach = max((abs(v) for t in tests for v in (t["low"], t["high"], t["difference"])), default=0.01) * 1.08
    return [
        dict(test)
        | {
            "sentence": in_words(test, titles),
            "names": (titles.get(test["a"], test["a"]), titles.get(test["b"], test["b"])),
            "interval": _interval(dict(test) | {"estimate": test["difference"]}, -reach, reach),
        }
        for test in tests
    ]


def scores_view(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """What depends on the comparison alone."""
    scores = [row["scores"].get(comparison["headline"]) for row in comparison["leaderboard"]]
    keys = sorted({key for row in comparison["leaderboard"] for key in row["scores"]})
    return {
        "comparison": comparison,
        "board": leaderboard_markdown(comparison),
        "rows": _leader_rows(comparison),
        "axis": _axis([score for score in scores if score]),
        "columns": _columns(comparison),
        "metric": METRICS.get(comparison["metric"], comparison["metric"]),
        "headline_name": score_name(comparison["headline"]),
        "tests": _tests(comparison),
        "all_scores": [(score_name(key), key) for key in keys],
    }


def _tile(value: str, unit: str, label: str, note: str) -> dict[str, str]:
    return {"value": value, "unit": unit, "label": label, "note": note}


def _lead_tile(comparison: Mapping[str, Any]) -> dict[str, str]:
    first, second = models_of(comparison)[:2]
    headline = comparison["headline"]
    gap = first["scores"][headline]["estimate"] - second["scores"][headline]["estimate"]
    pair = {first["architecture"], second["architecture"]}
    test = next((t for t in comparison["tests"] if {t["a"], t["b"]} == pair), None)
    ahead = f"ahead of {second['title']}"
    if not test:
        return _tile(points(gap), "points", ahead, "not tested")
    why = f"p = {chance(test['p_holm'])}".replace("= <", "<")
    if test["significant"]:
        return _tile(points(gap), "points", ahead, f"a difference is shown ({why})")
    if test["p_holm"] <= 1 - comparison["confidence"]:  # of these very models, but not over seeds
        why = "over seeds, the interval includes 0"
    # nothing in large type that the verdict takes back
    between = f"between {first['title']} and {second['title']}"
    return _tile(percent(abs(gap)), "points", between, f"no difference shown ({why})")


def _tiles(inputs: "Inputs") -> list[dict[str, str]]:
    comparison, headline = inputs.comparison, inputs.comparison["headline"]
    models = models_of(comparison)
    best, metric = models[0]["scores"][headline], METRICS[comparison["metric"]]
    interval = (
        f"{comparison['confidence'] * 100:.0f} % interval {percent(best['low'])} to {percent(best['high'])}"
    )
    tiles = [_tile(percent(best["estimate"]), "%", f"{metric} of {models[0]['title']}", interval)]
    if len(models) > 1:
        tiles.append(_lead_tile(comparison))
    for row in comparison["leaderboard"]:
        if row["kind"] == "human" and headline in row["scores"]:
            value = percent(row["scores"][headline]["estimate"])
            tiles.append(_tile(value, "%", row["title"], f"{metric} on the same images"))
    costs = {name: cost for name, cost in inputs.costs.items() if cost and cost.get("ms_per_megapixel")}
    if costs:
        fastest = min(costs, key=lambda name: costs[name]["ms_per_megapixel"])
        value = f"{costs[fastest]['ms_per_megapixel']:,.0f}"
        tiles.append(_tile(value, "ms", f"a megapixel, {inputs.titles[fastest]}", "the fastest here"))
    return [*tiles, _held_out(comparison)]


def _held_out(comparison: Mapping[str, Any]) -> dict[str, str]:
    """Tile of the test set; blocks of a scene are no images."""
    clusters, images = comparison["clusters"], comparison["test_images"]
    if comparison["cluster_kind"] == "block":
        return _tile(
            str(clusters), "blocks", "of scenes held out for the test", "apart from what was trained on"
        )
    return _tile(
        str(images), "images", "held out for the test", f"in {clusters} group{'s' * (clusters != 1)}"
    )


def _speed_note(inputs: "Inputs") -> str:
    measured = [cost for cost in inputs.costs.values() if cost and cost.get("latency_tile")]
    if not measured:
        return f"Speed: {UNMEASURED}. GMACs are counted, not timed."
    c = measured[0]
    threads = f", {c['threads']:.0f} threads" if c.get("threads") else ""
    return (
        "Speed: the fastest of several passes over a tile after warm-up passes, device synchronised; "
        f"tile of {c['latency_tile']:.0f} pixels a side, batch {c['latency_batch']:.0f}, "
        f"{c['precision']} on {c['device']}{threads}. Compare only what one machine measured."
    )


def _captions(inputs: "Inputs") -> dict[str, str]:
    comparison = inputs.comparison
    policy = comparison["empty_policy"].rstrip(".")
    tolerance = inputs.params.evaluate.boundary_tolerance
    interval = (
        f"Intervals: {comparison['confidence'] * 100:.0f} %, {comparison['bootstrap']} bootstrap draws "
        f"of whole {comparison['cluster_kind']}s ({comparison['clusters']} of them)."
    )
    seeds = len(comparison["seeds"])
    return {
        "policy": f"Empty classes: {policy}.",
        "boundary": f"Boundary F1 counts boundary pixels found within {tolerance} px.",
        "interval": interval,
        "speed": _speed_note(inputs),
        "seeds": "One training of each architecture"
        if seeds == 1
        else f"{seeds} trainings of each architecture",
    }


def page_view(inputs: "Inputs") -> dict[str, Any]:
    """What the page and its brief form add to the scores: costs, facts, settings."""
    params = inputs.params.model_dump(mode="json")
    return {
        "title": inputs.params.report.title or inputs.params.data.name.capitalize(),
        "tiles": _tiles(inputs),
        "costs": inputs.costs,
        "summaries": {name: run.summary for name, run in inputs.first_runs.items()},
        "best_steps": {
            n: [r.summary["best_step"] for r in inputs.runs if r.architecture == n] for n in inputs.titles
        },
        "titles": inputs.titles,
        "unmeasured": UNMEASURED,
        "captions": _captions(inputs),
        "brief_board": leaderboard_markdown(inputs.comparison, {n: c for n, c in inputs.costs.items() if c}),
        "facts": inputs.facts,
        "params_yaml": yaml.safe_dump(
            params, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
        ),
    }
