"""PNG, JPEG, PPM and BMP through Pillow."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from segcore.errors import DataError
from segcore.raster import Info, Raster, Window

ENDINGS = (".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".bmp")


def _array(path: Path, window: Window | None) -> np.ndarray:
    try:
        with Image.open(path) as source:
            picture: Image.Image = source.convert("L") if source.mode == "1" else source
            if window:
                row, column, height, width = window
                picture = picture.crop((column, row, column + width, row + height))
            array = np.asarray(picture)  # palette pictures give their indices
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).replace(f"{path.parent}/", "")
        raise DataError(
            f"{path.name}: cannot be read ({reason})", "restore the file from its source, or remove the pair"
        ) from error
    return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)


def _info(array: np.ndarray) -> Info:
    return Info(height=array.shape[1], width=array.shape[2], bands=array.shape[0], dtype=str(array.dtype))


def info(path: Path) -> Info:
    """Size, bands and dtype; a picture has no place on Earth."""
    return _info(_array(path, None))


def read(path: Path, window: Window | None = None) -> Raster:
    """Pixels (bands, height, width); an alpha band becomes validity."""
    array = _array(path, window)
    valid = np.ones(array.shape[1:], dtype=bool)
    if array.shape[0] in (2, 4):
        valid = array[-1] > 0
        array = array[:-1]
    return Raster(array, valid, _info(array))


def write(path: Path, pixels: np.ndarray, like: Info) -> None:
    """Write (bands, height, width) uint8 with one or three bands."""
    Image.fromarray(pixels[0] if pixels.shape[0] == 1 else np.moveaxis(pixels, 0, -1)).save(path)
