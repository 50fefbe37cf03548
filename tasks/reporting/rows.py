"""Values for the templates of the report, computed from its inputs: rows, sentences, captions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from segcore.comparison import annotators
from segcore.comparison.leaderboard import leaderboard, leaderboard_markdown
from segcore.comparison.results import Comparison, PairTest
from segcore.comparison.surfaces import empty_policy
from segcore.comparison.surfaces import lines as surface_lines
from segcore.comparison.text import difference_unit, value_text
from segcore.comparison.timing import fastest, finding_notes, milliseconds, timing, timing_notes
from segcore.latency import threads_text
from segcore.metrics import METRICS, Metric, is_of_objects, score_title, unit_of
from tasks.formatting import chance, interval, points, score
from tasks.reporting.calibration import calibration_view
from tasks.reporting.leaderboard import (
    axis_of,
    headlines,
    leader_rows,
    measure_columns,
    object_columns,
    place,
    score_columns,
    surface_columns,
    with_unit,
)
from tasks.reporting.networks import networks_view
from tasks.reporting.runtimes import runtimes_view

if TYPE_CHECKING:
    # slow: imports charts and pictures, which the data card does not need
    from tasks.reporting.inputs import Inputs

UNMEASURED = "not measured on this machine"


def pair_text(test: PairTest, titles: Mapping[str, str], metric: Metric) -> str:
    """A paired test as a sentence, also if it shows no difference."""
    a, b = titles.get(test.a, test.a), titles.get(test.b, test.b)
    if test.difference * metric.sign < 0:
        a, b = b, a
    gap = f"{value_text(abs(test.difference), metric.unit)} {difference_unit(metric.unit)}"
    if test.significant:
        return f"{a} is better than {b} by {gap}."
    return f"No difference shown between {a} and {b}: a gap of {gap} can be chance."


_CORRECTED = (
    "p (Holm), which decides, is corrected for all pairs, and the intervals are not: one that excludes 0 does not by "
    "itself show a difference."
)


def _tests(comparison: Comparison) -> list[dict[str, Any]]:
    titles, tests, metric = comparison.titles, comparison.tests, METRICS[comparison.metric]
    ends = [abs(v) for t in tests for v in (t.low, t.high, t.difference) if v is not None]
    reach = max(ends, default=0.01) * 1.08
    # the side where `a` of the pair is better is on the right, also if lower is better
    axis = (-reach, reach) if metric.higher_is_better else (reach, -reach)
    return [
        {
            "result": test,
            "sentence": pair_text(test, titles, metric),
            "names": (titles.get(test.a, test.a), titles.get(test.b, test.b)),
            "interval": place(test.low, test.difference, test.high, axis),
        }
        for test in tests
    ]


def scores_view(comparison: Comparison, costs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Leaderboard and tests; without `costs` they depend on the comparison only."""
    metric = METRICS[comparison.metric]
    board = leaderboard(comparison, costs)
    keys = sorted({key for row in comparison.leaderboard for key in row.scores if _is_listed(key)})
    return {
        "comparison": comparison,
        "board": leaderboard_markdown(comparison, costs),
        "rows": leader_rows(comparison, board),
        "axis": axis_of(headlines(comparison), metric),
        "columns": score_columns(board, comparison),
        "object_columns": object_columns(board, comparison) if comparison.objects else [],
        "surface_columns": surface_columns(board, comparison) if comparison.surfaces else [],
        "surfaces": surface_lines(comparison),
        "against_each": annotators.lines(comparison),
        "empty_policy": empty_policy(comparison),
        "ranked_by": "Objects" if metric.of_objects else "Surfaces" if metric.of_surfaces else "",
        "measures": measure_columns(board),
        "in_turn": any((one := timing(cost)) and one.spread for cost in (costs or {}).values()),
        "metric": metric,
        "difference_unit": difference_unit(metric.unit),
        "headline_name": score_title(comparison.headline),
        "tests": _tests(comparison),
        "corrected": _CORRECTED if len(comparison.tests) > 1 else "",
        "all_scores": [(with_unit(score_title(key), unit_of(key)), key, unit_of(key)) for key in keys],
    }


