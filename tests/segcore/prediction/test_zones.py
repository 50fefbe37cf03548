"""Counts of objects per zone."""

import csv
from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from rasterio.warp import transform

from segcore.errors import DataError, ParamsError
from segcore.params import Predict
from segcore.prediction.predictor import Predictor
from tests.support.bundles import OBJECTS, make_bundle, noise
from tests.support.tiny import write_tif

HEIGHT, WIDTH = 150, 333
# bounds of the scene, whose pixels are half a metre
LEFT, TOP = 500_000, 5_000_000
RIGHT, BOTTOM = LEFT + WIDTH / 2, TOP - HEIGHT / 2


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("zones") / "unet-0", objects=OBJECTS)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp("scenes") / "scene.tif"
    pixels = noise(HEIGHT, WIDTH)
    pixels[:, :40, :50] = 0
    write_tif(path, pixels, nodata=0)
    return path


def write(path: Path, shapes, crs: str | None = "EPSG:32633", **fields) -> Path:
    values = [np.array(v) for v in fields.values()]
    geometry = "Unknown" if path.suffix == ".gpkg" else "Polygon"
    blobs = np.array([None if s is None else shapely.to_wkb(s) for s in shapes], object)
    pyogrio.raw.write(path, blobs, values, list(fields), geometry_type=geometry, crs=crs, layer="z")
    return path


def counted(bundle: Path, scene: Path, zones: Path, out: Path) -> tuple[dict, dict[str, np.ndarray], list]:
    """Number of objects by (zone, class), the features, and the notes."""
    notes: list = []
    settings = Predict.model_validate(
        {"tile": 96, "overlap": 32, "outputs": ["counts", "objects"], "count_by": str(zones)}
    )
    files = Predictor(bundle, settings).predict_file(scene, out, "scene", notes=notes.extend)
    assert files == [
        "scene_objects.tif",
        "scene.gpkg",
        "scene_counts.csv",
        "scene_zones.csv",
        "scene_zones.gpkg",
    ]
    rows = list(csv.DictReader((out / "scene_zones.csv").open()))
    meta, _, blobs, values = pyogrio.raw.read(out / "scene_zones.gpkg", layer="zones")
    features = dict(zip(meta["fields"], values, strict=True))
    features["shape"] = shapely.from_wkb(blobs)
    return (
        {(r["zone"], r["class"]): r for r in rows},
        features,
        [text for kind, text in notes if kind == "zones"],
    )


def total(out: Path) -> dict[str, dict]:
    return {r["class"]: r for r in csv.DictReader((out / "scene_counts.csv").open())}


def tiles(rows: int, cols: int) -> list[shapely.Polygon]:
    """Zones that tile the scene, with borders through the centres of pixels and along their edges."""
    xs = [LEFT, *np.linspace(LEFT, RIGHT, cols + 1).round(2)[1:-1], RIGHT]
    ys = [TOP, *np.linspace(TOP, BOTTOM, rows + 1).round(2)[1:-1], BOTTOM]
    return [shapely.box(xs[j], ys[i + 1], xs[j + 1], ys[i]) for i in range(rows) for j in range(cols)]


@pytest.mark.parametrize(
    ("ending", "crs"),
    [
        (".gpkg", "EPSG:32633"),
        (".gpkg", "EPSG:4326"),
        (".gpkg", "EPSG:3035"),
        (".geojson", "EPSG:4326"),
        (".shp", "EPSG:4326"),
    ],
)
def test_the_sum_over_zones_that_tile_the_scene_is_the_total(bundle, scene, tmp_path, out, crs, ending):
    shapes = tiles(3, 4)
    if crs != "EPSG:32633":
        # corners of all pixels along the borders, so that the borders stay where they are
        dense = [shapely.segmentize(shape, 0.5) for shape in shapes]
        shapes = [
            shapely.transform(
                s, lambda xy: np.stack(transform("EPSG:32633", crs, xy[:, 0], xy[:, 1]), axis=1)
            )
            for s in dense
        ]
    zones = write(tmp_path / f"zones{ending}", shapes, crs, name=[f"z{n}" for n in range(12)])
    rows, features, notes = counted(bundle, scene, zones, out)
    whole = total(out)
    assert int(whole["all"]["objects"]) > 500
    for name in ("field", "water", "all"):
        of_zones = [int(rows[str(n + 1), name]["objects"]) for n in range(12)]
        assert sum(of_zones) == int(whole[name]["objects"]) and min(of_zones) > 0
        assert int(rows["", name]["objects"]) == 0
        assert features[f"{name}_objects"].tolist() == of_zones
    assert np.isclose(features["hectares"].sum(), float(whole["all"]["hectares"]), rtol=1e-3)
    assert rows["3", "all"]["name"] == features["name"][2] == "z2" and notes == []
    row = rows["3", "water"]
    assert np.isclose(float(row["per_hectare"]), int(row["objects"]) / float(row["hectares"]), rtol=1e-4)
    assert int(row["low"]) <= int(row["objects"]) <= int(row["high"])


