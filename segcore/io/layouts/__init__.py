"""One module per data set layout, with `find(data, folder) -> list[Item]`; only file names and lists are read."""

from pathlib import Path, PurePosixPath

from segcore import plugins
from segcore.errors import DataError
from segcore.io.layouts._item import Item
from segcore.params.data import Data

# Kind of note, path relative to the source folder, and text.
Stray = tuple[str, Path, str]


def names() -> list[str]:
    """Names of the layouts, sorted: the modules of this folder."""
    return list(plugins.names(__name__))


def find(data: Data, folder: Path) -> list[Item]:
    """Items of the source folder, sorted by id; problems of pairing are stored in them.

    Raises:
        DataError: the folder does not exist or has no image, or the layout is unknown.
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


def strays(data: Data, folder: Path, used: set[str]) -> list[Stray]:
    """Masks without an image, and images whose extension is spelled otherwise than in data.images.

    Empty for layouts other than `pairs`.

    Args:
        data: the data section of params.yaml.
        folder: the source folder.
        used: relative paths of the masks of all items.

    Returns:
        Kind of note, path relative to the folder, and text of each.
    """
    if data.listing or data.layout != "pairs":
        return []
    from segcore.io.layouts import _spelling
    from segcore.io.layouts._files import Folder
    from segcore.io.layouts.pairs import mask_files

    source = Folder(folder, data.links_to)
    spelled = [match for match in _spelling.other_spellings(data, source) if str(match.path) not in used]
    images = {Path(match.path) for match in spelled}
    masks = [path for path in mask_files(data, folder) if path.as_posix() not in used and path not in images]
    texts = [_spelling.image_of(PurePosixPath(path), data, spelled) for path in masks]
    found = [("mask-without-image", path, text) for path, text in zip(masks, texts, strict=True)]
    return found + _spelling.notes(data, spelled)
