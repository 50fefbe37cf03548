"""What the pages of a TIFF are: planes of a stack or channels, by data.pages, OME-XML or the metadata of ImageJ.

Reduced copies (pyramids, thumbnails) and transparency masks are no pages. A page is named by its number, from 1.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from xml.etree import ElementTree

from segcore.errors import DataError
from segcore.io.images._tiff_tags import REDUCED, SUBFILE_TYPE, Tag

_DESCRIPTION = re.compile(r"\((\d+)P x (\d+)L x (\d+)B\)")
_NUMBER = re.compile(r"GTIFF_DIR:(\d+):")


@dataclass(frozen=True)
class Stack:
    """Pages of a file in their order.

    Attributes:
        planes: page numbers of each plane, one per channel.
        text: what was read as what, for the note.
    """

    planes: list[list[int]]
    text: str


def stack_of(
    path: Path, tags: Mapping[int, Tag], names: dict[str, str], description: str, pages: str | None, room: int
) -> Stack | None:
    """The pages of a file as a stack; None for a file of one page.

    Args:
        path: of the file, for errors.
        tags: from `first_tags`.
        names: GDAL's metadata of subdatasets.
        description: ImageDescription of the first page.
        pages: data.pages: "planes" or "channels"; None: what the file says.
        room: number of images as large as the first page, uncompressed, that the file can hold.

    Raises:
        DataError: of kind "pages": it has several pages, and neither it nor `pages` says what they are; or they
            differ in size.
    """
    numbers = [int(n) for key, name in names.items() if "_NAME" in key for n in _NUMBER.findall(name)]
    declared = _declared(description)
    if len(numbers) < 2:
        if int((*tags.get(SUBFILE_TYPE, ()), 0)[0]) & REDUCED:
            raise _error(
                path,
                "its first page is a reduced copy of another page (a thumbnail)",
                "save the full image as the first page, such as GTIFF_DIR:2:FILE with gdal_translate",
            )
        if declared is not None and declared.program == "ImageJ" and 1 < declared.images <= room:
            raise _error(
                path,
                f"has {declared.images} images behind one page, as ImageJ writes files of more than 4 GB",
                "save it as OME-TIFF (Bio-Formats Exporter), or in parts of less than 4 GB",
            )
        return None
    _check_sizes(path, [size for size in names.values() if _DESCRIPTION.search(size)])
    count = len(numbers)
    fits = declared is not None and len(declared.order) == count and set(declared.order) == set(range(count))
    # What the file says of both axes is more than the setting, which names one.
    if declared is not None and fits and pages in (None, "planes" if declared.planes > 1 else "channels"):
        channels = count // declared.planes
        planes = [
            [numbers[page] for page in declared.order[i : i + channels]] for i in range(0, count, channels)
        ]
        return Stack(planes, _text(count, declared.planes, channels, declared.program))
    if pages == "planes":
        return Stack([[number] for number in numbers], _text(count, count, 1, "data.pages"))
    if pages == "channels":
        return Stack([numbers], _text(count, 1, count, "data.pages"))
    what = f"has {count} pages"
    if declared is not None:
        what += f", but {declared.program} declares {declared.images} images"
    raise _error(
        path,
        what,
        "set data.pages to planes (they are planes of a stack, or times) or to channels (they are bands of one image)",
    )


def _error(path: Path, what: str, remedy: str) -> DataError:
    return DataError(f"{path.name}: {what}", remedy, kind="pages")


def _text(count: int, planes: int, channels: int, by: str) -> str:
    read = [f"{planes} planes"] * (planes > 1) + [f"{channels} channels"] * (channels > 1)
    return f"{count} pages are read as {' of '.join(read)}, by {by}"


def _check_sizes(path: Path, descriptions: list[str]) -> None:
    sizes = [match.groups() for text in descriptions if (match := _DESCRIPTION.search(text))]
    odd = next((i for i, size in enumerate(sizes) if size != sizes[0]), None)
    if odd is None:
        return
    texts = ["{1} x {0} pixels of {2} bands".format(*sizes[i]) for i in (0, odd)]
    raise _error(
        path,
        f"its pages differ: the first has {texts[0]}, page {odd + 1} has {texts[1]}",
        "save pages of one size in one file; reduced copies need the mark of a pyramid (gdaladdo writes it)",
    )


@dataclass(frozen=True)
class _Declared:
    """What a file's metadata says of its pages.

    Attributes:
        program: that wrote the metadata.
        planes: number of planes.
        images: number of pages that are declared.
        order: pages from 0, plane by plane and channel by channel; empty if they are not all in this file.
    """

    program: str
    planes: int
    images: int
    order: list[int]


def _declared(description: str) -> _Declared | None:
    if description.startswith("ImageJ="):
        return _imagej(description)
    try:
        return _ome(description) if "OME" in description[:2000] else None
    except ValueError:
        return None


def _imagej(description: str) -> _Declared | None:
    """Metadata of ImageJ: channels follow each other, then slices, then frames."""
    found = {
        key: int(n) for key, n in re.findall(r"^(images|channels|slices|frames)=(\d+)\s*$", description, re.M)
    }
    images, channels = found.get("images", 1), found.get("channels", 1)
    if images < 1 or channels < 1:
        return None
    order = list(range(images)) if images % channels == 0 else []
    return _Declared("ImageJ", max(images // channels, 1), images, order)


def _ome(description: str) -> _Declared | None:
    # Entities can expand to gigabytes, and OME-XML needs none.
    if "<!DOCTYPE" in description.upper() or "<!ENTITY" in description.upper():
        return None
    try:
        root = ElementTree.fromstring(description.strip("\0 \r\n\t").encode())
    except ElementTree.ParseError:
        return None
    found = [element for element in root.iter() if _name(element) == "Pixels"]
    if not found:
        return None
    sizes = {axis: int(found[0].get(f"Size{axis}", "1")) for axis in "ZCT"}
    channels = [e for e in found[0] if _name(e) == "Channel"]
    samples = [int(e.get("SamplesPerPixel", "1")) for e in channels]
    if samples and sum(samples) == sizes["C"]:
        sizes["C"] = len(samples)
    elif samples and sizes["C"] % samples[0] == 0:
        sizes["C"] //= samples[0]
    images = prod(sizes.values())
    # Pages of several images (a label, an overview) are no stack.
    pages = dict(_ome_pages(found[0], sizes)) if len(found) == 1 and 0 < images <= 2**20 else {}
    wanted = product(range(sizes["T"]), range(sizes["Z"]), range(sizes["C"]))
    order = [pages[key] for key in wanted] if len(pages) == images else []
    return _Declared("OME-XML", sizes["T"] * sizes["Z"], images * len(found), order)


def _name(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _ome_pages(pixels: ElementTree.Element, sizes: dict[str, int]) -> Iterator[tuple[tuple[int, ...], int]]:
    """((t, z, c), page from 0) of each plane in this file."""
    # Fastest axis first, as in "XYZCT".
    axes = [axis for axis in pixels.get("DimensionOrder", "XYCZT") if axis in sizes]
    if sorted(axes) != ["C", "T", "Z"]:
        return
    every = list(product(*(range(sizes[axis]) for axis in axes[::-1])))
    # Indices in the order of "TZC".
    places = [tuple(dict(zip(axes[::-1], index, strict=True))[axis] for axis in "TZC") for index in every]
    blocks = [e for e in pixels if _name(e) == "TiffData"]
    if not blocks:
        yield from zip(places, range(len(places)), strict=True)
    uuid = {child.get("FileName", "") for block in blocks for child in block if _name(child) == "UUID"}
    if len(uuid) > 1:
        return
    for block in blocks:
        given = {key: int(value) for key, value in block.attrib.items() if value.isdecimal()}
        start = places.index(tuple(given.get(f"First{axis}", 0) for axis in "TZC"))
        first = given.get("IFD", 0)
        count = given.get("PlaneCount", 1 if "IFD" in given else len(places))
        for offset, place in enumerate(places[start : start + count]):
            yield place, first + offset
