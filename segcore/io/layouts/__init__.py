"""One file a layout of data sets: `find(data, folder) -> list[Item]`; nothing is read but names and lists."""

from pathlib import Path

from segcore import plugins
from segcore.errors import DataError
from segcore.io.layouts._item import Item
from segcore.params.data import Data


def names() -> list[str]:
    """Known layouts, sorted: the files of this folder."""
    return list(plugins.names(__name__))


def find(data: Data, folder: Path) -> list[Item]:
    """Items of the source in the order of their ids, with problems of pairing noted in them.

    Raises:
        DataError: no such folder, no image in it, or an unknown layout.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder",
            "set data.source in params.yaml to the folder of your images",
            kind="no-folder",
        )
    layout = "listing" if data.listing else data.layout
    if layout not in names():
        raise DataError(
            f"data.layout {layout!r} is unknown", f"choose one of {', '.join(names())}", kind="no-layout"
        )
    items: list[Item] = plugins.load(__name__, layout).find(data, folder)
    return sorted(items, key=lambda item: item.id)


def stray_masks(data: Data, folder: Path, used: set[str]) -> list[Path]:
    """Masks without an image, relative to the folder; none where one file holds the ground truth of many images."""
    if data.listing or data.layout != "pairs":
        return []
    from segcore.io.layouts.pairs import mask_files

    return [path for path in mask_files(data, folder) if path.as_posix() not in used]
