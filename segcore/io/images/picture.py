"""PNG, JPEG, WebP, BMP, PPM and PGM through Pillow; a picture has no place on Earth."""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from segcore.data.raster import Info, Raster, Window
from segcore.errors import DataError
from segcore.io.images._checks import RESTORE, check_file, unreadable

_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".ppm": "PPM",
    ".pgm": "PPM",
}
ENDINGS = tuple(_FORMATS)
MOST_PIXELS = 2**28
# Pillow raises above twice its limit, before it decodes anything; below that our own limit holds.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2
# What Pillow's plugins raise on garbage.
_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError),
    *(AttributeError, AssertionError, RuntimeError, struct.error, zlib.error),
)
_BANDS = {"1": 1, "L": 1, "P": 1, "I": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "F": 1, "LA": 1, "PA": 1}


@contextmanager
def _pillow(path: Path) -> Iterator[None]:
    """Pillow's failures become DataError."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # bombs are judged by our own limit, and damaged metadata does no harm
        try:
            yield
        except Image.DecompressionBombError as error:
            raise _too_large(path, f"more than {MOST_PIXELS} pixels") from error
        except UnidentifiedImageError as error:
            raise _not_it(path) from error
        except _ERRORS as error:
            raise unreadable(path, error) from error


def _too_large(path: Path, what: str) -> DataError:
    return DataError(
        f"{path.name}: declares {what}",
        "give large pictures as tiled GeoTIFF, which is read piece by piece; if it is small, " + RESTORE,
        kind="too-large",
    )


def _not_it(path: Path) -> DataError:
    """The error for a file that its ending's decoder does not know, naming what it is if that is plain."""
    start = path.open("rb").read(12)
    magic = {
        b"GIF8": "a GIF",
        b"\x89PNG": "a PNG",
        b"\xff\xd8\xff": "a JPEG",
        b"II*\0": "a TIFF",
        b"MM\0*": "a TIFF",
        b"BM": "a BMP",
        b"%PDF": "a PDF",
        b"PK\x03\x04": "a ZIP archive",
        b"RIFF": "a WebP",
    }
    found = next((what for key, what in magic.items() if start.startswith(key)), None)
    own = {"PNG": "a PNG", "JPEG": "a JPEG", "WEBP": "a WebP", "BMP": "a BMP"}.get(
        _FORMATS[path.suffix.lower()]
    )
    if found is None or found == own:
        return DataError(
            f"{path.name}: cannot be read (is no picture, or its header is damaged)",
            RESTORE,
            kind="unreadable",
        )
    return DataError(
        f"{path.name}: cannot be read (is {found}, not what its ending says)",
        "rename it to the ending it should have, or convert it to PNG",
        kind="unreadable",
    )


def _palette(image: Image.Image) -> tuple[tuple[int, int, int], ...] | None:
    if image.mode not in ("P", "PA") or image.palette is None:
        return None
    values = bytes(image.palette.palette)
    stored = (
        image.palette.rawmode or image.palette.mode
    )  # BMP stores blue first, and perhaps a byte of padding
    step = len(stored)
    places = [stored.index(band) for band in "RGB"]
    return tuple(
        (values[i + places[0]], values[i + places[1]], values[i + places[2]])
        for i in range(0, len(values) - step + 1, step)
    )


