"""PNG, JPEG, WebP, GIF, BMP and PNM through Pillow, upright as viewers show them.

The georeference of files beside a picture (.pgw, .aux.xml and others) is read. It is that of the stored pixels, so an
orientation tag (EXIF) is applied only to pictures without one.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from segcore.data.raster import Info, Raster, Window
from segcore.errors import DataError
from segcore.io.images import Source
from segcore.io.images._alpha import alpha_of_picture
from segcore.io.images._checks import RESTORE, check_file, unreadable
from segcore.io.images._exif import PILLOW_ERRORS, orientation_tag
from segcore.io.images._frames import Frames, chosen_pages
from segcore.io.images._orientation import upright
from segcore.io.images._sidecars import georeferenced

_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pbm": "PPM",
    ".pnm": "PPM",
}
EXTENSIONS = tuple(_FORMATS)
# those of GDAL
_DRIVERS = {**{name: name for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP")}, "PPM": "PNM"}
MOST_PIXELS = 2**28
# Pillow raises above twice this value, before decoding.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2
# modes that may have a value or colour whose pixels are transparent
_KEYED_MODES = ("1", "L", "RGB", "I;16", "I")
_KEYED = "the file declares it as transparent (tRNS)"
_BANDS = {"1": 1, "L": 1, "P": 1, "I": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "F": 1, "LA": 1, "PA": 1}


@contextmanager
def _pillow(path: Path) -> Iterator[None]:
    """Turn exceptions of Pillow into DataError."""
    with warnings.catch_warnings():
        # Decompression bombs are caught by MOST_PIXELS, and damaged metadata does no harm.
        warnings.simplefilter("ignore")
        try:
            yield
        except Image.DecompressionBombError as error:
            raise _too_large(path, f"more than {MOST_PIXELS} pixels") from error
        except UnidentifiedImageError as error:
            raise _wrong_content(path) from error
        except PILLOW_ERRORS as error:
            raise unreadable(path, error) from error


def _too_large(path: Path, what: str) -> DataError:
    return DataError(
        f"{path.name}: declares {what}",
        "convert large pictures to tiled GeoTIFF, which is read in blocks; if it is small, " + RESTORE,
        kind="too-large",
    )


def _wrong_content(path: Path) -> DataError:
    """The error for a file whose content does not match its extension; names the actual format if recognised."""
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
    actual = next((name for key, name in magic.items() if start.startswith(key)), None)
    names = {"PNG": "a PNG", "JPEG": "a JPEG", "WEBP": "a WebP", "GIF": "a GIF", "BMP": "a BMP"}
    expected = names.get(_FORMATS[path.suffix.lower()])
    if actual is None or actual == expected:
        return DataError(
            f"{path.name}: cannot be read (is not a picture, or its header is damaged)",
            RESTORE,
            kind="unreadable",
        )
    return DataError(
        f"{path.name}: cannot be read (is {actual}, which does not match its file extension)",
        "correct the file extension, or convert it to PNG",
        kind="unreadable",
    )


def _palette(image: Image.Image) -> tuple[tuple[int, int, int], ...] | None:
    if image.mode not in ("P", "PA") or image.palette is None:
        return None
    values = bytes(image.palette.palette)
    # BMP stores blue first, and sometimes a byte of padding.
    stored = image.palette.rawmode or image.palette.mode
    step = len(stored)
    offsets = [stored.index(band) for band in "RGB"]
    return tuple(
        (values[i + offsets[0]], values[i + offsets[1]], values[i + offsets[2]])
        for i in range(0, len(values) - step + 1, step)
    )


class _Picture:
    """An open picture; decoded whole on the first read."""

    def __init__(self, path: Path, image: Image.Image, wanted: tuple[int, ...] | None) -> None:
        self._path = path
        self._image = image
        self._decoded: tuple[np.ndarray, np.ndarray] | None = None
        # Pillow cuts 16-bit colours to 8 bits and stretches values of PPM to 255 or 65535; both are undone here.
        tile = image.tile[0] if image.tile else None  # type: ignore[attr-defined]
        arguments = tile.args if tile else ""
        raw = str(arguments[0] if isinstance(arguments, tuple) else arguments)
        maximum = arguments[1] if isinstance(arguments, tuple) and image.format == "PPM" else 255
        self._scale = maximum / (65535 if image.mode == "I" else 255) if image.format == "PPM" else 1.0
        if image.format == "PPM" and raw == "I;16B":
            self._scale = 1.0
        self._wide = image.mode in ("RGB", "RGBA") and (raw.endswith(";16B") or maximum > 255)
        self._grey = self._wide and raw == "LA;16B"
        self._has_alpha = image.mode in ("LA", "RGBA")
        self.info = self._header()
        # Only the values show whether a band is alpha.
        if self._has_alpha:
            self._decode(wanted)

    def _header(self) -> Info:
        image = self._image
        # Programs that write grey GIFs sort values into a palette, so indices mean nothing there.
        if image.format == "GIF" and _is_grey(_palette(image)):
            return Info(height=image.height, width=image.width, bands=1, dtype="uint8")
        if image.mode in ("I;16", "I;16B", "I;16L", "I") or self._wide:
            dtype = "uint16"
        else:
            dtype = "float32" if image.mode == "F" else "uint8"
        key = self._key()
        return Info(
            height=image.height,
            width=image.width,
            bands=1 if self._grey else _BANDS.get(image.mode, 3),
            dtype=dtype,
            notes=()
            if key is None
            else (("transparent", f"pixels of the value {key} are ignored: {_KEYED}"),),
            nodata=float(key) if isinstance(key, int) else None,
            palette=_palette(image),
        )

    def _key(self) -> int | tuple[int, ...] | None:
        """The value or colour whose pixels are transparent; None if there is none."""
        key = self._image.info.get("transparency")
        kind = {"RGB": tuple}.get(self._image.mode, int)
        return key if self._image.mode in _KEYED_MODES and isinstance(key, kind) else None

    def read(self, window: Window | None = None, plane: int = 0) -> Raster:
        """Pixels (bands, height, width) of a window or of the whole picture.

        A pixel is valid unless it is fully transparent. Palette pictures are read as indices, all valid: they are
        usually masks, where a transparent background is only for display. 1-bit pictures become 0 and 255; CMYK, YCbCr
        and similar become RGB.

        Raises:
            DataError: the file is damaged.
        """
        pixels, valid = self._decoded or self._decode()
        row, column, height, width = window or (0, 0, self.info.height, self.info.width)
        area = (slice(row, row + height), slice(column, column + width))
        return Raster(pixels[:, *area].copy(), valid[area].copy(), self.info)

    def _decode(self, wanted: tuple[int, ...] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Pixels and validity of the whole picture; adds alpha that is data to the bands of `info`."""
        with _pillow(self._path):
            array = self._wide_pixels() if self._wide else self._pixels()
            self._image.close()
        valid, key = np.ones(array.shape[1:], bool), self._key()
        if key is not None:
            valid = (array != np.reshape(key, (-1, 1, 1))).any(axis=0)
        if self._has_alpha:
            is_data, notes = alpha_of_picture(array, wanted)
            if not is_data:
                valid, array = array[-1] > 0, array[:-1]
            self.info = replace(self.info, bands=len(array), notes=(*self.info.notes, *notes))
        self._decoded = array, valid
        return self._decoded

    def _pixels(self) -> np.ndarray:
        """Values (bands, height, width), alpha last."""
        image = self._image
        mode = image.mode
        image.load()
        is_grey_gif = image.format == "GIF" and self.info.palette is None and mode == "P"
        if mode == "1" or is_grey_gif:
            image = image.convert("L")
        elif mode == "PA":
            image = image.getchannel(0)
        elif mode not in _BANDS and mode not in ("RGB", "RGBA"):
            image = image.convert("RGB")
        array = np.asarray(image)
        if self._scale != 1.0:
            array = np.round(array * self._scale)
        array = array.astype(self.info.dtype, copy=False)
        return array[None] if array.ndim == 2 else np.ascontiguousarray(np.moveaxis(array, -1, 0))

    def _wide_pixels(self) -> np.ndarray:
        """Values of 16-bit colours, alpha last, decoded by GDAL because Pillow cuts them to 8 bits."""
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning, RasterioError

        driver = {"PNG": "PNG", "PPM": "PNM"}[str(self._image.format)]
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(str(self._path.absolute()), driver=driver) as source:
                array: np.ndarray = source.read()
        except RasterioError as error:
            raise unreadable(self._path, error.__cause__ or error) from error
        return array


