"""A packed item contains what was written, in any order of windows, and is an ordinary safetensors file."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from segcore.data.packed import Packed, PackedWriter
from segcore.errors import DataError


def test_windows_may_be_written_in_any_order_and_any_safetensors_reader_reads_the_file(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60_000, (2, 50, 41, 3)).astype(np.uint16)
    labels = rng.integers(0, 5, (2, 50, 41)).astype(np.uint8)
    shapes = {name: (a.dtype, a.shape) for name, a in (("labels", labels), ("pixels", pixels))}
    windows = [(r, c, min(16, 50 - r), min(20, 41 - c)) for r in range(0, 50, 16) for c in range(0, 41, 20)]
    with PackedWriter(tmp_path / "x.safetensors", shapes) as out:
        for plane in (1, 0):
            for row, col, height, width in reversed(windows):
                part = (plane, slice(row, row + height), slice(col, col + width))
                out.write("pixels", (plane,), (row, col, height, width), pixels[part])
                out.write("labels", (plane,), (row, col, height, width), labels[part])
    packed, other = Packed(tmp_path / "x.safetensors"), load_file(tmp_path / "x.safetensors")
    for name, expected in (("pixels", pixels), ("labels", labels)):
        assert np.array_equal(packed.array(name), expected) and np.array_equal(other[name], expected)
    assert np.array_equal(packed.rows("pixels", (1,), 45, 16), pixels[1, 45:])


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x10" + b"\0" * 7 + b"{]" + b" " * 14])
def test_a_damaged_file_is_named_with_a_remedy(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(
        DataError, match=r"x.safetensors: is missing or damaged[\s\S]*run the step ingest again"
    ):
        Packed(tmp_path / "x.safetensors")
