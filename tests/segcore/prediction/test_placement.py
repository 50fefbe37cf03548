"""Predictions keep the place of their scene: control points, RPCs, turned transforms, pages of a stack."""

import numpy as np
import pyogrio
import pyogrio.raw
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.features import shapes
from rasterio.rpc import RPC

from segcore.errors import DataError
from segcore.io import images
from segcore.params import Predict
from segcore.prediction.predictor import Predictor
from tests.support.bundles import make_bundle, noise
from tests.support.tiff import write_tiff
from tests.support.tiny import write_tif

ALL = ("classes", "probabilities", "polygons")
ROWS, COLS = 64, 96
RPCS = RPC(
    height_off=100, height_scale=500, lat_off=45, lat_scale=0.1, line_den_coeff=[1, *[0] * 19],
    line_num_coeff=[0, 0, -1, *[0] * 17], line_off=32, line_scale=32, long_off=15, long_scale=0.1,
    samp_den_coeff=[1, *[0] * 19], samp_num_coeff=[0, 1, *[0] * 18], samp_off=32, samp_scale=32,
)  # fmt: skip


def place(row, col):
    """A slightly curved grid in degrees, of the second order as control points of radar scenes are."""
    return 15 + col * 1e-4 + row * 2e-5 + 1e-8 * col * row, 45 - row * 1e-4 + 1e-8 * col**2


def points(error=0.0):
    rng = np.random.default_rng(0)
    steps = [(row, col) for row in (0, 21, 43, 64) for col in (0, 32, 64, 96)]
    return [
        GroundControlPoint(row, col, *(np.array(place(row, col)) + rng.normal(0, error, 2)), 5.0)
        for row, col in steps
    ]


def without_place(path, pixels, **change):
    write_tif(path, pixels, crs=None, transform=None)
    with rasterio.open(path, "r+") as scene:
        if "gcps" in change:
            scene.gcps = (change["gcps"], rasterio.CRS.from_epsg(change.get("epsg", 4326)))
        if "rpcs" in change:
            scene.rpcs = change["rpcs"]


def predict(bundle, scene, out):
    return Predictor(bundle, Predict(tile=64, overlap=16, outputs=ALL)).predict_file(scene, out, "scene")


def rasters(files):
    found = [name for name in files if name.endswith(".tif")]
    assert len(found) == 2
    return found


def as_numbers(gcps):
    return [(p.row, p.col, p.x, p.y, p.z) for p in gcps]


def polygons(path):
    """Polygons of class 1 of a GeoPackage, joined."""
    _, _, geometries, (classes, _) = pyogrio.raw.read(path, layer="classes")
    return shapely.union_all(shapely.from_wkb(geometries[classes == 1]))


def foreground(path):
    """Polygons of class 1 of a class raster, in pixels."""
    with rasterio.open(path) as made:
        classes = made.read(1)
    found = [shapely.geometry.shape(g) for g, v in shapes(classes, classes == 1, 4) if v == 1]
    return shapely.union_all(found)


def test_control_points_are_kept_and_place_the_polygons(bundle, tmp_path, out):
    without_place(tmp_path / "s.tif", noise(ROWS, COLS), gcps=points())
    info = images.info(tmp_path / "s.tif")
    assert [kind for kind, _ in info.notes] == ["control-points"] and info.gcps_crs == "EPSG:4326"
    for name in rasters(predict(bundle, tmp_path / "s.tif", out)):
        with rasterio.open(out / name) as made:
            assert np.allclose(as_numbers(made.gcps[0]), as_numbers(points()))
            assert made.gcps[1].to_epsg() == 4326 and made.crs is None and made.transform.is_identity
    layer = pyogrio.read_info(out / "scene.gpkg", layer="classes")
    assert layer["crs"] == "EPSG:4326" and "control points" in layer["layer_metadata"]["coordinates"]
    found = polygons(out / "scene.gpkg")
    pixels = shapely.transform(
        foreground(out / "scene.tif"), lambda xy: np.stack(place(xy[:, 1], xy[:, 0]), axis=1)
    )
    # to a tenth of a pixel
    assert shapely.hausdorff_distance(found, pixels) < 1e-5


@pytest.mark.parametrize(
    "gcps",
    [points(error=0.001), points()[:2], [GroundControlPoint(k, k, 15 + k / 100, 45) for k in (0, 20, 40)]],
    ids=["scattered", "two", "on a line"],
)
def test_polygons_of_control_points_that_do_not_fit_are_in_pixels_and_say_so(bundle, tmp_path, out, gcps):
    without_place(tmp_path / "s.tif", noise(ROWS, COLS), gcps=gcps)
    predict(bundle, tmp_path / "s.tif", out)
    with rasterio.open(out / "scene.tif") as made:
        assert len(made.gcps[0]) == len(gcps)
    layer = pyogrio.read_info(out / "scene.gpkg", layer="classes")
    assert layer["crs"] is None and layer["layer_metadata"]["coordinates"].startswith("pixels (column, row)")
    found = polygons(out / "scene.gpkg")
    assert found.equals(foreground(out / "scene.tif"))


def test_rational_polynomials_are_kept(bundle, tmp_path, out):
    without_place(tmp_path / "s.tif", noise(ROWS, COLS), rpcs=RPCS)
    assert [kind for kind, _ in images.info(tmp_path / "s.tif").notes] == ["control-points"]
    for name in rasters(predict(bundle, tmp_path / "s.tif", out)):
        with rasterio.open(out / name) as made, rasterio.open(tmp_path / "s.tif") as scene:
            assert made.rpcs.to_dict() == scene.rpcs.to_dict()


