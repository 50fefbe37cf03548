"""The model card of a registered version, in Markdown: what it is for, data, scores, limits, costs, licences and use.

All facts are read from the bundle, its evaluation, the comparison and measurements; a missing one is named as missing.
Evaluation, comparison and measurements are of models/<run>: they are left out where that has other weights.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

from segcore.class_colors import hex_color
from segcore.comparison.annotators import agreement_text
from segcore.comparison.results import Comparison, LeaderboardRow, read_comparison
from segcore.comparison.surfaces import empty_policy
from segcore.comparison.timing import milliseconds, timing
from segcore.data.temperature_limits import limit_text
from segcore.files import cached_json
from segcore.ingest.samples import load_manifest
from segcore.metrics import EMPTY_RATE, METRICS, score_title, unit_of
from segcore.models.base.bundle import load_description
from segcore.models.base.description import values_of
from segcore.params import Params
from tasks.costs import SIDE_BY_SIDE, read_cost
from tasks.evaluation_scores import evaluation_scores
from tasks.formatting import amount, interval, percent, score
from tasks.project import (
    PREPARED,
    comparison_file,
    data_fingerprint,
    evaluation_folder,
    model_folder,
    run_name,
)
from tasks.reporting.slices import escaped, slices_markdown
from tasks.versioning.stages import data_version

# file of the card, beside the files of a version
CARD = "MODEL_CARD.md"
_NOT_STATED = "not stated"
_NOT_MEASURED = "not measured"
Rows = Iterable[tuple[str, str]]


def model_card(folder: Path, p: Params, version: int, root: Path = Path()) -> str:
    """The card of a bundle that is registered as a version.

    Args:
        folder: the bundle.
        p: parameters of the project that it was trained in.
        version: number of the registered version of the model `data.name`.
        root: the project's folder.

    Raises:
        ModelError: there is no bundle, or its model.json is damaged.
        DataError: the comparison cannot be read.
    """
    description = load_description(folder)
    run = run_name(str(description["architecture"]), int(description.get("seed") or 0))
    here = cached_json(model_folder(run, root) / "model.json") or {}
    is_evaluated = here.get("weights_sha256") == description["weights_sha256"]
    summary = (cached_json(evaluation_folder(run, root) / "summary.json") if is_evaluated else None) or {}
    cost = (read_cost(root, run) if is_evaluated else None) or {}
    compared = is_evaluated and (root / comparison_file()).is_file()
    comparison = read_comparison(root / comparison_file()) if compared else None
    own = evaluation_scores(evaluation_folder(run, root), p.data.foreground) if compared else {}
    title = str(description.get("title", description["architecture"]))
    parts = [
        f"# {_line(title)} for {_line(p.data.name)}, version {version}",
        _purpose(description, p),
        "## Network and input",
        _table(("fact", "value"), _network(description, summary)),
        "## Classes",
        _classes(description),
        "## Data and training",
        _table(("fact", "value"), _training(description, p, root)),
        "## Scores",
        *_scores(comparison, description, own),
        "## Operating point and calibration",
        *_operating(description, summary),
        "## Limits",
        _limits(comparison, description),
        "## Costs",
        _table(("fact", "value"), _costs(summary, cost)),
        "## Licences",
        _table(("of", "licence"), _licences(description, p, root)),
        "## Use",
        _use(p, version),
    ]
    return "\n\n".join(parts) + "\n"


def _line(text: object) -> str:
    return escaped(" ".join(str(text).split()))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, [":---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_line, line)) + " |" for line in lines)


def _purpose(description: Mapping[str, Any], p: Params) -> str:
    classes = ", ".join(_line(name) for name in description.get("classes", p.data.classes))
    kind = description.get("kind", "semantic")
    what = "each pixel" if kind == "semantic" else "each object, with its mask,"
    images = f"images like those of the data set {_line(p.data.name)}"
    return (
        f"{kind.capitalize()} segmentation of {images}: {what} gets one of the classes {classes}. "
        "Other uses were not evaluated."
    )


def _network(description: Mapping[str, Any], summary: Mapping[str, Any]) -> Rows:
    """What the network is, and which images it takes."""
    settings, read = description.get("settings", {}), description.get("input", {})
    encoder, weights = settings.get("encoder"), settings.get("weights")
    bands = read.get("bands")
    yield "Architecture", f"{description.get('title', '')} ({description['architecture']})"
    yield "Kind", str(description.get("kind", "semantic"))
    if "members" in settings:
        members = ", ".join(member["run"] for member in settings["members"])
        yield "Networks", f"the mean of the probabilities of {members}, each after its own temperature"
        encoder, weights = (", ".join(values_of(settings, key)) for key in ("encoder", "weights"))
    yield "Encoder", f"{encoder}, initial weights: {weights}" if encoder else _NOT_STATED
    field = summary.get("receptive_field")
    yield "Receptive field", f"{field} px" if field else _NOT_STATED
    every = f"all; input channels: {description.get('in_channels', _NOT_STATED)}"
    taken = ", ".join(map(str, bands)) if bands else every
    yield "Bands", taken + (", grey repeated to red, green and blue" if read.get("grey_to_rgb") else "")
    if read.get("neighbours"):
        yield "Neighbouring planes", f"{read['neighbours']} on each side"
    yield "Values", f"raw pixels, {read['dtype']}" if "dtype" in read else _NOT_STATED
    declared = "as the file declares" if "nodata" in read else _NOT_STATED
    yield "No data", declared if read.get("nodata") is None else str(read["nodata"])
    yield "Pixel size", _pixel_size(description)
    used = "in validation, and in predictions where no other is set"
    yield "Tile", f"{description['tile']} px {used}" if "tile" in description else _NOT_STATED


def _pixel_size(description: Mapping[str, Any]) -> str:
    """Ground resolution or voxel spacing of the training images: median, and range where they differ."""
    parts = []
    for name, (low, median, high) in description.get("training_images", {}).get("pixel_sizes", {}).items():
        unit, _, axis = name.partition(": ")
        what = f"voxel spacing of {axis}" if axis else "ground resolution"
        spread = "" if low == high else f" ({low:g} to {high:g})"
        parts.append(f"{what} {median:g} {unit}{spread}")
    return "; ".join(parts) or _NOT_STATED


def _classes(description: Mapping[str, Any]) -> str:
    names = description.get("classes", [])
    colors = description.get("colors") or [None] * len(names)
    foreground = description.get("foreground", [])
    rows = [
        (str(index), name, hex_color(color) if color else _NOT_STATED, "yes" if index in foreground else "no")
        for index, (name, color) in enumerate(zip(names, colors, strict=True))
    ]
    return _table(("index", "class", "colour", "foreground"), rows)


def _training(description: Mapping[str, Any], p: Params, root: Path) -> Rows:
    training, versions = description.get("training", {}), description.get("versions", {})
    recorded = description.get("training_images", {})
    images, regions = recorded.get("images"), recorded.get("regions")
    of_regions = f", in {regions} regions" if regions is not None else ""
    yield "Data set", p.data.name
    yield "Data version", _data_version(versions, root)
    yield "sha256 of the prepared data", str(versions.get("data", _NOT_STATED))
    yield "Training images", f"{images}{of_regions}" if images is not None else _NOT_STATED
    steps, best = training.get("steps"), training.get("best_step")
    chosen = f"{steps}; weights of step {best}, the best on the validation split"
    if "members" in description.get("settings", {}):
        chosen = f"{steps} of all networks together"
    yield "Steps", chosen if steps else _NOT_STATED
    yield "Seed", str(description.get("seed", _NOT_STATED))
    yield "Started from", str(description.get("initial_weights", "new weights, with the encoder as above"))
    yield "Determinism", str(training.get("determinism", _NOT_STATED))
    yield "torch", str(versions.get("torch", _NOT_STATED))
    yield "sha256 of the weights", str(description["weights_sha256"])


def _data_version(versions: Mapping[str, Any], root: Path) -> str:
    """The version that the report and MLflow name; it is known while the training's data are the prepared ones."""
    prepared = root / PREPARED
    is_present = (prepared / "prepared.json").is_file() and versions.get("data") == data_fingerprint(prepared)
    md5 = data_version(root) if is_present else None
    return f"md5 {md5} (data/prepared in dvc.lock)" if md5 else _NOT_STATED


