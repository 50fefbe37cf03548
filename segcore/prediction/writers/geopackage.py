"""Layers of a GeoPackage, written in parts, and their style in QGIS."""

import shutil
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import shapely

from segcore.io.polygon_files import as_file
from segcore.prediction.writers.placement import Placement

_STYLES = "layer_styles"


@contextmanager
def as_oserror(kind: type[Exception]) -> Iterator[None]:
    """Raise errors of a kind as OSError."""
    try:
        yield
    except kind as error:
        raise OSError(str(error)) from error


class Layer:
    """A layer that features are added to.

    Args:
        path: of the GeoPackage, which may have other layers.
        name: of the layer.
        geometry: type of its geometries, such as "Polygon".
        placement: of pixels.
    """

    def __init__(self, path: Path, name: str, geometry: str, placement: Placement) -> None:
        self.path, self.name, self._geometry, self._placement = path, name, geometry, placement
        self._is_there = False

    def write(self, shapes: np.ndarray, fields: Mapping[str, np.ndarray]) -> None:
        """Add features; the first call makes the layer, with or without features.

        Args:
            shapes: shapely geometries in pixels (column, row).
            fields: values of each field.

        Raises:
            OSError: the disk is full or not writable.
        """
        import pyogrio.raw
        from pyogrio.errors import DataSourceError

        if len(shapes) == 0 and self._is_there:
            return
        placed = shapely.transform(shapes, self._placement.place)
        with warnings.catch_warnings(), as_oserror(DataSourceError), as_file(self.path) as path:
            warnings.filterwarnings("ignore", "'crs' was not provided")
            pyogrio.raw.write(
                path,
                shapely.to_wkb(placed),
                list(fields.values()),
                list(fields),
                layer=self.name,
                driver="GPKG",
                geometry_type=self._geometry,
                crs=self._placement.crs,
                append=self._is_there,
                layer_metadata=None if self._is_there else {"coordinates": self._placement.text},
            )
        self._is_there = True


def copy_others(earlier: Path, target: Path, own: Sequence[str], written: Sequence[str]) -> list[str]:
    """Copy an earlier GeoPackage, so that it keeps the layers that are not written now.

    Nothing is copied where there are none, and of a file that is no GeoPackage of a prediction.

    Args:
        earlier: a file that may exist.
        target: a new file, to which the layers are added.
        own: layers of predictions.
        written: those of them that are written now.

    Returns:
        The layers that stay.

    Raises:
        OSError: the disk is full or not writable.
    """
    import pyogrio
    from pyogrio.errors import DataSourceError

    if not earlier.is_file():
        return []
    try:
        with as_file(earlier) as path:
            layers = pyogrio.list_layers(path)[:, 0].tolist()
    except DataSourceError:
        return []
    kept = [layer for layer in layers if layer not in (*written, _STYLES)]
    if not kept or not set(own) & set(layers):
        return []
    shutil.copyfile(earlier, target)
    return kept


def add_style(path: Path, layer: str, style: str) -> None:
    """Make a style the default of a layer in QGIS, which reads it from the table `layer_styles` of a GeoPackage.

    Args:
        path: of the GeoPackage.
        layer: its name.
        style: QML.

    Raises:
        OSError: there is no such file, or the disk is full or not writable.
    """
    # never a new file, which would have no layer
    address = f"{path.absolute().as_uri()}?mode=rw"
    with as_oserror(sqlite3.Error), closing(sqlite3.connect(address, uri=True)) as file, file:
        file.execute(_TABLE)
        # that of an earlier layer
        file.execute("DELETE FROM layer_styles WHERE f_table_name = ?", (layer,))
        file.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
            "styleQML, styleSLD, useAsDefault, description, owner) VALUES ('', '', ?, 'geom', ?, ?, '', 1, '', '')",
            (layer, layer, style),
        )


# as QGIS makes it
_TABLE = """
CREATE TABLE IF NOT EXISTS layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256),
    f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
    useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
    update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now'))
)"""
