"""Builders and readers of polygon files, and checks of their errors."""

import json

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from rasterio.warp import transform

from segcore.data.raster import Info
from segcore.errors import DataError
from segcore.io.annotations import read_labels
from tests.support.tiny import params_for

GRID = (0.5, 0.0, 500000.0, 0.0, -0.5, 5000000.0)
IMAGE = Info(60, 80, 3, "uint8", crs="EPSG:32633", transform=GRID)
CLASSES = ["background", "house", "lake"]


def data_for(label_values=None, **over):
    colors = [[0, 0, 0]] * len(over.get("classes", CLASSES))
    return params_for(".", data={"classes": CLASSES, "colors": colors, **over}).data.model_copy(
        update={"label_values": label_values or {0: 0, 1: 1}}
    )


def on_map(pixels, grid=GRID):
    """A polygon in pixels (column, row) as one in EPSG:32633."""
    affine = rasterio.Affine(*grid)
    return shapely.transform(
        pixels, lambda p: p @ np.array([[affine.a, affine.d], [affine.b, affine.e]]) + (affine.c, affine.f)
    )


def to_degrees(shape):
    return shapely.transform(
        shape, lambda p: np.stack(transform("EPSG:32633", "EPSG:4326", p[:, 0], p[:, 1]), axis=1)
    )


def save(path, shapes, values=None, crs="EPSG:32633", name="use", kind="Unknown", **options):
    fields = [name] if values is not None else []
    data = [np.array(values)] if values is not None else []
    blobs = shapely.to_wkb(np.array([*shapes, None], object)[:-1])
    pyogrio.raw.write(path, blobs, data, fields, crs=crs, geometry_type=kind, **options)
    return path


def geojson(path, geometries, crs="EPSG:32633", **over):
    """Write GeoJSON without a library, which would repair invalid geometries."""
    features = [{"type": "Feature", "properties": {}, "geometry": g} for g in geometries]
    system = {"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}
    path.write_text(json.dumps({"type": "FeatureCollection", **system, "features": features, **over}))
    return path


def labels(path, data=None, image=IMAGE):
    return read_labels(path, path.with_name("scene.tif"), image, data or data_for())


def inside(pixels, image=IMAGE):
    """Pixels (H, W) bool whose centres are inside a polygon in pixel coordinates."""
    rows, columns = np.mgrid[: image.height, : image.width] + 0.5
    return shapely.contains_xy(pixels, columns, rows)


def fails(path, kind, *texts, data=None, image=IMAGE):
    """Check that reading fails with this kind and these texts, and does not name the folder."""
    with pytest.raises(DataError) as caught:
        labels(path, data, image)
    error = caught.value
    assert error.kind == kind and error.what.startswith(path.name), error
    assert str(path.parent) not in str(error)
    for text in texts:
        assert text in str(error), error


STAR = shapely.Polygon(
    [(10.2, 5.1), (33.3, 12.4), (60.6, 3.3), (47.1, 30.2), (70.4, 55.7), (30.9, 40.8), (5.6, 52.2)]
)
RING = shapely.box(20, 20, 50, 50).difference(shapely.box(30, 30, 40, 40))
