"""Pictures of images, truth and predictions with coloured errors, and maps of the splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image, ImageColor, ImageOps

from segcore.constants import IGNORE
from segcore.plots.palette import FOLDS, SPLITS
from segcore.plots.pictures import LEFT_OUT, to_rgb
from segcore.plots.style import RC, new_figure

# White, orange and blue over dimmed grey differ for every common kind of colour vision, and in grey print.
HIT, FALSE_ALARM, MISS = (255, 255, 255), (255, 145, 20), (45, 140, 255)
# With several foreground classes; class colours should differ from these.
WRONG_CLASS, OVERLOOKED = (255, 70, 170), (70, 215, 255)
SCENE_SIDE = 720
# of regions in no known part
_GREY = "#888888"


@dataclass(frozen=True)
class Case:
    """One test image with its truth and predictions.

    Attributes:
        item: id of the item.
        kind: "best", "typical" or "worst".
        image: (H, W, C) raw values.
        truth: (H, W) class indices with IGNORE.
        valid: (H, W) bool.
        predictions: architecture or annotator -> (H, W) class indices.
        iou: architecture or annotator -> foreground IoU of the image in [0, 1].
    """

    item: str
    kind: str
    image: np.ndarray
    truth: np.ndarray
    valid: np.ndarray
    predictions: Mapping[str, np.ndarray]
    iou: Mapping[str, float]


def image_iou(counts: pd.DataFrame, foreground: Sequence[int]) -> pd.Series:
    """Foreground IoU of each image in [0, 1]: mean over the foreground classes; empty in both counts as 1.

    Args:
        counts: the evaluation table. Images without foreground in the truth are left out.
        foreground: class indices that count as foreground.
    """
    rows = counts[counts["class_index"].isin(foreground)]
    union = rows["tp"] + rows["fp"] + rows["fn"]
    iou = (rows["tp"] / union.where(union > 0)).fillna(1.0)
    with_foreground = (rows["tp"] + rows["fn"]).groupby(rows["item"]).sum() > 0
    return iou.groupby(rows["item"]).mean()[with_foreground]


def pixel_iou(truth: np.ndarray, other: np.ndarray, valid: np.ndarray, foreground: Sequence[int]) -> float:
    """`image_iou` of one image from its labels (H, W): ignored and invalid pixels do not count."""
    scored = valid & (truth != IGNORE)
    ious = []
    for index in foreground:
        a, b = (truth == index) & scored, (other == index) & scored
        ious.append((a & b).sum() / (a | b).sum() if (a | b).any() else 1.0)
    return float(np.mean(ious))


def pick_cases(scores: pd.Series, each: int = 2) -> list[tuple[str, str]]:
    """(kind, item) of the best, the typical (around the median) and the worst images, none twice."""
    order = list(scores.sort_values(ascending=False, kind="stable").index)
    each = max(1, min(each, len(order) // 3))
    middle = max(each, (len(order) - each) // 2)
    picked = {"best": order[:each], "typical": order[middle : middle + each], "worst": order[-each:]}
    seen: set[str] = set()
    cases = []
    for kind, items in picked.items():
        for item in items:
            if item not in seen:
                seen.add(item)
                cases.append((kind, item))
    return cases


def _dimmed(picture: np.ndarray) -> np.ndarray:
    grey = picture.mean(axis=-1, keepdims=True) * 0.5 + 16
    return np.repeat(grey, 3, axis=-1)


def class_map(
    picture: np.ndarray, labels: np.ndarray, valid: np.ndarray, colors: Mapping[int, Sequence[int]]
) -> np.ndarray:
    """The classes of `colors` (index -> RGB) in `labels` (H, W) over the dimmed picture (H, W, 3) uint8."""
    shown = _dimmed(picture)
    for index, colour in colors.items():
        shown[labels == index] = np.asarray(colour)
    shown[~valid | (labels == IGNORE)] = LEFT_OUT
    return shown.astype(np.uint8)


def error_map(
    picture: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    valid: np.ndarray,
    foreground: Sequence[int],
) -> np.ndarray:
    """False alarms orange, misses blue and correct foreground white over the dimmed picture (H, W, 3) uint8.

    With several foreground classes correct pixels stay dimmed, a wrong class is pink, missed foreground cyan.
    """
    shown = _dimmed(picture)
    wrong, claimed = prediction != truth, np.isin(prediction, foreground)
    many = len(foreground) > 1
    if not many:
        shown[~wrong & claimed] = HIT
    shown[wrong & claimed] = WRONG_CLASS if many else FALSE_ALARM
    shown[wrong & ~claimed] = OVERLOOKED if many else MISS
    shown[~valid | (truth == IGNORE)] = LEFT_OUT
    return shown.astype(np.uint8)


def case_pictures(
    case: Case, colors: Sequence[Sequence[int]], foreground: Sequence[int]
) -> dict[str, list[np.ndarray]]:
    """`image`, `truth` and one entry per architecture: its error map, after its class map if classes are several.

    Args:
        case: the image with its predictions.
        colors: RGB of every class.
        foreground: class indices that count as foreground.
    """
    picture = to_rgb(case.image, case.valid)
    many = len(foreground) > 1
    shown = {index: colors[index] if many else HIT for index in foreground}
    pictures = {"image": [picture], "truth": [class_map(picture, case.truth, case.valid, shown)]}
    for name, prediction in case.predictions.items():
        errors = error_map(picture, case.truth, prediction, case.valid, foreground)
        classes = [class_map(picture, prediction, case.valid, shown)] if many else []
        pictures[name] = [*classes, errors]
    return pictures


def gallery_image(
    case: Case, colors: Sequence[Sequence[int]], foreground: Sequence[int], titles: Mapping[str, str]
) -> Figure:
    """One case as a row of panels: image, truth and each architecture with its IoU."""
    pictures = case_pictures(case, colors, foreground)
    with mpl.rc_context(RC):
        figure, panels = new_figure(2.4 * len(pictures), 2.75, len(pictures))
        for axes, (name, shown) in zip(panels, pictures.items(), strict=True):
            axes.imshow(np.concatenate(shown, axis=0), interpolation="antialiased")
            score = f" · IoU {case.iou[name]:.1%}" if name in case.iou else ""
            axes.set_title(titles.get(name, name.capitalize()) + score)
            axes.set_axis_off()
    return figure


def detail_window(case: Case, share: float = 0.42) -> tuple[slice, slice]:
    """Rows and columns of the square with most errors, summed over the predictions."""
    scored = case.valid & (case.truth != IGNORE)
    errors = [((p != case.truth) & scored).astype(np.int64) for p in case.predictions.values()]
    return densest_window(np.sum(errors, axis=0), share)


def densest_window(errors: np.ndarray, share: float = 0.42) -> tuple[slice, slice]:
    """Rows and columns of the square with the largest sum of `errors` (H, W).

    Args:
        errors: integers of at least 0.
        share: side of the square as a share of the shorter side.
    """
    height, width = errors.shape
    side = max(1, round(min(height, width) * share))
    sums = np.pad(np.cumsum(np.cumsum(errors, axis=0), axis=1), ((1, 0), (1, 0)))
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(np.argmax(inside), inside.shape)
    return slice(int(top), int(top) + side), slice(int(left), int(left) + side)


def framed(picture: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
    """The picture (H, W, 3) uint8 with a thin light frame around the window."""
    shown = picture.copy()
    line = max(2, min(picture.shape[:2]) // 160)
    shown[window] = (255, 255, 255)
    inner = tuple(slice(part.start + line, part.stop - line) for part in window)
    shown[inner] = picture[inner]
    return shown


def _thumbnail(patch: Any, factor: int) -> np.ndarray:
    picture = Image.fromarray(to_rgb(patch.image, patch.valid))
    size = (max(1, round(picture.width / factor)), max(1, round(picture.height / factor)))
    return np.asarray(picture.resize(size, Image.Resampling.BOX))


def parts_of(regions: pd.DataFrame) -> tuple[pd.Series, dict[str, str]]:
    """The part of each region, its split or with folds the fold that tests it, and a colour per part.

    Args:
        regions: the region table.
    """
    if "fold" not in regions:
        return regions["split"], SPLITS
    folds = range(int(regions["fold"].max()) + 1)
    return "fold " + regions["fold"].astype(str), {f"fold {k}": FOLDS[k % len(FOLDS)] for k in folds}


def _tinted(picture: np.ndarray, colour_name: str, tint: float, width: int = 3) -> np.ndarray:
    colour = np.array(ImageColor.getrgb(colour_name), np.uint8)
    shown = (picture * (1 - tint) + colour * tint).astype(np.uint8)
    shown[:width], shown[-width:] = colour, colour
    shown[:, :width], shown[:, -width:] = colour, colour
    return shown


def split_map(prepared: Any) -> np.ndarray | None:
    """Map of the splits in the item with most regions, (H, W, 3) uint8; None if no item has several regions.

    The gaps between blocks are the buffer, which belongs to no split.
    """
    part, colours = parts_of(prepared.regions)
    regions = prepared.regions.assign(part=part)
    if len(regions) == 0 or regions.groupby("item").size().max() < 2:
        return None
    blocks = regions[regions["item"] == regions.groupby("item").size().idxmax()]
    height, width = (blocks["row"] + blocks["height"]).max(), (blocks["col"] + blocks["width"]).max()
    factor = max(1, int(np.ceil(max(height, width) / SCENE_SIDE)))
    scene = np.full((int(height) // factor + 1, int(width) // factor + 1, 3), LEFT_OUT, np.uint8)
    for block in blocks.itertuples():
        tile = _tinted(_thumbnail(prepared.read(block.id), factor), colours.get(block.part, _GREY), 0.28)
        top, left = int(block.row) // factor, int(block.col) // factor
        space = scene[top : top + tile.shape[0], left : left + tile.shape[1]]
        space[:] = tile[: space.shape[0], : space.shape[1]]
    return scene


def contact_sheet(prepared: Any, most: int = 20, columns: int = 5, side: int = 180) -> np.ndarray:
    """Small pictures of up to `most` regions, framed in the colour of their split, (H, W, 4) uint8."""
    part, colours = parts_of(prepared.regions)
    order = {name: i for i, name in enumerate(colours)}
    regions = prepared.regions.assign(part=part, order=part.map(order).fillna(len(order)))
    regions = regions.sort_values(["order", "id"], kind="stable")
    spread = np.linspace(0, len(regions) - 1, min(most, len(regions))).round().astype(int)
    columns = max(1, min(columns, len(spread)))
    sheet = np.zeros((-(-len(spread) // columns) * side, columns * side, 4), np.uint8)
    inner = side - 10
    for i, region in enumerate(regions.iloc[spread].itertuples()):
        patch = prepared.read(region.id)
        picture = Image.fromarray(to_rgb(patch.image, patch.valid))
        small = np.asarray(ImageOps.fit(picture, (inner, inner), Image.Resampling.BOX))
        top, left = i // columns * side, i % columns * side
        sheet[top : top + inner, left : left + inner, :3] = _tinted(
            small, colours.get(region.part, _GREY), 0, width=6
        )
        sheet[top : top + inner, left : left + inner, 3] = 255
    return sheet
