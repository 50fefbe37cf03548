"""A STAC item beside the outputs of a scene: place, time, model, and all files.

The item is of STAC 1.1 with the extensions projection, raster, classification and processing. Scenes without a position
on the earth get none, because catalogues of items are searched by place.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rasterio.crs import CRS

from segcore.class_colors import hex_color
from segcore.constants import IGNORE
from segcore.data.raster import Info
from segcore.errors import DataError
from segcore.files import atomic_write
from segcore.names import short_names
from segcore.prediction.footprint import footprint
from segcore.prediction.scene_reader import acquisition_time
from segcore.prediction.writers.cog import PROBABILITY_STEPS
from segcore.prediction.writers.placement import placement

ITEM_SUFFIX = ".stac.json"
_EXTENSION = "https://stac-extensions.github.io/{}/schema.json"
_EXTENSIONS = ("projection/v2.0.0", "raster/v2.0.0", "classification/v2.0.0", "processing/v1.1.0")
# key and title of an asset by the end of its file's name, without that of the scene
_ASSETS = {
    ".tif": ("classes", "Class of each pixel"),
    ".qml": ("classes-style", "QGIS style of the classes"),
    "_probabilities.tif": ("probabilities", "Probability of each class"),
    "_probabilities.qml": ("probabilities-style", "QGIS style of the probabilities"),
    "_confidence.tif": ("confidence", "Confidence in the class of each pixel"),
    "_confidence.qml": ("confidence-style", "QGIS style of the confidence"),
    ".gpkg": ("polygons", "Polygons of classes or objects"),
    "_objects.tif": ("objects", "Number of the object of each pixel"),
    ".json": ("coco", "Objects as COCO instances"),
    "_counts.csv": ("counts", "Number of objects by class"),
    "_zones.csv": ("zones-table", "Number of objects by zone and class"),
    "_zones.gpkg": ("zones", "Number of objects by zone and class, with the outlines of the zones"),
}
# media type and role by file extension
_TYPES = {
    ".tif": ("image/tiff; application=geotiff; profile=cloud-optimized", "data"),
    ".gpkg": ("application/geopackage+sqlite3", "data"),
    ".json": ("application/json", "data"),
    ".csv": ("text/csv", "data"),
    ".qml": ("application/xml", "style"),
}


def write_item(
    folder: Path,
    name: str,
    files: Sequence[str],
    info: Info,
    scene: Path,
    model: str,
    description: Mapping[str, Any],
) -> list[str]:
    """Write NAME.stac.json.

    Args:
        folder: of the outputs.
        name: prefix of their names.
        files: names of the outputs of the scene.
        info: of the scene.
        scene: its file, whose tags may have the time of acquisition.
        model: name of the folder of the bundle.
        description: model.json of the bundle.

    Returns:
        Name of the file; nothing for a volume, and for a scene that has no position on the earth.

    Raises:
        OSError: the disk is full or not writable.
    """
    place = placement(info)
    if place.crs is None or info.affine is not None or info.depth > 1:
        return []
    outline = footprint(place, info)
    if outline is None:
        return []
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [_EXTENSION.format(extension) for extension in _EXTENSIONS],
        "id": name,
        "geometry": outline.geometry,
        "bbox": outline.bounds,
        "properties": {
            "datetime": acquisition_time(scene) or created,
            "created": created,
            **_projection(place.crs, info),
            "processing:level": "L4",
            "processing:lineage": f"Prediction of {scene.name} by the model {model}",
            "segflow:model": model,
            "segflow:architecture": description["architecture"],
            "segflow:weights_sha256": description["weights_sha256"],
        },
        "links": [],
        "assets": dict(_asset(name, file, description) for file in files),
    }
    path = folder / f"{name}{ITEM_SUFFIX}"
    path.write_text(_text(item), encoding="utf-8")
    return [path.name]


def remove_assets(path: Path, files: Sequence[str]) -> None:
    """Leave files that were deleted out of an item.

    Args:
        path: of the item.
        files: their names.

    Raises:
        DataError: the item is damaged, or the disk is full or not writable.
    """
    try:
        item = json.loads(path.read_text(encoding="utf-8"))
        lost = [_reference(file) for file in files]
        kept = {key: asset for key, asset in item["assets"].items() if asset["href"] not in lost}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is no STAC item ({error})", "delete it, and run again") from error
    with atomic_write(path) as temporary:
        temporary.write_text(_text({**item, "assets": kept}), encoding="utf-8")


def _text(item: Mapping[str, Any]) -> str:
    return json.dumps(item, indent=1, ensure_ascii=False) + "\n"


def _projection(crs: str, info: Info) -> dict[str, Any]:
    known = re.fullmatch(r"[A-Za-z]+:\w+", crs)
    system = {"proj:code": crs} if known else {"proj:code": None, "proj:wkt2": _wkt2(crs)}
    shape = {"proj:shape": [info.height, info.width]}
    # control points are no affine transform
    transform = {"proj:transform": list(info.transform)} if info.transform is not None else {}
    return system | shape | transform


def _wkt2(crs: str) -> str:
    return str(CRS.from_user_input(crs).to_wkt(version="WKT2_2019"))


def _asset(name: str, file: str, description: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    end = file.removeprefix(name)
    key, title = _ASSETS[end]
    media_type, role = _TYPES[Path(file).suffix]
    return key, {
        "href": _reference(file),
        "title": title,
        "type": media_type,
        "roles": [role],
        **_raster(key, description),
    }


def _reference(file: str) -> str:
    """A file beside the item as IRI reference (RFC 3987); `;` is left out of paths by some readers."""
    return "./" + re.sub(r'[\0-\x20\x7f"#%;<>?\[\\\]^`{|}]', lambda found: quote(found[0]), file)


def _raster(key: str, description: Mapping[str, Any]) -> dict[str, Any]:
    """Facts on the values of a raster."""
    if key == "classes":
        named = enumerate(zip(description["classes"], description["colors"], strict=True))
        names = short_names(description["classes"])
        classes = [
            {"value": value, "name": names[value], "title": title, "color_hint": hex_color(color)[1:].upper()}
            for value, (title, color) in named
        ]
        return {"data_type": "uint8", "nodata": IGNORE, "classification:classes": classes}
    if key in ("probabilities", "confidence"):
        names = description["classes"] if key == "probabilities" else [key]
        scale = {"raster:scale": 1 / PROBABILITY_STEPS, "raster:offset": 0}
        return {"data_type": "uint8", "nodata": IGNORE, **scale, "bands": [{"name": name} for name in names]}
    return {"data_type": "uint32", "nodata": 0} if key == "objects" else {}
