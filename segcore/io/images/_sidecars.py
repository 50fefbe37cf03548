"""Georeference of pictures from files beside them: world files, and .aux.xml of GDAL."""

import warnings
from dataclasses import replace
from pathlib import Path

from segcore.data.raster import Info
from segcore.errors import DataError


def world_files(extension: str) -> tuple[str, ...]:
    """Endings of the world files of a file extension, with dots: for ".jpg" .jgw, .jpgw and .wld."""
    letters = extension.lower().removeprefix(".")
    endings = dict.fromkeys((f".{letters[0]}{letters[-1]}w", f".{letters}w", ".wld"))
    in_capitals = [ending.upper() for ending in endings] if extension.isupper() else []
    return (*endings, *in_capitals)


def possible_names(path: Path) -> list[str]:
    """Names of files beside a picture that would give its georeference."""
    return [f"{path.name}.aux.xml", *(path.stem + ending for ending in world_files(path.suffix))]


def georeferenced(path: Path, info: Info, driver: str) -> Info:
    """Header of a picture with the georeference of its sidecar files, and a note of kind "sidecar" where there are any.

    Args:
        path: of the picture.
        info: header without georeference.
        driver: name of GDAL's driver for the format.

    Raises:
        DataError: a world file has no six numbers.
    """
    found = [name for name in possible_names(path) if path.with_name(name).is_file()]
    if not found:
        return info
    auxiliary = f"{path.name}.aux.xml"
    crs, transform = _of_auxiliary(path, driver) if auxiliary in found else (None, None)
    world = next((name for name in found if name != auxiliary), None)
    if world:
        transform = _of_world_file(path, path.with_name(world))
    if transform is None and crs is None:
        return info
    note = ("sidecar", f"its georeference is read from {' and '.join(found)}")
    return replace(info, crs=crs, transform=transform, notes=(*info.notes, note))


def _of_auxiliary(path: Path, driver: str) -> tuple[str | None, tuple[float, ...] | None]:
    """CRS and transform of an .aux.xml; None for those that it lacks."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    with warnings.catch_warnings(), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(str(path.absolute()), driver=driver) as source:
                transform = None if source.transform.is_identity else tuple(source.transform)[:6]
                return source.crs.to_string() if source.crs else None, transform
        # The picture itself is damaged, which its own reader reports.
        except RasterioError:
            return None, None


def _of_world_file(path: Path, file: Path) -> tuple[float, ...]:
    """Transform of a world file, which has the centre of the first pixel.

    Raises:
        DataError: it has no six numbers.
    """
    try:
        words = file.read_text(encoding="utf-8-sig").replace(",", ".").split()
        a, d, b, e, x, y = (float(word) for word in words[:6])
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path.name}: the file beside it, {file.name}, has no six numbers of a world file",
            "correct or remove that file",
            kind="unreadable",
        ) from error
    return a, b, x - (a + b) / 2, d, e, y - (d + e) / 2
