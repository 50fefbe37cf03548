"""Zones in which the objects of a scene are counted, from a file of polygons."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from segcore.errors import ParamsError
from segcore.io.polygon_files import as_file

_REMEDY = "name a file of polygons, such as a GeoPackage, a shapefile or GeoJSON, or set it to null"


@dataclass(frozen=True)
class Zones:
    """Polygons in which objects are counted.

    Attributes:
        name: of the file.
        crs: coordinate system; None: none.
        shapes: (N,) valid shapely polygons and multipolygons, without heights.
        fields: (N,) values of each field, of its type in the file.
        left_out: number of features without an area.
    """

    name: str
    crs: str | None
    shapes: np.ndarray
    fields: Mapping[str, pa.Array]
    left_out: int

    @property
    def sha256(self) -> str:
        """Of everything that was read, whatever the files that it is in."""
        values = {name: [str(column.type), column.to_pylist()] for name, column in self.fields.items()}
        facts = [self.crs, self.left_out, [[name, *of] for name, of in values.items()]]
        found = hashlib.sha256(json.dumps(facts, default=str).encode())
        for blob in shapely.to_wkb(self.shapes):
            found.update(blob)
        return found.hexdigest()


def read_zones(path: Path) -> Zones:
    """Read the first layer of a file. Invalid polygons are repaired, features without an area are left out.

    Raises:
        ParamsError: the file is missing or unreadable, or has no polygons.
    """
    import pyogrio.raw
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        with as_file(path) as file:
            layer = pyogrio.list_layers(file)[0][0]
            meta, table = pyogrio.raw.read_arrow(file, layer=layer)
        geometry = meta["geometry_name"] or "wkb_geometry"
        blobs = table[geometry].to_pylist() if geometry in table.column_names else []
    except (DataSourceError, DataLayerError, IndexError, OSError, pa.ArrowException) as error:
        reason = "there is no such file" if not path.exists() else str(error)
        raise ParamsError(
            f"predict.count_by: {path} cannot be read as polygons ({reason})", _REMEDY
        ) from error
    found = shapely.force_2d(shapely.from_wkb(np.array(blobs, object), on_invalid="ignore"))
    shapes = np.empty(len(found), object)
    shapes[:] = [polygonal(shape) for shape in found]
    kept = np.array([shape is not None for shape in shapes], bool)
    if not kept.any():
        raise ParamsError(f"predict.count_by: {path} has no polygons", _REMEDY)
    fields = {
        name: table[name].combine_chunks().filter(pa.array(kept))
        for name in table.column_names
        if name != geometry
    }
    return Zones(path.name, meta["crs"], shapes[kept], fields, int((~kept).sum()))


def polygonal(shape: Any) -> Any:
    """The polygons of a geometry as one, valid; None if there are none."""
    if shape is None or shape.is_empty:
        return None
    valid = shape if shape.is_valid else shapely.make_valid(shape)
    parts = [part for part in _parts(valid) if isinstance(part, shapely.Polygon) and part.area > 0]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else shapely.union_all(parts)


def _parts(shape: Any) -> Iterator[Any]:
    if isinstance(shape, shapely.geometry.base.BaseMultipartGeometry):
        for part in shape.geoms:
            yield from _parts(part)
    else:
        yield shape
