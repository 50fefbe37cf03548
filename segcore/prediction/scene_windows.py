"""Windows of a scene: how they are read, how wide panels of them are, and their blending by a semantic network."""

from collections.abc import Callable
from contextlib import closing
from typing import Protocol

import numpy as np

from segcore.data.prepared import neighbouring_planes
from segcore.data.raster import Info, Window
from segcore.io.bands import Declared
from segcore.prediction import mosaic
from segcore.prediction.resampling import Resampled
from segcore.prediction.strips import ahead, strips_of_planes

# reads a window of a plane: pixels (C, H, W) and validity (H, W)
ReadPlane = Callable[..., tuple[np.ndarray, np.ndarray]]
_PANEL_BYTES = 32_000_000
# width of a panel if the file's blocks are whole rows, which can only be decoded as a whole
_STRIPED_COLUMNS = 16_384


class BlockWriter(Protocol):
    """What takes finished blocks."""

    def put(self, block: mosaic.Block) -> None:
        """Take a block."""


def reader_of(scene: Declared | Resampled, neighbours: int) -> ReadPlane:
    """A function that reads a window as the model's input, with neighbouring planes if trained with them.

    Args:
        scene: as it is read.
        neighbours: planes on each side, as of `data.neighbours`.
    """
    if not neighbours:
        return scene.read
    apart = scene.plane_step if isinstance(scene, Resampled) else 1.0

    def read(window: Window, plane: int = 0) -> tuple[np.ndarray, np.ndarray]:
        planes = neighbouring_planes(plane, neighbours, scene.info.depth, apart)
        rasters = {index: scene.read(window, index) for index in set(planes)}
        return np.concatenate([rasters[index][0] for index in planes]), rasters[plane][1]

    return read


def panel_columns(info: Info, channels_per_band: int, tile: int, outputs: int) -> int:
    """Width of a panel in pixels, such that it fits into a fixed amount of memory.

    Args:
        info: of the scene as it is read.
        channels_per_band: of the model's input.
        tile: height of the panel in pixels.
        outputs: scores per pixel.
    """
    if info.block and info.block[1] >= info.width:
        return _STRIPED_COLUMNS
    bytes_per_pixel = 3 * info.bands * channels_per_band * np.dtype(info.dtype).itemsize + 8 * outputs
    return _PANEL_BYTES // (tile * bytes_per_pixel)


def blend_windows(
    blending: mosaic.Mosaic,
    depth: int,
    read: ReadPlane,
    writer: BlockWriter,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Predict all planes of a scene, and pass the blended blocks on.

    Args:
        blending: of a plane.
        depth: number of planes.
        read: reads windows as the model's input.
        writer: of the blocks.
        progress: called with the number of windows done and their total.

    Raises:
        DataError: from `read`.
    """
    done, total = 0, len(blending.grid) * depth
    strips = strips_of_planes(blending.grid, depth, read)
    with (
        closing(strips),
        closing(ahead(strips)) as upcoming,
        closing(blending.blocks(upcoming, depth)) as blocks,
    ):
        for block in blocks:
            writer.put(block)
            done += block.windows
            progress(done, total)