def test_an_object_is_of_the_zones_that_have_its_middle_pixel(bundle, scene, tmp_path, out):
    half = shapely.box(LEFT, BOTTOM, LEFT + 80.1, TOP)
    rows, features, notes = counted(bundle, scene, write(tmp_path / "z.gpkg", [half, half]), out)
    with rasterio.open(out / "scene_objects.tif") as file:
        numbers = file.read(1)
    inside = 0
    for number in range(1, numbers.max() + 1):
        r, c = np.nonzero(numbers == number)
        inside += c[np.argmin((r - r.mean()) ** 2 + (c - c.mean()) ** 2)] + 0.5 < 160.2
    assert int(rows["1", "all"]["objects"]) == int(rows["2", "all"]["objects"]) == inside
    rest = int(total(out)["all"]["objects"]) - inside
    assert int(rows["", "all"]["objects"]) == rest > 0
    assert notes == [f"z.gpkg: {rest} objects are in no zone"]
    # nodata is no part of a zone's area
    assert np.isclose(features["hectares"][0], (160 * 150 - 40 * 50) * 0.25 / 10_000)


def test_features_without_area_beyond_the_scene_and_invalid_ones_are_stated(bundle, scene, tmp_path, out):
    whole = shapely.box(LEFT - 10, BOTTOM - 10, RIGHT + 10, TOP + 10)
    # crosses itself in the middle of the scene
    bow = shapely.Polygon([(LEFT, TOP), (RIGHT, BOTTOM), (RIGHT, TOP), (LEFT, BOTTOM)])
    beyond = shapely.box(0, 0, 10, 10)
    shapes = [whole, bow, beyond, shapely.Point(LEFT, TOP), None]
    rows, features, notes = counted(
        bundle, scene, write(tmp_path / "z.gpkg", shapes, id=[7, 8, 9, 10, 11]), out
    )
    count = int(total(out)["all"]["objects"])
    assert int(rows["1", "all"]["objects"]) == count
    assert 0.3 * count < int(rows["2", "all"]["objects"]) < 0.7 * count
    assert (
        rows["3", "all"]["objects"] == rows["3", "all"]["hectares"] == "0"
        and rows["3", "all"]["per_hectare"] == ""
    )
    assert features["id"].tolist() == [7, 8, 9] and shapely.is_valid(features["shape"]).all()
    assert notes == [
        "z.gpkg: 2 features without an area are left out; 1 of 3 zones have no pixel of the scene"
    ]


def test_zones_of_a_scene_without_position_are_in_its_pixels(bundle, tmp_path, out):
    write_tif(tmp_path / "p.tif", noise(60, 80), crs=None, transform=rasterio.Affine.identity())
    zones = write(tmp_path / "z.gpkg", [shapely.box(0, 0, 40, 60), shapely.box(40, 0, 80, 60)], None)
    rows, features, _ = counted(bundle, tmp_path / "p.tif", zones, out)
    assert sum(int(rows[str(n), "all"]["objects"]) for n in (1, 2)) == int(total(out)["all"]["objects"]) > 50
    assert rows["1", "all"]["hectares"] == "" and np.isnan(features["hectares"]).all()
    placed = write(tmp_path / "placed.gpkg", [shapely.box(0, 0, 40, 60)])
    with pytest.raises(DataError, match=r"no coordinate system[\s\S]*placed\.gpkg have EPSG:32633"):
        counted(bundle, tmp_path / "p.tif", placed, out)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "there is no such file"), ("no polygons", "cannot be read"), ([], "has no polygons")],
)
def test_a_file_without_polygons_is_an_error_before_the_prediction(bundle, tmp_path, content, reason):
    path = tmp_path / "z.gpkg"
    if content == []:
        write(path, [shapely.Point(0, 0)])
    elif content is not None:
        path.write_text(content)
    settings = Predict.model_validate({"outputs": ["counts"], "count_by": str(path)})
    with pytest.raises(ParamsError, match=rf"predict\.count_by: [\s\S]*{reason}"):
        Predictor(bundle, settings)
    Predictor(bundle, Predict.model_validate({"outputs": ["objects"], "count_by": str(path)}))