class _Picture:
    """An open picture; decoded once, when first read."""

    def __init__(self, path: Path, image: Image.Image) -> None:
        self._path = path
        self._image = image
        self._decoded: tuple[np.ndarray, np.ndarray] | None = None
        # Pillow cuts 16-bit colours to 8 bits and stretches PPM's values to 255 or 65535: neither is the file's own.
        tile = image.tile[0] if image.tile else None  # type: ignore[attr-defined]
        arguments = tile.args if tile else ""
        raw = str(arguments[0] if isinstance(arguments, tuple) else arguments)
        maximum = arguments[1] if isinstance(arguments, tuple) and image.format == "PPM" else 255
        self._scale = maximum / (65535 if image.mode == "I" else 255) if image.format == "PPM" else 1.0
        if image.format == "PPM" and raw == "I;16B":
            self._scale = 1.0
        self._wide = image.mode in ("RGB", "RGBA") and (raw.endswith(";16B") or maximum > 255)
        self._grey = self._wide and raw == "LA;16B"
        self.info = self._header()

    def _header(self) -> Info:
        image = self._image
        if image.mode in ("I;16", "I;16B", "I;16L", "I") or self._wide:
            dtype = "uint16"
        else:
            dtype = "float32" if image.mode == "F" else "uint8"
        key = image.info.get("transparency")
        return Info(
            height=image.height,
            width=image.width,
            bands=1 if self._grey else _BANDS.get(image.mode, 3),
            dtype=dtype,
            nodata=float(key) if isinstance(key, int) and image.mode in ("1", "L", "I;16", "I") else None,
            palette=_palette(image),
        )

    def read(self, window: Window | None = None, plane: int = 0) -> Raster:
        """Pixels (bands, height, width) of a window or of the whole picture.

        A pixel is valid unless it is wholly transparent. Palette pictures give their indices, all of them valid:
        they are label pictures, whose transparent background is how they look and not what they mean.
        Pictures of 1 bit give 0 and 255. CMYK, YCbCr and the like become RGB.

        Raises:
            DataError: the file is damaged.
        """
        if self._decoded is None:
            with _pillow(self._path):
                self._decoded = self._wide_pixels() if self._wide else self._pixels()
                self._image.close()
        pixels, valid = self._decoded
        row, column, height, width = window or (0, 0, self.info.height, self.info.width)
        area = (slice(row, row + height), slice(column, column + width))
        return Raster(pixels[:, *area].copy(), valid[area].copy(), self.info)

    def _pixels(self) -> tuple[np.ndarray, np.ndarray]:
        image = self._image
        mode = image.mode
        image.load()
        alpha = np.asarray(image.getchannel("A")) > 0 if mode in ("LA", "RGBA") else None
        if mode == "1":
            image = image.convert("L")
        elif mode in ("LA", "PA"):
            image = image.getchannel(0)
        elif mode not in _BANDS and mode != "RGB":
            image = image.convert("RGB")
        array = np.asarray(image)
        if self._scale != 1.0:
            array = np.round(array * self._scale)
        array = array.astype(self.info.dtype, copy=False)
        pixels = array[None] if array.ndim == 2 else np.ascontiguousarray(np.moveaxis(array, -1, 0))
        key = self._image.info.get("transparency") if mode in ("1", "L", "RGB", "I;16", "I") else None
        if alpha is None and isinstance(key, int | tuple):
            colour = np.reshape(key, (-1, 1, 1))
            alpha = (pixels != colour).any(axis=0)
        return pixels, np.ones(pixels.shape[1:], bool) if alpha is None else alpha

    def _wide_pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of 16-bit colours, which GDAL decodes whole."""
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning, RasterioError

        driver = {"PNG": "PNG", "PPM": "PNM"}[str(self._image.format)]
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(str(self._path.absolute()), driver=driver) as source:
                array = source.read()
        except RasterioError as error:
            raise unreadable(self._path, error.__cause__ or error) from error
        bands = self.info.bands
        alpha = array[bands] > 0 if len(array) > bands else np.ones(array.shape[1:], bool)
        return array[:bands], alpha


@contextmanager
def open_source(path: Path, slices: str | int = "auto") -> Iterator[_Picture]:
    """Open a picture; only its header is read until pixels are asked for, then all of it is decoded once.

    Pixels are given as stored: an orientation in a JPEG's EXIF is not applied, because masks are drawn on, and have
    the size of, the stored pixels.

    Raises:
        DataError: the file is empty, may not be read, is damaged, is not what its ending says, declares more than
            MOST_PIXELS pixels, or is an animation.
    """
    check_file(path)
    with _pillow(path):
        image = Image.open(path, formats=[_FORMATS[path.suffix.lower()]])
    with image:
        if image.width * image.height > MOST_PIXELS:
            raise _too_large(path, f"{image.height} x {image.width} pixels")
        with _pillow(path):
            frames = getattr(image, "n_frames", 1)
            # Cameras append previews to JPEGs (MPO); the first is the picture.
            if frames > 1 and image.format != "MPO":
                raise DataError(
                    f"{path.name}: is an animation of {frames} frames",
                    "give each frame that is meant as a picture of its own",
                    kind="unusable",
                )
            picture = _Picture(path, image)
        yield picture


def write(path: Path, pixels: np.ndarray, like: Info) -> None:
    """Write (bands, height, width) uint8 with one or three bands."""
    Image.fromarray(pixels[0] if pixels.shape[0] == 1 else np.moveaxis(pixels, 0, -1)).save(path)
