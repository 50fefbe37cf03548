"""Objects drawn as thin outlines over a picture."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation, distance_transform_edt, find_objects, gaussian_filter

from segcore.plots.gallery import framed

# the picture is drawn at this multiple of its size and reduced, which smooths the lines
_OVER = 2
# width in pixels of the dark rim around a line, which separates it from a bright image
_RIM = 1
_RIM_SHADE = 0.45
# pixels of a mask around its box, and standard deviation in pixels of its blur
_ROOM, _BLUR = 3, 0.5
_ENLARGED = 8


class Layer(NamedTuple):
    """Objects to outline: numbers (H, W), 0 for none; RGB by number; width of lines as a share of the width."""

    numbers: np.ndarray
    colours: Mapping[int, Sequence[int]]
    line: float


# rows and columns
Window = tuple[slice, slice]


def draw_outlines(
    picture: np.ndarray,
    layers: Iterable[Layer],
    side: int,
    window: Window | None = None,
    frame: Window | None = None,
) -> np.ndarray:
    """The picture resized to about `side` pixels with objects outlined inside their edges, (h, w, 3) uint8.

    Args:
        picture: (H, W, 3) uint8.
        layers: objects to draw; later ones are drawn over earlier ones.
        side: longer side of the result in pixels; small pictures are enlarged _ENLARGED times at most.
        window: rows and columns to show; None: all.
        frame: rows and columns to mark with a light frame.
    """
    window = window or (slice(0, picture.shape[0]), slice(0, picture.shape[1]))
    scale = _OVER * min(side / max(part.stop - part.start for part in window), _ENLARGED)
    tall, wide = (max(1, round((part.stop - part.start) * scale / _OVER)) * _OVER for part in window)
    shown = np.array(Image.fromarray(picture[window]).resize((wide, tall), Image.Resampling.BICUBIC))
    inside, lines = np.zeros((tall, wide), bool), np.zeros((tall, wide, 4), np.uint8)
    for layer in layers:
        places = find_objects(layer.numbers.astype(np.int32, copy=False))
        for number, colour in layer.colours.items():
            place = places[number - 1] if number <= len(places) else None
            if place is None:
                continue
            where, mask = _enlarged(layer.numbers[place] == number, place, window, scale, inside.shape)
            inside[where] |= mask
            # whole pixels, rounded up
            line = mask & (distance_transform_edt(mask) < layer.line * wide + 1)
            lines[where][line] = (*colour, 255)
    rim = binary_dilation(inside, iterations=_OVER * _RIM) & ~inside
    shown[rim] = (shown[rim] * _RIM_SHADE).astype(np.uint8)
    drawn = lines[..., 3] > 0
    shown[drawn] = lines[drawn, :3]
    if frame is not None:
        shown = framed(shown, _scaled(frame, scale))
    return np.asarray(Image.fromarray(shown).reduce(_OVER))


def _scaled(window: Window, scale: float) -> Window:
    rows, cols = (slice(round(part.start * scale), round(part.stop * scale)) for part in window)
    return rows, cols


def _enlarged(
    mask: np.ndarray, place: tuple[slice, ...], window: Window, scale: float, shape: tuple[int, ...]
) -> tuple[Window, np.ndarray]:
    """Rows and columns of an object in the resized window, and its smoothed mask there; empty if it is outside.

    Args:
        mask: (h, w) bool, the object in its box.
        place: rows and columns of the box.
        window: rows and columns that are shown.
        scale: of the resized window.
        shape: of the resized window.
    """
    starts = [part.start - _ROOM - shown.start for part, shown in zip(place, window, strict=True)]
    padded = np.pad(mask, _ROOM).astype(np.float32)
    spans = [
        slice(min(max(0, int(start * scale)), length), max(0, min(length, int((start + size) * scale))))
        for start, size, length in zip(starts, padded.shape, shape, strict=True)
    ]
    where = (spans[0], spans[1])
    tall, wide = (max(0, span.stop - span.start) for span in spans)
    if not tall or not wide:
        return where, np.zeros((tall, wide), bool)
    top, left = (max(0.0, span.start / scale - start) for span, start in zip(spans, starts, strict=True))
    box = (left, top, min(left + wide / scale, padded.shape[1]), min(top + tall / scale, padded.shape[0]))
    # blurred by half a pixel, which rounds the steps of the edge
    blurred = Image.fromarray(gaussian_filter(padded, _BLUR))
    soft = np.asarray(blurred.resize((wide, tall), Image.Resampling.BICUBIC, box))
    # of an object of few pixels, its most covered part
    return where, soft >= max(1e-3, min(0.5, 0.75 * float(soft.max())))
