"""GeoTIFF, VRT, JPEG 2000 and ERDAS IMAGINE through rasterio."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio

from segcore.data.raster import Info
from segcore.errors import DataError
from segcore.io.images import Source
from segcore.io.images._checks import check_file
from segcore.io.images._dataset import JPEG_2000, Dataset
from segcore.io.images._gdal import environment, failures, open_dataset, quiet
from segcore.io.images._orientation import upright
from segcore.io.images._page_stack import PageStack
from segcore.io.images._pages import Stack, stack_of
from segcore.io.images._tiff_tags import ORIENTATION, Tag, first_tags
from segcore.io.images._vrt import local_vrt

EXTENSIONS = (".tif", ".tiff", ".vrt", ".jp2", ".j2k", ".j2c", ".jpx", ".img")


class _Format(NamedTuple):
    """A format with a driver of its own, which GDAL may lack.

    Attributes:
        driver: of GDAL.
        name: for errors.
        starts: first bytes of its files.
    """

    driver: str
    name: str
    starts: tuple[bytes, ...]


_JPEG_2000 = _Format(JPEG_2000, "JPEG 2000", (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"))
_FORMATS = {
    **dict.fromkeys((".jp2", ".j2k", ".j2c", ".jpx"), _JPEG_2000),
    ".img": _Format("HFA", "ERDAS IMAGINE", (b"EHFA_HEADER_TAG",)),
}


def _driver(path: Path) -> str:
    """Name of the only GDAL driver that may open a file.

    Tiles from tile servers are often JPEG or PNG with the extension .tif, and a sidecar file with their location.
    """
    if path.name.lower().endswith(".vrt"):
        return "VRT"
    with path.open("rb") as stream:
        start = stream.read(16)
    own = _FORMATS.get(path.suffix.lower())
    if own is not None:
        _check_format(path, own, start)
        return own.driver
    return {b"\xff\xd8": "JPEG", b"\x89P": "PNG"}.get(start[:2], "GTiff")


def _check_format(path: Path, expected: _Format, start: bytes) -> None:
    """Check that a file begins as its format does, and that GDAL can read it.

    Raises:
        DataError: it is of another format, or GDAL has no driver for it.
    """
    if not start.startswith(expected.starts):
        raise DataError(
            f"{path.name}: is not {expected.name}, which its extension stands for",
            "restore the file from its source, or convert it to GeoTIFF or NIfTI (.nii)",
            kind="unreadable",
        )
    with environment() as gdal:
        if expected.driver not in gdal.drivers():
            raise DataError(
                f"{path.name}: {expected.name} cannot be read, because GDAL has no driver {expected.driver} here",
                "convert it to GeoTIFF (gdal_translate), or install rasterio from PyPI, which has the driver",
                kind="unknown-format",
            )


def _orientation(tags: Mapping[int, Tag], source: rasterio.DatasetReader) -> int | None:
    """Value of the orientation tag; None where there is none."""
    if ORIENTATION in tags:
        return int(tags[ORIENTATION][0])
    exif = source.tags().get("EXIF_Orientation", "")
    return int(exif) if exif.isdecimal() else None


def sources(path: Path) -> list[Path]:
    """Files that a VRT mosaics, absolute.

    Raises:
        DataError: as `open_source` of a VRT.
    """
    check_file(path)
    return local_vrt(path)[1]


def _check_own_pixels(path: Path, source: rasterio.DatasetReader) -> None:
    if source.driver == "HFA" and any(file.lower().endswith(".ige") for file in source.files):
        raise DataError(
            f"{path.name}: its pixels are in another file (.ige)",
            "convert it to GeoTIFF (gdal_translate)",
            kind="unreadable",
        )


def _stack(
    path: Path, source: rasterio.DatasetReader, tags: Mapping[int, Tag], pages: str | None, size: int
) -> Stack | None:
    """The pages of a TIFF of `size` bytes; None for other files, and for those of one page."""
    if source.driver != "GTiff":
        return None
    description = source.tags().get("TIFFTAG_IMAGEDESCRIPTION", "")
    page_bytes = source.height * source.width * source.count * np.dtype(source.dtypes[0]).itemsize
    return stack_of(path, tags, source.tags(ns="SUBDATASETS"), description, pages, size // page_bytes)


@contextmanager
def open_source(
    path: Path, slices: str | int = "auto", pages: str | None = None, bands: tuple[int, ...] | None = None
) -> Iterator[Source]:
    """Open a GeoTIFF, VRT, JPEG 2000 or ERDAS IMAGINE file; it stays open for all windows.

    A VRT may only mosaic GeoTIFFs in its folder tree. Palette files are read as indices. Several pages of a TIFF are a
    stack. An orientation tag is applied to files without a georeference, as viewers do; GIS programs ignore it.

    Args:
        path: of the file.
        slices: not used, pages have no axis.
        pages: what pages of a TIFF are: "planes" or "channels"; None: what the file says.
        bands: bands that are data even if the file calls them alpha, counted from 1; None: those that are no alpha;
            LABELS: for a mask.

    Raises:
        DataError: the file is empty, may not be read, is damaged or truncated, holds complex numbers, has blocks that
            are too large for memory, has pages of unknown meaning, or is a VRT that refers to files outside its folder.
    """
    size, driver = check_file(path), _driver(path)
    name = local_vrt(path)[0] if driver == "VRT" else str(path.absolute())
    with environment(), open_dataset(name, path, driver) as source:
        _check_own_pixels(path, source)
        with failures(path), quiet():
            tags = first_tags(path) if driver == "GTiff" else {}
            stack = _stack(path, source, tags, pages, size)
            joined = stack is not None and len(stack.planes[0]) > 1
            first = Dataset(path, source, None if joined and bands else bands, tags)
        turn = _orientation(tags, source)
        if stack is None:
            yield upright(first, turn)
            return
        opened = PageStack(path, first, stack, bands)
        try:
            yield upright(opened, turn)
        finally:
            opened.close()


def write(path: Path, pixels: np.ndarray, like: Info) -> None:
    """Write pixels (bands, height, width) on the grid of `like`, as a compressed GeoTIFF."""
    profile = {
        "driver": "GTiff",
        "count": pixels.shape[0],
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        "dtype": pixels.dtype,
        "compress": "deflate",
        "nodata": like.nodata,
    }
    if like.crs:
        profile["crs"] = like.crs
    if like.transform:
        profile["transform"] = rasterio.Affine(*like.transform)
    with quiet(), rasterio.open(path, "w", **profile) as out:
        out.write(pixels)
