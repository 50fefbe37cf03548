"""Colour table of 3D Slicer beside a predicted volume, so that its labels have names and colours."""

from collections.abc import Sequence
from pathlib import Path

from segcore.constants import IGNORE
from segcore.files import atomic_write


def write_color_table(
    path: Path, names: Sequence[str], colors: Sequence[Sequence[int]], foreground: Sequence[int]
) -> None:
    """Write one line per class: index, name, red, green, blue and opacity, 0 to 255.

    Classes that are not foreground, and voxels without data, are transparent. Slicer separates the columns by spaces,
    writes names with underscores in place of spaces, and shows each underscore of a file as a space.

    Args:
        path: .ctbl, replaced atomically.
        names: of the classes.
        colors: red, green and blue of each class.
        foreground: indices of the classes that are shown.

    Raises:
        DataError: the disk is full or not writable.
    """
    rows = [
        (index, "_".join(name.split()) or str(index), *map(int, color), 255 * (index in foreground))
        for index, (name, color) in enumerate(zip(names, colors, strict=True))
    ]
    # without it, Slicer shows these voxels in the colour of the last class
    rows.append((IGNORE, "no_data", 0, 0, 0, 0))
    lines = ["# index name red green blue opacity", *(" ".join(map(str, row)) for row in rows)]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