def test_control_points_of_aux_xml_and_of_a_vrt_are_kept(bundle, tmp_path, out):
    listed = "".join(
        f'<GCP Id="{i}" Pixel="{p.col}" Line="{p.row}" X="{p.x:.12f}" Y="{p.y:.12f}" Z="5"/>'
        for i, p in enumerate(points())
    )
    beside = f'<GCPList Projection="EPSG:4326">{listed}</GCPList>'
    write_tif(tmp_path / "s.tif", noise(ROWS, COLS), crs=None, transform=None)
    (tmp_path / "s.tif.aux.xml").write_text(f"<PAMDataset>{beside}</PAMDataset>")
    info = images.info(tmp_path / "s.tif")
    assert [kind for kind, _ in info.notes] == ["control-points", "sidecar"]
    assert np.allclose(info.gcps, as_numbers(points()))
    write_tif(tmp_path / "t.tif", noise(ROWS, COLS), crs=None, transform=None)
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}"><SimpleSource><SourceFilename relativeToVRT="1">t.tif'
        f"</SourceFilename><SourceBand>{i}</SourceBand></SimpleSource></VRTRasterBand>"
        for i in (1, 2, 3)
    )
    (tmp_path / "s.vrt").write_text(
        f'<VRTDataset rasterXSize="{COLS}" rasterYSize="{ROWS}">{beside}{bands}</VRTDataset>'
    )
    assert np.allclose(images.info(tmp_path / "s.vrt").gcps, as_numbers(points()))
    predict(bundle, tmp_path / "s.vrt", out)
    with rasterio.open(out / "scene.tif") as made:
        assert np.allclose(as_numbers(made.gcps[0]), as_numbers(points()))


@pytest.mark.parametrize(
    "transform",
    [
        rasterio.Affine(1, 0, 500000, 0, 1, 5000000),
        rasterio.Affine(0.8, 0.6, 500000, 0.6, -0.8, 5000000),
        rasterio.Affine(0, 2, 500000, 2, 0, 5000000),
        rasterio.Affine(-1, 0.2, 500000, 0, -1, 5000000),
    ],
    ids=["south up", "turned", "transposed", "mirrored and sheared"],
)
def test_turned_scenes_keep_their_transform_and_place_their_polygons(bundle, tmp_path, out, transform):
    write_tif(tmp_path / "s.tif", noise(ROWS, COLS), transform=transform)
    for name in rasters(predict(bundle, tmp_path / "s.tif", out)):
        with rasterio.open(out / name) as made:
            assert made.transform.almost_equals(transform) and made.crs.to_epsg() == 32633
    found = polygons(out / "scene.gpkg")
    wanted = shapely.transform(foreground(out / "scene.tif"), lambda xy: np.stack(transform @ xy.T, axis=1))
    assert shapely.hausdorff_distance(found, wanted) < 1e-6


@pytest.mark.parametrize("placed", [True, False])
def test_a_stack_is_predicted_page_by_page(tmp_path, out, placed):
    bundle = make_bundle(tmp_path / "unet-0", bands=1, input={"dtype": "uint8", "pages": "planes"})
    pages = np.stack([noise(ROWS, COLS, 1, seed=k)[0] for k in range(3)])
    scene = tmp_path / "s.tif"
    if placed:
        for number, page in enumerate(pages):
            write_tif(scene, page[None], append_subdataset=number > 0)
    else:
        write_tiff(scene, [(page, {}) for page in pages])
    predictor = Predictor(bundle, Predict(tile=64, overlap=16, outputs=("classes",)))
    assert predictor.predict_file(scene, out, "scene")[0] == "scene.tif"
    with Image.open(out / "scene.tif") as made:
        assert made.n_frames == 3
    with images.open_source(out / "scene.tif", pages="planes") as made:
        assert made.info.depth == 3 and (made.info.crs == "EPSG:32633") == placed
        for plane, page in enumerate(pages):
            assert np.array_equal(made.read(plane=plane).pixels[0], predictor.predict(page).classes)


def test_pages_that_are_channels_are_predicted_as_bands(tmp_path):
    bundle = make_bundle(tmp_path / "unet-0", bands=3, input={"pages": "channels", "bands": [1, 2, 4]})
    write_tiff(tmp_path / "s.tif", [(noise(ROWS, COLS, 1, seed=k)[0], {}) for k in range(4)])
    predictor = Predictor(bundle, Predict(tile=64, overlap=16))
    with images.open_source(tmp_path / "s.tif", pages="channels") as source:
        pixels = source.read().pixels
    assert np.array_equal(
        predictor.predict(tmp_path / "s.tif").classes, predictor.predict(np.moveaxis(pixels, 0, -1)).classes
    )


def test_pages_of_a_scene_are_refused_by_a_model_that_was_trained_without_the_setting(tmp_path, out):
    bundle = make_bundle(tmp_path / "unet-0", bands=1)
    write_tiff(tmp_path / "s.tif", [(noise(ROWS, COLS, 1, seed=k)[0], {}) for k in range(3)])
    with pytest.raises(DataError, match="has 3 pages") as caught:
        Predictor(bundle, Predict(tile=64, overlap=16)).predict_file(tmp_path / "s.tif", out, "scene")
    assert caught.value.kind == "pages" and "save each page as a file of its own" in caught.value.remedy