def _is_grey(palette: tuple[tuple[int, int, int], ...] | None) -> bool:
    return palette is not None and all(red == green == blue for red, green, blue in palette)


@contextmanager
def open_source(
    path: Path, slices: str | int = "auto", pages: str | None = None, bands: tuple[int, ...] | None = None
) -> Iterator[Source]:
    """Open a picture; the header is read now, all pixels with the first read (all frames of an animation now).

    Args:
        path: of the file.
        slices: not used.
        pages: what the frames of an animation are: "planes" or "channels".
        bands: bands that are data even if they are alpha, counted from 1; None: those that are no alpha by their
            values; LABELS: for a mask.

    Raises:
        DataError: the file is empty, may not be read, is damaged, does not match its extension, declares more than
            MOST_PIXELS pixels, or is an animation and `pages` is None.
    """
    check_file(path)
    with _pillow(path):
        image = Image.open(path, formats=[_FORMATS[path.suffix.lower()]])
    with image:
        with _pillow(path):
            frames = getattr(image, "n_frames", 1)
        # Cameras append previews to JPEGs (MPO); the first frame is the picture.
        is_animation = frames > 1 and image.format != "MPO"
        if image.width * image.height * (frames if is_animation else 1) > MOST_PIXELS:
            size = f"{frames} x " if is_animation else ""
            raise _too_large(path, f"{size}{image.height} x {image.width} pixels")
        if is_animation:
            chosen = chosen_pages(path.name, f"{frames} frames", pages)
            with _pillow(path):
                animation = Frames(image, chosen)
            yield animation
            return
        with _pillow(path):
            picture = _Picture(path, image, bands)
        if frames > 1:
            text = f"the first of {frames} pictures is read, the others are the camera's previews"
            picture.info = replace(picture.info, notes=(("pages-read", text),))
        picture.info = georeferenced(path, picture.info, _DRIVERS[_FORMATS[path.suffix.lower()]])
        yield upright(picture, orientation_tag(path, image))


def write(path: Path, pixels: np.ndarray, like: Info) -> None:
    """Write pixels (bands, height, width) uint8 with one or three bands."""
    Image.fromarray(pixels[0] if pixels.shape[0] == 1 else np.moveaxis(pixels, 0, -1)).save(path)
