"""Names of files that are no items: system files, archives, and files beside an image."""

import unicodedata
from collections.abc import Collection
from pathlib import Path, PurePosixPath

_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_JUNK = ("thumbs.db", "desktop.ini", "__macosx")
# files beside an image that affect how it is read: of GDAL, and world files, whose ending is that of the image and w
_SIDE_FILES = (
    *(".aux.xml", ".aux", ".rrd", ".ige", ".msk", ".ovr", ".prj", ".tab", ".rpb", "_rpc.txt"),
    *(".wld", ".tfw", ".tifw", ".tiffw", ".pgw", ".pngw", ".jgw", ".jpgw", ".jpegw", ".j2w", ".jp2w", ".gfw"),
    *(".gifw", ".bpw", ".bmpw", ".wpw", ".webpw", ".pmw", ".ppmw", ".pgmw"),
)
# files beside an image that do not affect how it is read: styles, projects, metadata, attribute tables and locks
_METADATA = (
    *(
        ".qml",
        ".qmd",
        ".qgs",
        ".qgz",
        ".qlr",
        ".sld",
        ".lyr",
        ".lyrx",
        ".mxd",
        ".clr",
        ".stx",
        ".xmp",
        ".imd",
    ),
    *(".vat.dbf", ".vat.cpg", ".cpg", ".lock", ".tif.xml", ".tiff.xml", ".img.xml"),
)
# data of .mhd and .nhdr files of the same stem
DATA_FILES = (".raw", ".zraw", ".raw.gz", ".raw.bz2")


def is_junk(name: str, component: str = "") -> bool:
    """Whether to skip a file or folder: system files, files beside an image, its metadata, and hidden ones.

    Args:
        name: of the file or folder.
        component: of the pattern; hidden files are kept if it starts with a dot.
    """
    hidden = name.startswith(".") and not (component.startswith(".") and not name.startswith("._"))
    return hidden or name.lower() in _JUNK or is_side_file(name) or name.lower().endswith(_METADATA)


def is_side_file(name: str) -> bool:
    """Whether a file is no item but belongs to an image beside it, such as a world file."""
    return name.lower().endswith(_SIDE_FILES)


def is_data_of_header(name: str, names: Collection[str]) -> bool:
    """Whether a file has the data of a .mhd or .nhdr file beside it.

    Args:
        name: of the file.
        names: in its folder.
    """
    ending = next((ending for ending in DATA_FILES if name.lower().endswith(ending)), None)
    return ending is not None and any(name[: -len(ending)] + header in names for header in (".mhd", ".nhdr"))


def is_archive(name: str) -> bool:
    """Whether a name has the extension of an archive; .nii.gz does not count."""
    return name.lower().endswith(_ARCHIVES) and not name.lower().endswith(".nii.gz")


def printable(path: PurePosixPath | Path | str) -> str:
    """A path as text that is safe to print: control characters and undecodable bytes are escaped."""
    text = str(path)
    return text if text.isprintable() else "".join(c if is_safe(c) else ascii(c)[1:-1] for c in text)


def is_safe(character: str) -> bool:
    """Whether a character can be printed: no control character, line separator or undecodable byte."""
    return unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")
