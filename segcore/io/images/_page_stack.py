"""A TIFF of several pages, which are opened as they are read."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from segcore.data.raster import Raster, Window
from segcore.errors import DataError
from segcore.io.images._dataset import Dataset
from segcore.io.images._gdal import environment, failures, open_dataset, quiet
from segcore.io.images._nodata import is_nodata
from segcore.io.images._pages import Stack
from segcore.io.images._tiff_tags import directories

# Pages that are kept open.
_OPEN_PAGES = 16


class PageStack:
    """An open TIFF of several pages, which are opened as they are read.

    Args:
        path: of the file.
        first: its first page.
        stack: the pages of each plane.
        wanted: bands that are data by the user's settings; None: not set; LABELS: it is a mask.
    """

    def __init__(self, path: Path, first: Dataset, stack: Stack, wanted: Sequence[int] | None) -> None:
        self._path, self._first, self._planes = path, first, stack.planes
        self._wanted = None if wanted and len(stack.planes[0]) > 1 else wanted
        # GDAL would go through all directories before a page that is given by its number.
        self._offsets = [offset for offset, _ in directories(path)]
        self._opened: dict[int, tuple[Dataset, ExitStack]] = {}
        notes = (*first.info.notes, ("pages-read", stack.text))
        bands = first.info.bands * len(stack.planes[0])
        self.info = replace(
            first.info, depth=len(stack.planes), bands=bands, notes=notes, is_stack=len(stack.planes) > 1
        )

    def read(self, window: Window | None = None, plane: int = 0) -> Raster:
        """Pixels (bands, height, width) of a window of a plane, valid as in a file of one page.

        Raises:
            DataError: a page is damaged, or of another size or type than the first.
        """
        pages = [self._page(number) for number in self._planes[plane]]
        if len(pages) == 1:
            return replace(pages[0].read(window), info=self.info)
        parts = [page.values(window) for page in pages]
        pixels = np.concatenate([part[0] for part in parts])
        nodata = is_nodata(pixels, [n for page in pages for n in page.nodata])
        return Raster(pixels, np.all([part[1] for part in parts], axis=0) & ~nodata, self.info)

    def _page(self, number: int) -> Dataset:
        if number in self._opened:
            return self._opened[number][0]
        while len(self._opened) >= max(_OPEN_PAGES, len(self._planes[0])):
            self._opened.pop(next(iter(self._opened)))[1].close()
        place = f"off:{self._offsets[number - 1]}" if number <= len(self._offsets) else str(number)
        name = f"GTIFF_DIR:{place}:{self._path.absolute()}"
        with environment(), ExitStack() as opening:
            source = opening.enter_context(open_dataset(name, self._path, "GTiff"))
            with failures(self._path), quiet():
                page = Dataset(self._path, source, self._wanted, self._first.tags, self._first.alpha)
            is_like = [(i.height, i.width, i.dtype, i.bands) for i in (page.info, self._first.info)]
            if is_like[0] != is_like[1]:
                raise DataError(
                    f"{self._path.name}: page {number} differs from the first in size, bands or data type",
                    "save pages of one size and type in one file",
                    kind="pages",
                )
            self._opened[number] = (page, opening.pop_all())
        return page

    def close(self) -> None:
        """Close all pages."""
        for _, opened in self._opened.values():
            opened.close()
        self._opened.clear()