def _scores(
    comparison: Comparison | None, description: Mapping[str, Any], own: Mapping[str, float]
) -> Iterable[str]:
    """Scores of the version, then of its architecture with intervals, on the test split; and by slice."""
    row = _row(comparison, description)
    if comparison is None or row is None:
        return ["Not evaluated in this project with these weights."]
    mean = f"mean of {row.seeds} seeds" if row.seeds > 1 else ""
    level = " ".join(
        [f"{100 * comparison.confidence:g} % interval", f"of the {mean}" if mean else ""]
    ).strip()
    seeds = f"The {mean} includes this version" if mean else "One seed"
    text = (
        f"On {comparison.test_images} test images in {comparison.clusters} {comparison.cluster_kind}s, which were not "
        f"trained on. {seeds}. Rank {row.rank} of {len(comparison.models)} compared networks. "
        f"{_line(empty_policy(comparison))}"
    )
    rows = []
    for key in _keys(row, comparison):
        one, unit = row.scores[key], unit_of(key)
        means = [f"{score(one.estimate, unit)} {unit}".strip()] if mean else []
        # without the tables of an evaluation, the mean of one seed is the score of this version
        value = own.get(key, one.estimate if not mean else None)
        printed = f"{score(value, unit)} {unit}".strip() if value is not None and isfinite(value) else "–"
        rows.append((score_title(key), printed, *means, interval(one.low, one.high, unit)))
    head = ("score", "this version", *([mean] if mean else []), level)
    slices = slices_markdown(replace(comparison, leaderboard=[row]))
    heading = METRICS[comparison.metric].heading
    note = f"{heading} by slice of the test images{f', {mean}' if mean else ''}:" if slices else ""
    tables = [text, _table(head, rows), note, slices]
    return [part for part in tables if part]


