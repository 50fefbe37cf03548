"""Layers of a GeoPackage, written in parts, and their style in QGIS."""

import shutil
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import shapely

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
        with warnings.catch_warnings(), as_oserror(DataSourceError):
            warnings.filterwarnings("ignore", "'crs' was not provided")
            pyogrio.raw.write(
                self.path,
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

    try:
        layers = pyogrio.list_layers(earlier)[:, 0].tolist() if earlier.is_file() else []
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
        OSError: the disk is full or not writable.
    """
    with as_oserror(sqlite3.Error), closing(sqlite3.connect(path)) as file, file:
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


def class_style(names: Sequence[str], colors: Sequence[Sequence[int]], wanted: Sequence[int]) -> str:
    """QML of polygons with a field `class`: filled half transparent in the colours of the classes.

    Args:
        names: of all classes.
        colors: red, green and blue of each.
        wanted: indices of the classes that have polygons.
    """
    categories = "".join(
        f'<category value="{index}" symbol="{place}" label={quoteattr(names[index])} render="true" type="long"/>'
        for place, index in enumerate(wanted)
    )
    symbols = "".join(_symbol(str(place), colors[index], 102) for place, index in enumerate(wanted))
    return _qml(
        f'<renderer-v2 type="categorizedSymbol" attr="class" symbollevels="0" forceraster="0">'
        f"<categories>{categories}</categories><symbols>{symbols}</symbols></renderer-v2>"
    )


def outline_style() -> str:
    """QML of polygons: black outlines."""
    symbol = _symbol("0", (0, 0, 0), 0)
    return _qml(
        f'<renderer-v2 type="singleSymbol" symbollevels="0"><symbols>{symbol}</symbols></renderer-v2>'
    )


def _symbol(name: str, color: Sequence[int], opacity: int) -> str:
    rgb = ",".join(map(str, color))
    values = {
        "color": f"{rgb},{opacity}",
        "outline_color": f"{rgb},255",
        "outline_style": "solid",
        "outline_width": "0.4",
        "outline_width_unit": "MM",
        "style": "solid",
    }
    props = "".join(f'<prop k="{key}" v="{value}"/>' for key, value in values.items())
    return (
        f'<symbol type="fill" name="{name}" alpha="1" clip_to_extent="1">'
        f'<layer class="SimpleFill" enabled="1" locked="0" pass="0">{props}</layer></symbol>'
    )


def _qml(renderer: str) -> str:
    return (
        f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'><qgis version=\"3.16\">{renderer}</qgis>"
    )
