"""Pictures of several frames: animated GIF, PNG and WebP, as planes of a stack or as channels."""

import numpy as np
from PIL import Image, ImageSequence

from segcore.data.raster import Info, Raster, Window
from segcore.errors import DataError

# modes whose values are kept if all frames have the same; all others become colours
_GREY = ("1", "L", "I;16")


def chosen_pages(name: str, what: str, pages: str | None) -> str:
    """What the pages or frames of a file are: "planes" or "channels".

    Args:
        name: of the file.
        what: its number of pages, such as "10 frames".
        pages: the setting data.pages.

    Raises:
        DataError: of kind "pages": the setting is null.
    """
    if pages is None:
        raise DataError(
            f"{name}: has {what}, and nothing in the file says whether they are planes of a stack or channels",
            "set data.pages: planes (a stack, time series or video) or data.pages: channels, or save each one that "
            "you need as a separate file",
            kind="pages",
        )
    return pages


class Frames:
    """A picture of several frames, all in memory.

    Frames of one grey mode keep their values; others become RGB, and one band again if every colour is grey.

    Args:
        image: the open picture, whose frames are decoded now.
        pages: "planes" or "channels".
    """

    def __init__(self, image: Image.Image, pages: str) -> None:
        frames = [frame.copy() for frame in ImageSequence.Iterator(image)]
        if {frame.mode for frame in frames} <= {frames[0].mode} and frames[0].mode in _GREY:
            grey = [frame.convert("L") if frame.mode == "1" else frame for frame in frames]
            pixels = np.stack([np.asarray(frame) for frame in grey])[:, None]
            self._valid = np.ones((len(frames), *pixels.shape[2:]), bool)
        else:
            colours = np.stack([np.asarray(frame.convert("RGBA")) for frame in frames])
            pixels, self._valid = np.moveaxis(colours[..., :3], -1, 1), colours[..., 3] > 0
            if (pixels == pixels[:, :1]).all():
                pixels = pixels[:, :1]
        if pages == "channels":
            pixels = pixels.reshape(1, -1, *pixels.shape[2:])
            self._valid = np.logical_and.reduce(self._valid, axis=0, keepdims=True)
        self._pixels = pixels
        depth, bands, height, width = pixels.shape
        note = ("pages-read", f"{len(frames)} frames are read as {pages}")
        dtype = pixels.dtype.name
        self.info = Info(
            height=height,
            width=width,
            bands=bands,
            dtype=dtype,
            depth=depth,
            is_stack=depth > 1,
            notes=(note,),
        )

    def read(self, window: Window | None = None, plane: int = 0) -> Raster:
        """Pixels (bands, height, width) of a window of a frame; transparent pixels are not valid."""
        row, column, height, width = window or (0, 0, self.info.height, self.info.width)
        area = (slice(row, row + height), slice(column, column + width))
        pixels = np.ascontiguousarray(self._pixels[plane][:, *area])
        return Raster(pixels, self._valid[plane][area].copy(), self.info)