def _row(comparison: Comparison | None, description: Mapping[str, Any]) -> LeaderboardRow | None:
    rows = comparison.models if comparison else []
    return next((row for row in rows if row.architecture == description["architecture"]), None)


def _keys(row: LeaderboardRow, comparison: Comparison) -> list[str]:
    """The score that determines the ranks, that of each class, pooled foreground means of the other metrics."""
    of_classes = [f"{comparison.metric}/dataset/{name}" for name in comparison.classes]
    means = [f"{name}/dataset/foreground_mean" for name in METRICS]
    keys = dict.fromkeys([comparison.headline, *of_classes, *means, EMPTY_RATE])
    return [key for key in keys if key in row.scores]


def _operating(description: Mapping[str, Any], summary: Mapping[str, Any]) -> Iterable[str]:
    objects, calibration = summary.get("objects"), description.get("calibration")
    if objects is None:
        chosen = description.get("objects")
        yield (
            "Objects are found as on the validation split, with the settings in model.json; they were not evaluated."
            if chosen
            else "Each pixel gets its most probable class; there is no threshold."
        )
    else:
        measured = [
            f"{name} {percent(objects[name])} %"
            for name in ("precision", "recall")
            if objects.get(name) is not None
        ]
        on = f" On the validation split: {', '.join(measured)}." if measured else ""
        yield f"Objects, found by the method {objects['method']}, count from score {objects['score']:.3g}.{on}"
    if calibration:
        limit = limit_text(calibration["temperature"])
        yield (
            f"Confidence is calibrated with the temperature {calibration['temperature']:.3g}"
            f"{f' ({limit})' if limit else ''}, fitted on the validation "
            f"split (expected calibration error there {percent(calibration.get('ece_before'))} % before, "
            f"{percent(calibration.get('ece_after'))} % after).{_worse(calibration)}"
        )
    else:
        yield "Confidence: no calibration temperature."


