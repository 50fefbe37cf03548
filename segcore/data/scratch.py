"""Arrays in temporary files, for what is larger than memory."""

import math
import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


class ScratchArray:
    """An array of zeros in a temporary file without a name, which is deleted with its last reference.

    Args:
        shape: of the array.
        dtype: of its values.
        folder: of the file; None: in memory.

    Attributes:
        values: the array.

    Raises:
        OSError: the disk has too little room.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, folder: Path | None) -> None:
        self._file: mmap.mmap | None = None
        if folder is None:
            self.values: np.ndarray = np.zeros(shape, dtype)
            return
        size = np.dtype(dtype).itemsize * math.prod(shape)
        with tempfile.TemporaryFile(dir=folder) as file:
            # a full disk is an error here, and would be a signal when the mapped memory is written
            os.posix_fallocate(file.fileno(), 0, size)
            self._file = mmap.mmap(file.fileno(), size)
        self.values = np.frombuffer(self._file, dtype).reshape(shape)

    def free_memory(self) -> None:
        """Take the pages of the file out of this process, which would keep all that it ever used."""
        if self._file is not None:
            self._file.madvise(mmap.MADV_DONTNEED)
