"""Masks of one class: which of their values are the class."""

import numpy as np

from segcore.data.raster import Info, Note, Raster, Window, pieces
from segcore.errors import DataError
from segcore.io import images
from segcore.io.annotations._shared import named
from segcore.io.annotations._unlabelled import Counts

# A smoothed mask has more levels of 256 than this; of its pixels that are not 0, these shares are near the highest
# value, and near it or 0.
_MANY, _NEAR_TOP, _NEAR = 16, 0.08, 0.4
_LEVELS = 256


class Binary:
    """Rules and counts of a file of one class, for all its windows.

    Every value but 0 is the class, with these exceptions: a pixel without data is not; in a smoothed mask, the class
    begins at half of the highest value; and where a drawing with transparency has only black pixels, they are.

    Args:
        name: of the file.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._of_header: tuple[Note, ...] = ()
        self._several: Note | None = None
        self._is_examined = False
        # lowest value of the class in a smoothed mask
        self._low: float | None = None
        self._is_black: bool | None = None
        self._no_data, self._changed = Counts(), Counts()

    @property
    def notes(self) -> list[Note]:
        """What was done to the file."""
        name = self._name
        notes = named(name, self._of_header)
        if self._no_data.total():
            text = f"{name}: {self._no_data.total()} pixels without data are not of the class"
            notes.append(("transparent", text))
        if self._is_black:
            text = f"{name}: all its opaque pixels are black, and they are the class"
            notes.append(("transparent", text))
        if self._low is not None:
            text = f"{name}: has many grey values, as after smoothing or compression: values from {self._low:g} are "
            text += f"the class, {self._changed.total()} lower pixels that are not 0 are not"
            notes.append(("smoothed", text))
        return [*notes, *([self._several] if self._several else [])]

    def read(self, source: images.Source, window: Window, plane: int) -> np.ndarray:
        """Whether pixels of a window are of the class: (H, W) bool.

        Raises:
            DataError: the file cannot be read, or has negative values that are not declared as nodata.
        """
        self._of_header = source.info.notes
        raster = source.read(window, plane)
        values = _values(raster)
        marked: np.ndarray = (values != 0) & raster.valid
        present = values[marked]
        if self._is_black is None and not (present.size and raster.valid.all()):
            self._is_black = not present.size and _is_black_drawing(source)
        if self._is_black:
            return raster.valid
        if not raster.valid.all():
            # NaN is not 0.
            without = ~raster.valid & (raster.pixels != 0).any(axis=0)
            self._no_data.add(int(np.count_nonzero(without)), window, plane)
        if not present.size:
            return marked
        least, most = present.min(), present.max()
        if least < 0:
            raise DataError(
                f"{self._name}: has the negative value {least:g} where all values but 0 are the class",
                "declare the value as nodata in the header of the file, or save the class as 1 and all else as 0",
                kind="label-values",
            )
        if least != most and not self._is_examined:
            self._examine(source)
        if self._low is not None:
            of_class: np.ndarray = marked & (values >= self._low)
            self._changed.add(int(np.count_nonzero(marked & ~of_class)), window, plane)
            return of_class
        return marked

    def _examine(self, source: images.Source) -> None:
        """Find out from the whole file whether it was smoothed."""
        self._is_examined = True
        info = source.info
        windows = [(window, plane) for plane in range(info.depth) for window in pieces(info)]
        tops = [_present(source.read(*at)).max(initial=0) for at in windows]
        top = max(float(value) for value in tops)
        counts = np.zeros(_LEVELS, np.int64)
        for at in windows:
            counts += np.histogram(_present(source.read(*at)), _LEVELS, (0, top))[0]
        levels = int(np.count_nonzero(counts))
        if info.palette is not None or levels <= _MANY:
            return
        total, near = counts.sum(), _LEVELS // 8
        high = counts[-near:].sum()
        is_smoothed = high >= _NEAR_TOP * total and high + counts[:near].sum() >= _NEAR * total
        if is_smoothed and (info.bands > 1 or _is_white(top, info)):
            self._low = top / 2 if np.issubdtype(np.dtype(info.dtype), np.floating) else (int(top) + 1) // 2
        else:
            text = f"{self._name}: has many values up to {top:g}, and all but 0 are the class"
            self._several = "others-class", text


def _values(raster: Raster) -> np.ndarray:
    """The value of each pixel (H, W), the highest of its bands; 0 where it is not a number."""
    pixels = raster.pixels
    if pixels.dtype == bool:
        pixels = pixels.view(np.uint8)
    values: np.ndarray = pixels[0] if len(pixels) == 1 else pixels.max(axis=0)
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        values = np.where(np.isfinite(values), values, 0)
    return values


def _present(raster: Raster) -> np.ndarray:
    values = _values(raster)
    present: np.ndarray = values[raster.valid & (values > 0)]
    return present


def _is_white(top: float, info: Info) -> bool:
    """Whether the highest value is near that of white, as opposed to the number of an object."""
    if np.issubdtype(np.dtype(info.dtype), np.floating) and top < 2:
        return True
    return any(0.9 * white <= top <= white for white in (255, 65535))


def _is_black_drawing(source: images.Source) -> bool:
    """Whether a picture is transparent except for black pixels; a scene with a position may have a margin instead."""
    info = source.info
    if info.nodata is not None or info.transform or info.affine or not np.issubdtype(info.dtype, np.integer):
        return False
    is_opaque, is_transparent = False, False
    for plane in range(info.depth):
        for window in pieces(info):
            raster = source.read(window, plane)
            if _present(raster).size:
                return False
            is_opaque |= bool(raster.valid.any())
            is_transparent |= not raster.valid.all()
    return is_opaque and is_transparent
