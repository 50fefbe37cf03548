"""Where a file is on the map: its coordinate system, transform or control points, and the files that they are from."""

from pathlib import Path
from typing import Any

import rasterio

from segcore.data.raster import Note

# elements of .aux.xml that give a position
_PLACES = ("<GeoTransform", "<SRS", "<GCPList", 'domain="RPC"')
# what GDAL lists beside an image that gives no position
_OTHERS = (".ovr", ".msk")


def position(source: rasterio.DatasetReader, path: Path) -> tuple[dict[str, Any], list[Note]]:
    """Fields of Info for the position of a file, and what is unusual about it.

    Args:
        source: the open file.
        path: of the file.
    """
    notes = list[Note]()
    transform = None if source.transform.is_identity else tuple(source.transform)[:6]
    fields: dict[str, Any] = {"crs": source.crs.to_string() if source.crs else None, "transform": transform}
    if transform is None:
        points, system = source.gcps
        if points:
            fields["gcps"] = tuple((p.row, p.col, p.x, p.y, p.z or 0.0) for p in points)
            fields["gcps_crs"] = system.to_string() if system else None
            notes.append(("control-points", f"its position is that of {len(points)} control points"))
    rpcs = source.rpcs
    if rpcs is not None:
        fields["rpcs"] = tuple(sorted(source.tags(ns="RPC").items()))
        if transform is None and "gcps" not in fields:
            notes.append(
                ("control-points", "its position is that of rational polynomial coefficients (RPCs)")
            )
    if any(value is not None for value in fields.values()):
        beside = [name for name in map(Path, source.files) if _gives_position(name, path)]
        if beside:
            notes.append(
                ("sidecar", f"its position is from {', '.join(name.name for name in beside)} beside it")
            )
    return fields, notes


def _gives_position(file: Path, image: Path) -> bool:
    if file.name == image.name or file.suffix.lower() in _OTHERS:
        return False
    if not file.name.lower().endswith(".aux.xml"):
        return image.suffix.lower() != ".vrt"
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(place in text for place in _PLACES)