def _is_listed(key: str) -> bool:
    """Whether the page lists a score; single classes at other IoU than .5 and .75 would be hundreds of rows."""
    name, _, target = key.partition("/")
    threshold = name.rpartition("_")[2]
    if not is_of_objects(key) or target.endswith("foreground_mean") or not threshold.isdigit():
        return True
    return threshold in ("50", "75")


def _tile(value: str, unit: str, label: str, note: str) -> dict[str, str]:
    return {"value": value, "unit": unit, "label": label, "note": note}


def _lead_tile(comparison: Comparison) -> dict[str, str]:
    first, second = comparison.models[:2]
    metric, headline = METRICS[comparison.metric], comparison.headline
    unit = difference_unit(metric.unit)
    gap = (first.scores[headline].estimate - second.scores[headline].estimate) * metric.sign
    pair = {first.architecture, second.architecture}
    test = next((t for t in comparison.tests if {t.a, t.b} == pair), None)
    ahead = f"ahead of {second.title}"
    if not test:
        return _tile(points(gap, metric.unit), unit, ahead, "not tested")
    why = f"p after Holm = {chance(test.p_holm)}".replace("= <", "<")
    if test.significant:
        return _tile(points(gap, metric.unit), unit, ahead, f"a difference is shown ({why})")
    # significant for these models, but not over seeds
    if test.p_holm <= 1 - comparison.confidence:
        why = "over seeds, the interval includes 0"
    # the tile must not show a lead that the verdict denies
    between = f"between {first.title} and {second.title}"
    return _tile(score(abs(gap), metric.unit), unit, between, f"no difference shown ({why})")


def _tiles(inputs: "Inputs") -> list[dict[str, str]]:
    comparison, headline = inputs.comparison, inputs.comparison.headline
    models, metric = comparison.models, METRICS[comparison.metric]
    best = models[0].scores[headline]
    confidence = f"{comparison.confidence * 100:.0f} % interval {interval(best.low, best.high, metric.unit)}"
    label = f"{metric.heading} of {models[0].title}"
    tiles = [_tile(score(best.estimate, metric.unit), metric.unit, label, confidence)]
    if len(models) > 1:
        tiles.append(_lead_tile(comparison))
    against = "against the majority of the others" if comparison.annotators else "on the same images"
    for row in comparison.leaderboard:
        if row.kind == "human" and headline in row.scores:
            value = score(row.scores[headline].estimate, metric.unit)
            tiles.append(_tile(value, metric.unit, row.title, f"{metric.heading} {against}"))
    return [*tiles, *_object_tiles(comparison), *_speed_tiles(inputs), _held_out(comparison)]


def _object_tiles(comparison: Comparison) -> list[dict[str, str]]:
    """A tile with F1 of objects of the best model beside that of components of perfect masks; without objects none."""
    key, best = "f1_50/dataset/foreground_mean", comparison.models[0]
    if key == comparison.headline or key not in best.scores:
        return []
    limit = next((row.scores[key] for row in comparison.leaderboard if row.kind == "limit"), None)
    note = f"perfect masks with components: {score(limit.estimate)}" if limit else "IoU above .5"
    return [_tile(score(best.scores[key].estimate), "%", f"F1 of objects, {best.title}", note)]


def _speed_tiles(inputs: "Inputs") -> list[dict[str, str]]:
    """A tile with the time of the fastest architecture; with the times of all where no order is shown."""
    timings = {n: one for n in inputs.titles if (one := timing(inputs.costs[n])) is not None}
    if not timings:
        return []
    best = fastest(timings)
    if len(timings) == 1 or best.name is not None:
        name = best.name or next(iter(timings))
        note = best.reason if len(timings) > 1 else "on this machine"
        return [
            _tile(
                milliseconds(timings[name].estimate, 0), "ms", f"per megapixel, {inputs.titles[name]}", note
            )
        ]
    ends = sorted(one.estimate for one in timings.values())
    value = "–".join(dict.fromkeys(milliseconds(end, 0) for end in (ends[0], ends[-1])))
    return [_tile(value, "ms", "per megapixel, all architectures", f"no order shown: {best.reason}")]


