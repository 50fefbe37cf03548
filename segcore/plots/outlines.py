"""Objects drawn as thin outlines over a picture."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt, find_objects, gaussian_filter

from segcore.plots.gallery import framed

# the picture is drawn at this multiple of its size and reduced, which smooths the lines
_OVER = 2
# width in pixels of the dark rim around a line, which separates it from a bright image
_RIM = 1.0
_RIM_SHADE = 0.45


class Layer(NamedTuple):
    """Objects to outline: numbers (H, W), 0 for none; RGB by number; width of the lines in pixels of the result."""

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
    """The picture resized to `side` pixels with objects outlined inside their edges, (h, w, 3) uint8.

    Args:
        picture: (H, W, 3) uint8.
        layers: objects to draw; later ones are drawn over earlier ones.
        side: longer side of the result in pixels.
        window: rows and columns to show; None: all.
        frame: rows and columns to mark with a light frame.
    """
    height, width = picture.shape[:2]
    shown_part = window or (slice(0, height), slice(0, width))
    scale = _OVER * side / max(part.stop - part.start for part in shown_part)
    tall, wide = (max(_OVER, round(length * scale / _OVER) * _OVER) for length in (height, width))
    shown = np.array(Image.fromarray(picture).resize((wide, tall), Image.Resampling.BICUBIC))
    rim, lines = np.zeros((tall, wide), bool), np.zeros((tall, wide, 4), np.uint8)
    for layer in layers:
        places = find_objects(layer.numbers.astype(np.int32, copy=False))
        for number, colour in layer.colours.items():
            place = places[number - 1] if number <= len(places) else None
            if place is not None:
                where, inside = _enlarged(layer.numbers[place] == number, place, scale, rim.shape)
                rim[where] |= ~inside & (distance_transform_edt(~inside) <= _OVER * _RIM)
                line = inside & (distance_transform_edt(inside) <= _OVER * layer.line)
                lines[where][line] = (*colour, 255)
    shown[rim] = (shown[rim] * _RIM_SHADE).astype(np.uint8)
    drawn = lines[..., 3] > 0
    shown[drawn] = lines[drawn, :3]
    if frame is not None:
        shown = framed(shown, _scaled(frame, scale))
    return np.asarray(Image.fromarray(shown[_scaled(shown_part, scale)]).reduce(_OVER))


def _scaled(window: Window, scale: float) -> Window:
    rows, cols = (slice(round(part.start * scale), round(part.stop * scale)) for part in window)
    return rows, cols


def _enlarged(
    mask: np.ndarray, place: tuple[slice, ...], scale: float, shape: tuple[int, ...]
) -> tuple[Window, np.ndarray]:
    """Rows and columns of the resized picture around an object, and its smoothed mask there.

    Args:
        mask: (h, w) bool, the object in its box.
        place: rows and columns of the box.
        scale: of the resized picture.
        shape: of the resized picture.
    """
    # room for the rim, and for the curve of the resized edge
    room = 2 + int(np.ceil((_OVER * _RIM + 1) / scale))
    spans = []
    for part, length in zip(place, shape, strict=True):
        start, stop = (part.start - room + 1) * scale, (part.stop + room - 1) * scale
        spans.append(slice(max(0, int(start)), min(length, int(np.ceil(stop)))))
    top, left = (span.start / scale - part.start + room for span, part in zip(spans, place, strict=True))
    tall, wide = (span.stop - span.start for span in spans)
    padded = Image.fromarray(np.pad(mask, room).astype(np.uint8) * 255)
    box = (left, top, min(left + wide / scale, padded.width), min(top + tall / scale, padded.height))
    soft = np.asarray(padded.resize((wide, tall), Image.Resampling.BICUBIC, box), np.float32)
    if scale > 1:
        # half a pixel of the mask, which rounds its steps
        soft = gaussian_filter(soft, scale / 2)
    # of an object of few pixels, its most covered part
    return (spans[0], spans[1]), soft >= max(1.0, min(127.5, 0.75 * float(soft.max())))