def _worse(calibration: Mapping[str, Any]) -> str:
    before, after = calibration.get("ece_before"), calibration.get("ece_after")
    is_worse = before is not None and after is not None and after > before
    return " The error became larger: do not read the confidence as a probability." * is_worse


def _limits(comparison: Comparison | None, description: Mapping[str, Any]) -> str:
    recorded = description.get("training_images", {})
    checked = [
        name for key, name in (("values", "values"), ("pixel_sizes", "pixel size")) if recorded.get(key)
    ]
    notes = [
        "Scores hold for images like those of the test split; for other sensors, places or devices they are unknown.",
        f"Scenes whose {' or '.join(checked)} differ from those of the training images are refused by default."
        if checked
        else "Values and pixel size of the training images are not recorded, so that unlike scenes are not refused.",
    ]
    row = _row(comparison, description)
    notes += (
        [comparison.verdict, *comparison.notes, *filter(None, [agreement_text(comparison)])]
        if comparison and row
        else ["There is no comparison with other networks."]
    )
    return "\n".join(f"- {_line(note)}" for note in notes)


def _costs(summary: Mapping[str, Any], cost: Mapping[str, Any]) -> Rows:
    parameters, macs = summary.get("parameters"), summary.get("macs")
    yield "Parameters", amount(parameters) if parameters else _NOT_MEASURED
    yield "Multiply-accumulates at 256 x 256 px", amount(macs) if macs else _NOT_MEASURED
    timed = cost.get(SIDE_BY_SIDE, cost)
    latency = timing(timed)
    tile = f"tile of {timed.get('latency_tile')} px as in evaluation, batch {timed.get('latency_batch')}"
    where = f"{tile}, {timed.get('device')} {timed.get('machine')}, {timed.get('precision')}"
    printed = f"{milliseconds(latency.estimate)} ms per megapixel ({where})" if latency else _NOT_MEASURED
    yield "Latency", printed
    memory = cost.get("peak_memory_mb")
    yield "Peak memory", f"{memory:.0f} MiB ({cost.get('device')})" if memory else _NOT_MEASURED
    seconds = cost.get("train_seconds")
    yield "Training", f"{seconds:.0f} s ({cost.get('train_machine')})" if seconds else _NOT_MEASURED


def _licences(description: Mapping[str, Any], p: Params, root: Path) -> Rows:
    sample = root / p.data.source
    stated = sample.suffix in (".yaml", ".yml") and sample.is_file()
    yield "data", load_manifest(sample).licence if stated else _NOT_STATED
    yield "initial weights of the encoder", _weights_licence(description)
    yield "weights of this model", _NOT_STATED


def _weights_licence(description: Mapping[str, Any]) -> str:
    settings = description.get("settings", {})
    members = [member["settings"] for member in settings.get("members", [])]
    return "; ".join(dict.fromkeys(map(_licence_of_weights, members or [settings])))


def _licence_of_weights(settings: Mapping[str, Any]) -> str:
    weights, encoder = str(settings.get("weights", "")), str(settings.get("encoder", ""))
    if weights == "none":
        return "none were used"
    if weights == "imagenet" and encoder.startswith("efficientnet_lite"):
        return "Apache-2.0 (EfficientNet-Lite, trained on ImageNet)"
    if weights == "imagenet" and encoder.startswith("timm:"):
        return f"{_NOT_STATED} (weights of timm, {encoder.removeprefix('timm:')})"
    # torchvision states no licence for its weights
    of_torchvision = weights == "imagenet" or weights.startswith("torchvision:")
    return f"{_NOT_STATED} (weights of torchvision, trained on ImageNet)" if of_torchvision else _NOT_STATED


def _use(p: Params, version: int) -> str:
    address = f"models:/{p.data.name}/{version}"
    return f"""```sh
make predict SCENES=/path/to/folder MODEL={address}
```

```python
import segcore

prediction = segcore.load("FOLDER_OF_THIS_BUNDLE").predict(image)  # image: (H, W, C), raw pixels
```

```python
import mlflow

classes = mlflow.pyfunc.load_model("{address}").predict(images)  # images: (N, H, W, C), raw pixels
```"""
