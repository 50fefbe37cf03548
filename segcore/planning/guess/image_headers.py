"""Keys of `data` that headers of images decide: bands, pages, view, scale, and groups by place."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segcore.data.longitudes import in_degrees
from segcore.data.raster import Info
from segcore.errors import DataError
from segcore.io import images
from segcore.io.layouts._patterns import cell_name
from segcore.planning.guess.values import spread
from segcore.planning.guess.words import VIEWS, tokens

# headers that are read to learn what images are, and to count groups by place
_READ, _PLACES = 48, 2000
_TILES = 2


class Headers(NamedTuple):
    """Keys of `data`, the reason of each, and the header of an image of the most frequent form.

    Attributes:
        keys: key: value.
        reasons: key: why.
        one_band: whether all images have one band.
    """

    keys: dict[str, Any]
    reasons: dict[str, str]
    one_band: bool
    positioned: bool


def read(folder: Path, paths: Sequence[str], words: str) -> Headers:
    """Keys that the headers of images decide, from images that are spread over a list.

    Args:
        folder: the source.
        paths: of the images.
        words: names of the folders, which may say how images are taken.

    Raises:
        DataError: no image can be read.
    """
    keys: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    infos, problems = _infos(folder, paths, None)
    if not infos and any(problem.kind == "pages" for problem in problems):
        infos, problems = _infos(folder, paths, "planes")
        keys["pages"], reasons["pages"] = (
            "planes",
            "files of several pages do not say what these are: planes of a stack",
        )
    if not infos:
        raise problems[0]
    bands = {info.bands for info in infos}
    if bands == {1, 3}:
        keys["grey_to_rgb"], reasons["grey_to_rgb"] = True, "some images are grey, others have three bands"
    volumes = all(info.affine is not None for info in infos)
    positioned = all(info.crs and info.transform for info in infos)
    if not volumes and not positioned:
        view = next((VIEWS[w] for w in map(str.lower, tokens(words)) if w in VIEWS), None)
        keys["view"] = view
        reasons["view"] = (
            f"from names in {words}"
            if view
            else "nadir (from above), street or microscope: flips and turns follow from it"
        )
    if volumes and infos[0].bands == 1 and _lowest(folder / paths[0]) >= 0:
        keys["scale"], reasons["scale"] = (
            "item",
            "volumes without negative values, as of MR, have no common unit",
        )
    return Headers(keys, reasons, bands == {1}, positioned)


def _infos(folder: Path, paths: Sequence[str], pages: str | None) -> tuple[list[Info], list[DataError]]:
    infos, problems = [], []
    for path in spread(paths, _READ):
        try:
            with images.open_source(folder / path, "auto", pages) as source:
                infos.append(source.info)
        except DataError as error:
            problems.append(error)
    return infos, problems


def _lowest(path: Path) -> float:
    try:
        raster = images.read(path)
    except DataError:
        return -1.0
    return float(raster.pixels[:, raster.valid].min(initial=0))


def by_place(folder: Path, paths: Sequence[str]) -> tuple[str, int] | None:
    """The group `{cell:SIZE}` of two by two tiles, and their number, if images are tiles that touch; else None."""
    if not 1 < len(paths) <= _PLACES:
        return None
    infos = _infos(folder, paths, None)[0] if len(paths) <= _READ else _all(folder, paths)
    tiles = [(i.transform, i.height, i.width, i.crs) for i in infos if i.transform and i.crs]
    if len(tiles) < len(paths) or len({(h, w, crs) for _, h, w, crs in tiles}) > 1:
        return None
    height, width = tiles[0][1], tiles[0][2]
    a, _, _, _, e, _ = tiles[0][0]
    side = abs(a) * width
    corners = np.array([(t[2] / (abs(a) * width), t[5] / (abs(e) * height)) for t, *_ in tiles])
    steps = np.abs(corners[:, None] - corners[None])
    touching = (np.abs(steps.max(axis=2) - 1) < 0.1) & (steps.min(axis=2) < 0.1)
    if touching.any(axis=1).mean() < 0.5:
        return None
    size = Decimal(f"{_TILES * side:.2g}")
    degrees = in_degrees(tiles[0][3])
    cells = {cell_name(t, h, w, size, degrees) for t, h, w, _ in tiles}
    return f"{{cell:{size:f}}}", len(cells)


def _all(folder: Path, paths: Sequence[str]) -> list[Info]:
    infos = []
    for path in paths:
        try:
            with images.open_source(folder / path) as source:
                infos.append(source.info)
        except DataError:
            continue
    return infos