def _held_out(comparison: Comparison) -> dict[str, str]:
    """Tile of the test set; it counts blocks if scenes are divided, else images."""
    clusters, images = comparison.clusters, comparison.test_images
    if comparison.folds:
        what, where = (
            ("blocks", "") if comparison.cluster_kind == "block" else ("images", _in_groups(clusters))
        )
        number = clusters if comparison.cluster_kind == "block" else images
        return _tile(str(number), what, f"each tested once, in {comparison.folds} folds", where)
    if comparison.cluster_kind == "block":
        return _tile(
            str(clusters), "blocks", "of scenes held out for the test", "separate from the training area"
        )
    return _tile(str(images), "images", "held out for the test", _in_groups(clusters))


def _in_groups(clusters: int) -> str:
    return f"in {clusters} group{'s' * (clusters != 1)}"


def _speed_note(inputs: "Inputs") -> str:
    measured = [cost for cost in inputs.costs.values() if cost and cost.get("latency_tile")]
    if not measured:
        return f"Speed: {UNMEASURED}. GMACs are counted, not timed."
    c = measured[0]
    threads = f", {threads_text(c['threads'])}" if c.get("threads") else ""
    rounds = f" of {c['latency_rounds']:.0f} rounds" if c.get("latency_rounds") else ""
    how = (
        "median of the passes over a tile"
        if c.get("apart")
        else f"median and middle half{rounds} in which all networks take turns,"
    )
    device = f"{c['device']}{', ' + c['machine'] if c.get('machine', c['device']) != c['device'] else ''}"
    return " ".join(
        [
            f"Speed: {how} after warm-up passes, device synchronised; "
            f"tile of {c['latency_tile']:.0f} pixels a side, batch {c['latency_batch']:.0f}, "
            f"{c['precision']} on {device}{threads}.",
            *timing_notes(inputs.costs, inputs.titles),
            *finding_notes(inputs.costs, inputs.comparison),
        ]
    )


def _captions(inputs: "Inputs") -> dict[str, str]:
    comparison = inputs.comparison
    policy = empty_policy(comparison).rstrip(".") + (
        "; 0.0 in errors of objects" if comparison.objects else ""
    )
    tolerance = inputs.params.evaluate.boundary_tolerance
    drawn = (
        f"Intervals: {comparison.confidence * 100:.0f} %, {comparison.bootstrap} bootstrap draws "
        f"of whole {comparison.cluster_kind}s ({comparison.clusters} of them)."
    )
    return {
        "policy": f"Empty classes: {policy}.",
        "boundary": f"Boundary F1 counts boundary pixels found within {tolerance} px.",
        "interval": drawn,
        "speed": _speed_note(inputs),
        "seeds": _trainings(comparison),
        # what the pictures and figures of a single evaluation are of
        "first": "One training per fold" if comparison.folds else "First seed",
    }


def _trainings(comparison: Comparison) -> str:
    """Such as "3 trainings of each architecture"."""
    seeds = len(comparison.seeds)
    each = f"{comparison.rounds} per fold" if comparison.rounds > 1 else "one per fold"
    text = "One training of each architecture" if seeds == 1 else f"{seeds} trainings of each architecture"
    return f"{text}, {each}" if comparison.folds else text


def page_view(inputs: "Inputs") -> dict[str, Any]:
    """Values of the page and its short form besides the scores: costs, facts, settings."""
    # of data without volumes it affects nothing, and their pages stay as they were
    unused = {} if inputs.comparison.surfaces else {"evaluate": {"surface_tolerance"}}
    params = inputs.params.model_dump(mode="json", exclude=unused)
    return {
        "title": inputs.params.report.title or inputs.params.data.name.capitalize(),
        "tiles": _tiles(inputs),
        "costs": inputs.costs,
        "runtimes": runtimes_view(inputs.costs, inputs.titles),
        "summaries": {name: run.summary for name, run in inputs.first_runs.items()},
        "best_steps": {
            n: [r.summary["best_step"] for r in inputs.trainings if r.architecture == n]
            for n in inputs.titles
        },
        "titles": inputs.titles,
        **networks_view(inputs),
        "calibration": calibration_view(inputs),
        "unmeasured": UNMEASURED,
        "captions": _captions(inputs),
        "facts": inputs.facts,
        "params_yaml": yaml.safe_dump(
            params, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
        ),
    }
