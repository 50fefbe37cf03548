"""A packed item: one safetensors file, written window by window and read by memory map.

Training reads crops of it without decoding, and any tool that reads safetensors can open it.
"""

import json
import os
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from segcore.data.raster import Window
from segcore.errors import DataError

# dtype names of the safetensors format
_NAMES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
}
_DTYPES = {name: np.dtype(dtype) for dtype, name in _NAMES.items()}
Shapes = dict[str, tuple[np.dtype, tuple[int, ...]]]


def can_hold(dtype: str) -> bool:
    """Whether values of this numpy dtype can be packed."""
    return dtype in _NAMES


def sample_step(height: int, width: int) -> int:
    """Distance of samples in pixels: at most 64 samples along the longer side, 512 for large scenes."""
    side = max(height, width)
    return max(1, -(-side // min(max(side // 8, 64), 512)))


def sample_shape(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the even sample of a plane."""
    step = sample_step(height, width)
    return -(-height // step), -(-width // step)


def _contiguous(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The same values in C order; bands are copied one by one, which is five times as fast in numpy."""
    if values.ndim < 3 or values.flags.c_contiguous:
        return np.ascontiguousarray(values, dtype)
    packed = np.empty(values.shape, dtype)
    for band in range(values.shape[-1]):
        packed[..., band] = values[..., band]
    return packed


class PackedWriter:
    """Writes the tensors of a new file window by window, in any order; only one window is in memory.

    Args:
        path: new file.
        shapes: dtype and shape of each tensor by name.
    """

    def __init__(self, path: Path, shapes: Shapes) -> None:
        # wide values first, so that every tensor begins at a multiple of its item size
        self.shapes = dict(sorted(shapes.items(), key=lambda s: (-s[1][0].itemsize, s[0])))
        header: dict[str, Any] = {"__metadata__": {"writer": "segflow packed 1"}}
        self.offsets, end = {}, 0
        for name, (dtype, shape) in self.shapes.items():
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            header[name] = {
                "dtype": _NAMES[dtype.name],
                "shape": list(shape),
                "data_offsets": [end, end + size],
            }
            self.offsets[name], end = end, end + size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        start = len(text) + 8
        self.offsets = {name: offset + start for name, offset in self.offsets.items()}
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        os.truncate(self._file, start + end)
        os.pwrite(self._file, len(text).to_bytes(8, "little") + text, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def write(self, name: str, lead: tuple[int, ...], window: Window, values: np.ndarray) -> None:
        """Write values (h, w, ...) to a window of a plane.

        Args:
            name: of the tensor.
            lead: indices before height and width, which select the plane.
            window: row, column, height, width in pixels.
            values: of the window.
        """
        dtype, shape = self.shapes[name]
        values = _contiguous(values, dtype)
        height, width = shape[len(lead) : len(lead) + 2]
        pixel = int(np.prod(shape[len(lead) + 2 :], dtype=np.int64)) * dtype.itemsize
        plane = int(np.ravel_multi_index(lead, shape[: len(lead)])) if lead else 0
        row, col, rows, cols = window
        start = self.offsets[name] + (plane * height * width + row * width + col) * pixel
        if cols == width:
            self._put(values.data.cast("B"), start)
            return
        for index in range(rows):
            self._put(values[index].data.cast("B"), start + index * width * pixel)

    def _put(self, content: memoryview, offset: int) -> None:
        while content:
            done = os.pwrite(self._file, content, offset)
            content, offset = content[done:], offset + done


class Packed:
    """Read access to a packed item.

    Attributes:
        shapes: dtype and shape of each tensor by name.

    Raises:
        DataError: the file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                header = json.loads(stream.read(length) if length < 2**20 else b"")
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path.name}: is missing or damaged ({error})",
                "restore the file, or run the step ingest again",
            ) from error
        header.pop("__metadata__", None)
        self.shapes: Shapes = {n: (_DTYPES[e["dtype"]], tuple(e["shape"])) for n, e in header.items()}
        self._offsets = {n: 8 + length + e["data_offsets"][0] for n, e in header.items()}

    @cached_property
    def _map(self) -> np.memmap:
        return np.memmap(self.path, np.uint8, "r")

    def array(self, name: str) -> np.ndarray:
        """A tensor as a view of the mapped file."""
        dtype, shape = self.shapes[name]
        return np.ndarray(shape, dtype, self._map, self._offsets[name])

    def sample_mask(self, plane: int, regions: Iterable[Any]) -> np.ndarray:
        """(h, w) bool, True for valid pixels of a plane's even sample that are in any of the regions.

        Args:
            plane: index of the plane.
            regions: objects with `row`, `col`, `height` and `width` in pixels of the plane.
        """
        step = sample_step(*self.shapes["labels"][1][1:])
        valid: np.ndarray = self.array("sample_valid")[plane] > 0
        inside = np.zeros(valid.shape, dtype=bool)
        for region in regions:
            rows = slice(-(-region.row // step), -(-(region.row + region.height) // step))
            inside[rows, -(-region.col // step) : -(-(region.col + region.width) // step)] = True
        inside &= valid
        return inside

    def thinned(self, name: str, lead: tuple[int, ...], step: int) -> np.ndarray:
        """Every `step`-th row and column of a plane, read in strips, so that a large scene needs little memory."""
        height, width = self.shapes[name][1][len(lead) : len(lead) + 2]
        strip = max(step, 2**20 // max(width, 1) // step * step)
        # copies, because a view would keep its whole strip in memory
        parts = [self.rows(name, lead, row, strip)[::step, ::step].copy() for row in range(0, height, strip)]
        return np.concatenate(parts)

    def rows(self, name: str, lead: tuple[int, ...], first: int, count: int) -> np.ndarray:
        """Rows of a plane, read and not mapped, because mapped pages count as memory of the process."""
        height, width = self.shapes[name][1][len(lead) : len(lead) + 2]
        return self.window(name, lead, (first, 0, min(count, height - first), width))

    def window(self, name: str, lead: tuple[int, ...], window: Window) -> np.ndarray:
        """Values (h, w, ...) of a window of a plane, read and not mapped; other columns are not read."""
        dtype, shape = self.shapes[name]
        height, width, *rest = shape[len(lead) :]
        row, col, rows, cols = window
        pixel = int(np.prod(rest, dtype=np.int64)) * dtype.itemsize
        plane = int(np.ravel_multi_index(lead, shape[: len(lead)])) if lead else 0
        start = self._offsets[name] + ((plane * height + row) * width + col) * pixel
        runs, length = (1, rows * cols * pixel) if cols == width else (rows, cols * pixel)
        content = np.empty(runs * length, np.uint8)
        with self.path.open("rb", buffering=0) as stream:
            for run in range(runs):
                stream.seek(start + run * width * pixel)
                stream.readinto(content[run * length : (run + 1) * length].data)
        return content.view(dtype).reshape(rows, cols, *rest)


class PlaneRows:
    """A plane (H, W) of a tensor; slices of rows are read from disk, and the file is opened at the first read.

    Args:
        opened: returns the packed item.
        name: of the tensor.
        plane: index.
        shape: height and width in pixels.
    """

    def __init__(self, opened: Callable[[], Packed], name: str, plane: int, shape: tuple[int, int]) -> None:
        self._opened, self._name, self._plane, self.shape = opened, name, plane, shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(self.shape[0])
        return self._opened().rows(self._name, (self._plane,), first, last - first)
