"""Pictures of objects: the image with its true objects, and with what became of them in each prediction."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from segcore.constants import IGNORE
from segcore.data.object_numbers import by_first_pixel
from segcore.plots.gallery import FALSE_ALARM, HIT, MISS, densest_window, pick_cases
from segcore.plots.object_status import STATUSES, EvaluatedObjects
from segcore.plots.outlines import Layer, Window, draw_outlines
from segcore.plots.overlays import brightened
from segcore.plots.pictures import to_rgb
from segcore.plots.style import RC, new_figure

# Of the pairs of these five, the most similar differ by 17 (CIEDE2000) for the usual and the three common kinds of
# deficient colour vision.
STATUS_COLOURS = {
    "found": HIT,
    "missed": MISS,
    "false": FALSE_ALARM,
    "merged": (214, 39, 140),
    "split": (60, 220, 150),
}
WORDS = {
    "found": "found",
    "missed": "missed",
    "false": "false",
    "merged": "merged with another",
    "split": "split into parts",
}
# least width of a line as shown, in pixels; those of objects that were not found are wider by a factor
_LINE, _WIDER = 1.6, 1.5
# brightness of the image under outlines
_SHADE = 0.62
# longer side of a picture in a figure, and the width at which it is shown, in pixels
_FIGURE_SIDE, _FIGURE_WIDTH = 480, 250


@dataclass(frozen=True)
class Outcome:
    """What became of the objects of one image in one prediction.

    Attributes:
        numbers: (H, W) numbers of the predicted objects, 0 for none.
        truths, predictions: number of a true or predicted object -> status (`object_status`).
        f1: at an IoU above 0.5, of the image, in [0, 1].
    """

    numbers: np.ndarray
    truths: Mapping[int, str]
    predictions: Mapping[int, str]
    f1: float

    def counts(self, required: Mapping[int, bool]) -> dict[str, int]:
        """The numbers that F1 is made of, which is twice those found divided by twice those found and all others.

        True objects that must be found per status; "false" are all predicted objects without a true one, also those
        that join several or are a part.
        """
        true = [status for number, status in self.truths.items() if required[number]]
        wrong = sum(status != "found" for status in self.predictions.values())
        return {status: wrong if status == "false" else true.count(status) for status in STATUSES}

    def layers(self, truth: np.ndarray, line: float) -> list[Layer]:
        """Outlines to draw: predicted objects, and over them the true ones that were not found; found ones thinner."""
        faults = {n: status for n, status in self.predictions.items() if status != "found"}
        found = {n: status for n, status in self.predictions.items() if status == "found"}
        not_found = {n: status for n, status in self.truths.items() if status != "found"}
        return [
            Layer(self.numbers, _coloured(found), line),
            Layer(self.numbers, _coloured(faults), line * _WIDER),
            Layer(truth, _coloured(not_found), line * _WIDER),
        ]

    def faults(self, truth: np.ndarray) -> np.ndarray:
        """Pixels (H, W) bool of objects with another status than `found`."""
        pixels = np.zeros(truth.shape, bool)
        for numbers, statuses in ((self.numbers, self.predictions), (truth, self.truths)):
            pixels |= np.isin(numbers, [n for n, status in statuses.items() if status not in ("", "found")])
        return pixels


@dataclass(frozen=True)
class ObjectCase:
    """One test image with its objects and those of each architecture.

    Attributes:
        item: id of the region.
        kind: "best", "typical", "worst" or "most merges", or one of the first three "and most merges".
        image: (H, W, C) raw values; valid: (H, W) bool.
        truth: (H, W) numbers of the true objects, 0 for none.
        required: number of a true object -> whether it must be found.
        outcomes: by architecture.
    """

    item: str
    kind: str
    image: np.ndarray
    valid: np.ndarray
    truth: np.ndarray
    required: Mapping[int, bool]
    outcomes: Mapping[str, Outcome]


def _coloured(statuses: Mapping[int, str]) -> dict[int, tuple[int, int, int]]:
    return {number: STATUS_COLOURS[status] for number, status in statuses.items() if status}


def pick_object_cases(f1: pd.Series, merged: pd.Series, each: int) -> list[tuple[str, str]]:
    """(kind, item) of the best, typical and worst images by F1, and of the one with most merges, none twice.

    Args:
        f1: of each image.
        merged: number of merged true objects of each image.
        each: number of best, typical and worst images each.
    """
    cases = {item: kind for kind, item in pick_cases(f1, each)}
    merged = merged[merged.index.isin(f1.index)]
    if len(merged) and merged.max() > 0:
        most = str(merged.idxmax())
        cases[most] = f"{cases[most]} and most merges" if most in cases else "most merges"
    return [(kind, item) for item, kind in cases.items()]


def object_case(prepared: Any, region: str, kind: str, runs: Mapping[str, EvaluatedObjects]) -> ObjectCase:
    """A test image with its objects and those of each architecture.

    Args:
        prepared: segcore.data.prepared.PreparedData, or an object with the same interface.
        region: its id; all runs have kept it, and it has a true object.
        kind: of the case.
        runs: by architecture.
    """
    patch, objects = prepared.read(region), prepared.objects
    ids = objects.loc[objects["item"] == prepared.region(region)["item"], "id"]
    scored = np.where(patch.label != IGNORE, prepared.read_instances(region), 0)
    truth, _ = by_first_pixel(scored, ids.to_numpy())
    truths = next(iter(runs.values())).status[0]
    truths = truths[truths["item"] == region]
    required = dict(zip(truths["number"], truths["counted"], strict=True))
    outcomes = {name: _outcome(run, region) for name, run in runs.items()}
    return ObjectCase(region, kind, patch.image, patch.valid, truth, required, outcomes)


def _outcome(run: EvaluatedObjects, region: str) -> Outcome:
    """What became of the objects of a kept region with a true object."""
    truths, predictions = (rows[rows["item"] == region] for rows in run.status)
    with Image.open(run.kept_file(region)) as picture:
        numbers = np.array(picture)
    return Outcome(
        numbers,
        dict(zip(truths["number"], truths["status"], strict=True)),
        dict(zip(predictions["number"], predictions["status"], strict=True)),
        float(run.f1[region]),
    )


def detail_of(case: ObjectCase) -> Window:
    """Rows and columns of the square with most pixels of faulty objects, or else of true ones."""
    faults = sum(outcome.faults(case.truth).astype(np.int64) for outcome in case.outcomes.values())
    return densest_window(faults * 1000 + (case.truth > 0))


def case_columns(
    case: ObjectCase,
    side: int,
    width: float,
    window: Window | None = None,
    frame: Window | None = None,
) -> dict[str, np.ndarray]:
    """`image`, `truth` and one picture per architecture, (h, w, 3) uint8.

    Args:
        case: the image with its objects.
        side: longer side of the pictures in pixels.
        width: in pixels at which the pictures will be shown.
        window: rows and columns to show; None: all.
        frame: rows and columns to mark in `image`.
    """
    picture, line = brightened(to_rgb(case.image, case.valid), case.valid), _LINE / width
    layers = {"image": [], "truth": [Layer(case.truth, dict.fromkeys(case.required, HIT), line)]}
    layers |= {name: outcome.layers(case.truth, line) for name, outcome in case.outcomes.items()}
    shaded = (picture * _SHADE).astype(np.uint8)
    return {
        name: draw_outlines(shaded if drawn else picture, drawn, side, window, None if drawn else frame)
        for name, drawn in layers.items()
    }


def object_gallery_image(case: ObjectCase, titles: Mapping[str, str]) -> Figure:
    """One case as a row of panels with a legend: image, truth and each architecture with its F1."""
    columns = case_columns(case, _FIGURE_SIDE, _FIGURE_WIDTH)
    with mpl.rc_context(RC):
        figure, panels = new_figure(2.6 * len(columns), 3.2, len(columns))
        for axes, (name, shown) in zip(panels, columns.items(), strict=True):
            axes.imshow(shown, interpolation="antialiased")
            score = f" · F1 {case.outcomes[name].f1:.1%}" if name in case.outcomes else ""
            axes.set_title(titles.get(name, name.capitalize()) + score)
            axes.set_axis_off()
        for status, colour in STATUS_COLOURS.items():
            face = tuple(value / 255 for value in colour)
            panels[0].plot(
                [], [], "s", color=face, markeredgecolor="#8886", markersize=8, label=WORDS[status]
            )
        figure.legend(loc="outside lower left", ncols=len(STATUS_COLOURS))
    return figure
