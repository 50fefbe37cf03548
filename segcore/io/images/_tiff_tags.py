"""Tags of the first directory of a TIFF that GDAL does not hand out."""

from pathlib import Path
from typing import Any

EXTRA_SAMPLES, NODATA = 338, 42113
_BIG_TIFF = 43


def tag(path: Path, number: int) -> Any:
    """Value of a tag: text, a number or several; None where it is missing or the directory is damaged."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    try:
        with path.open("rb") as file:
            header = file.read(8)
            if _BIG_TIFF in header[2:4]:
                header += file.read(8)
            directory: Any = ImageFileDirectory_v2(header)
            file.seek(directory.next)
            directory.load(file)
            return directory.get(number)
    # What Pillow raises on damaged directories; GDAL reports the damage when it reads the file.
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError):
        return None
