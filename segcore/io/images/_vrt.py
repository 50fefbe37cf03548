"""Validates VRT files: only mosaics of GeoTIFFs in the VRT's folder tree are allowed.

A VRT can refer to any file or address, nest other data sets and contain Python code. GDAL therefore never opens the
file itself, but XML that is rebuilt from the parsed elements, with every source as a checked absolute path.
"""

import re
from pathlib import Path
from xml.etree import ElementTree

from segcore.errors import DataError
from segcore.io.images._checks import RESTORE, check_file, unreadable
from segcore.io.images._tiff_tags import pages

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PAGE = re.compile(r"GTIFF_DIR:(off:)?\d+:")
_MOST_BYTES = 2**26
_SOURCES = {"simplesource", "complexsource", "averagedsource", "kernelfilteredsource", "nodatasource"}
# Elements that cannot refer to anything outside the folder; any other element is refused.
_ALLOWED = {
    *("vrtdataset", "srs", "geotransform", "metadata", "mdi", "vrtrasterband", "description", "nodatavalue"),
    *("hidenodatavalue", "colorinterp", "colortable", "entry", "offset", "scale", "unittype", "category"),
    *("categorynames", "histograms", "histitem", "histmin", "histmax", "bucketcount", "includeoutofrange"),
    *("approximate", "histcounts", "maskband", "overviewlist", "gcplist", "gcp", "blockxsize", "blockysize"),
    *("sourcefilename", "sourceband", "sourceproperties", "srcrect", "dstrect", "nodata", "usemaskband"),
    *("scaleoffset", "scaleratio", "lut", "colortablecomponent", "exponent", "srcmin", "srcmax", "dstmin"),
    *("dstmax", "clamp", "kernel", "size", "coefs", "resampling", *_SOURCES),
}


def _refuse(path: Path, what: str) -> DataError:
    return DataError(
        f"{path.name}: {what}",
        "use a VRT that only mosaics GeoTIFFs in its folder or below (gdalbuildvrt), or a GeoTIFF (gdal_translate)",
        kind="outside",
    )


def _parsed(path: Path) -> ElementTree.Element:
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(
            f"{path.name}: is a VRT of {path.stat().st_size} bytes, more than {_MOST_BYTES}",
            RESTORE,
            kind="too-large",
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        # Entities can expand to gigabytes or read other files, and a VRT needs none.
        if "<!DOCTYPE" in text.upper() or "<!ENTITY" in text.upper():
            raise _refuse(path, "declares XML entities")
        root = ElementTree.fromstring(text)
    except (OSError, UnicodeError, ElementTree.ParseError, ValueError) as error:
        raise unreadable(path, error) from error
    if root.tag != "VRTDataset":
        raise DataError(f"{path.name}: is not a VRT but <{root.tag[:40]}>", RESTORE, kind="unreadable")
    return root


def _source(path: Path, element: ElementTree.Element) -> tuple[Path, str]:
    """The file that a SourceFilename refers to, checked, and the page that it names, such as "GTIFF_DIR:2:".

    Raises:
        DataError: it is outside the VRT's folder tree, missing, not a GeoTIFF, or of several pages of which none is
            named.
    """
    whole = (element.text or "").strip()
    page = _PAGE.match(whole)
    prefix = page[0] if page else ""
    text = whole.removeprefix(prefix)
    folder = path.resolve().parent
    try:
        target = (folder / text).resolve()
        inside = target.is_relative_to(folder) and "://" not in text and not text.startswith(("/vsi", "<"))
        exists = inside and bool(text) and target.is_file()
    # RuntimeError: a loop of links
    except (OSError, ValueError, RuntimeError):
        inside, exists = False, False
    if not inside:
        raise _refuse(path, f"refers to {text[:200]!r}, outside its folder")
    if not exists:
        raise DataError(
            f"{path.name}: its source {text[:200]} is missing",
            "add that file, or build the mosaic again with gdalbuildvrt",
            kind="unreadable",
        )
    check_file(target)
    with target.open("rb") as file:
        if file.read(4) not in _TIFF:
            raise _refuse(path, f"its source {text[:200]} is not a GeoTIFF")
    if not prefix and (count := pages(target)) > 1:
        raise DataError(
            f"{path.name}: its source {text[:200]} has {count} pages, of which a VRT reads the first alone",
            f"name a page of each source in the VRT, such as GTIFF_DIR:1:{text[:200]}, or use the TIFF itself",
            kind="pages",
        )
    return target, prefix


def local_vrt(path: Path) -> tuple[str, list[Path]]:
    """A VRT's XML with absolute paths, for GDAL to open, and its source files, sorted.

    Raises:
        DataError: it is not a VRT, refers to a file that is missing or outside its folder tree, or does more than
            mosaic GeoTIFFs (kind "outside").
    """
    root = _parsed(path)
    files = set()
    for element in root.iter():
        name = str(element.tag).lower()
        if name not in _ALLOWED:
            raise _refuse(path, f"has <{str(element.tag)[:60]}>, which is not allowed")
        sub = next((v for k, v in element.attrib.items() if k.lower() == "subclass"), "VRTSourcedRasterBand")
        if sub != "VRTSourcedRasterBand":
            raise _refuse(path, f"is or contains a {sub[:60]}, which is not allowed")
        # GDAL reads attributes like elements: <SimpleSource SourceFilename="...">.
        if any(k.lower().endswith(("filename", "dataset", "source")) for k in element.attrib):
            raise _refuse(path, f"has an attribute of <{element.tag}> that is not allowed")
        if name == "sourcefilename":
            source, page = _source(path, element)
            files.add(source)
            element.text = f"{page}{source}"
            element.attrib = {"relativeToVRT": "0", "shared": element.attrib.get("shared", "1")}
    return ElementTree.tostring(root, encoding="unicode"), sorted(files)
