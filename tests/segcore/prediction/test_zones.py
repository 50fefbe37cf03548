"""Counts of objects per zone."""

import csv
import json
from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from rasterio.warp import transform

from segcore.data.raster import Info
from segcore.errors import DataError, ParamsError
from segcore.params import Predict
from segcore.prediction.predictor import Predictor
from segcore.prediction.zone_shapes import in_pixels
from segcore.prediction.zones import Zones, read_zones
from tests.segcore.prediction.test_instance_scenes import toy
from tests.support.bundles import OBJECTS, make_bundle, noise
from tests.support.instance_bundle import bundle_of
from tests.support.tiny import write_tif
from tests.support.volumes import write_nifti

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
    assert [name for name in files if name != "scene.stac.json"] == [
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
    assert int(whole[""]["objects"]) > 500
    for name in ("field", "water", ""):
        of_zones = [int(rows[str(n + 1), name]["objects"]) for n in range(12)]
        assert sum(of_zones) == int(whole[name]["objects"]) and min(of_zones) > 0
        assert int(rows["no zone", name]["objects"]) == 0
        # no pixel with data is in no zone
        assert rows["no zone", name]["estimate"] == rows["no zone", name]["high"] == ""
        assert features[f"{name}_objects".lstrip("_")].tolist() == of_zones
    assert np.isclose(features["hectares"].sum(), float(whole[""]["hectares"]), rtol=1e-3)
    assert rows["3", ""]["name"] == features["name"][2] == "z2" and notes == []
    row = rows["3", "water"]
    assert np.isclose(float(row["per_hectare"]), int(row["objects"]) / float(row["hectares"]), rtol=1e-4)
    assert int(row["low"]) <= int(row["objects"]) <= int(row["high"])


def test_objects_of_an_instance_network_are_counted_by_zone(scene, tmp_path, out):
    rows, _, notes = counted(bundle_of(toy()), scene, write(tmp_path / "z.gpkg", tiles(2, 2)), out)
    with rasterio.open(out / "scene_objects.tif") as file:
        numbers = file.read(1)
    whole = total(out)
    assert int(whole[""]["objects"]) == numbers.max() > 20 and notes == []
    for name in ("field", "water", ""):
        of_zones = [int(rows[str(n + 1), name]["objects"]) for n in range(4)]
        assert sum(of_zones) == int(whole[name]["objects"])
    assert min(of_zones) > 0 and all(int(rows[str(n), ""]["high"]) > 0 for n in range(1, 5))


def test_an_object_is_of_the_zones_that_have_its_middle_pixel(bundle, scene, tmp_path, out):
    half = shapely.box(LEFT, BOTTOM, LEFT + 80.1, TOP)
    rows, features, notes = counted(bundle, scene, write(tmp_path / "z.gpkg", [half, half]), out)
    with rasterio.open(out / "scene_objects.tif") as file:
        numbers = file.read(1)
    inside = 0
    for number in range(1, numbers.max() + 1):
        r, c = np.nonzero(numbers == number)
        inside += c[np.argmin((r - r.mean()) ** 2 + (c - c.mean()) ** 2)] + 0.5 < 160.2
    assert int(rows["1", ""]["objects"]) == int(rows["2", ""]["objects"]) == inside
    rest = int(total(out)[""]["objects"]) - inside
    assert int(rows["no zone", ""]["objects"]) == rest > 0 and rows["no zone", ""]["high"]
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
    count = int(total(out)[""]["objects"])
    assert int(rows["1", ""]["objects"]) == count
    assert 0.3 * count < int(rows["2", ""]["objects"]) < 0.7 * count
    assert rows["3", ""]["objects"] == rows["3", ""]["hectares"] == "0" and rows["3", ""]["per_hectare"] == ""
    assert rows["3", ""]["low"] == rows["3", ""]["estimate"] == "" != rows["2", ""]["low"]
    assert features["id"].tolist() == [7, 8, 9] and shapely.is_valid(features["shape"]).all()
    assert notes == [
        "z.gpkg: 2 features without an area are left out; 1 of 3 zones has no pixel of the scene"
    ]


def test_zones_of_a_scene_without_position_are_in_its_pixels(bundle, tmp_path, out):
    write_tif(tmp_path / "p.tif", noise(60, 80), crs=None, transform=rasterio.Affine.identity())
    zones = write(tmp_path / "z.gpkg", [shapely.box(0, 0, 40, 60), shapely.box(40, 0, 80, 60)], None)
    rows, features, _ = counted(bundle, tmp_path / "p.tif", zones, out)
    assert sum(int(rows[str(n), ""]["objects"]) for n in (1, 2)) == int(total(out)[""]["objects"]) > 50
    assert rows["1", ""]["hectares"] == "" and np.isnan(features["hectares"]).all()
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


WORLD = shapely.box(-180, -90, 180, 90)


def placed(shapes, crs: str, scene_crs: str, transform: rasterio.Affine, size=(100, 100)):
    """Zones in pixels of a scene, and how many cannot be converted."""
    zones = Zones("z.gpkg", crs, np.array(shapes, object), {}, 0)
    info = Info(*size, 3, "uint8", crs=scene_crs, transform=tuple(transform)[:6])
    return in_pixels(zones, info)


def covered(shape, size=(100, 100)) -> float:
    """Share of a scene's pixels in a zone."""
    return shape.intersection(shapely.box(0, 0, size[1], size[0])).area / (size[0] * size[1])


@pytest.mark.parametrize(
    ("crs", "at"),
    [
        ("EPSG:32633", (500_000, 5_000_000, 10)),
        ("EPSG:3857", (1_000_000, 6_000_000, 100)),
        ("EPSG:4258", (10, 50, 0.01)),
        ("EPSG:3035", (4_000_000, 3_000_000, 25)),
        # the whole of a polar map, and of the earth
        ("EPSG:3413", (-3_000_000, 3_000_000, 60_000)),
        ("EPSG:4326", (-180, 90, 3.6)),
    ],
)
def test_a_zone_that_contains_the_scene_has_all_of_it(crs, at):
    left, top, side = at
    transform = rasterio.Affine(side, 0, left, 0, -side, top)
    (whole, south, west), failed = placed(
        [WORLD, shapely.box(-180, -90, 180, -80), shapely.box(-180, -90, 0, 90)], "EPSG:4326", crs, transform
    )
    is_global = crs == "EPSG:4326"
    assert covered(whole) == pytest.approx(0.5 if is_global else 1, abs=1e-3) and failed == 0
    assert south.is_empty or is_global
    assert covered(west) == pytest.approx({"EPSG:3413": 0.5, "EPSG:4326": 0.25}.get(crs, 0), abs=0.01)


def test_a_zone_of_another_map_that_contains_the_scene_has_all_of_it():
    # far beyond where the projection of the zones is defined, as seen from the scene
    huge = shapely.box(-1e8, -1e8, 1e8, 1e8)
    transform = rasterio.Affine(1000, 0, 4_000_000, 0, -1000, 3_000_000)
    (shape,), failed = placed([huge], "EPSG:32633", "EPSG:3035", transform)
    assert covered(shape) == pytest.approx(1) and failed == 0


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", rasterio.Affine(0.04, 0, 178, 0, -0.04, 2)),
        ("EPSG:4326", rasterio.Affine(0.04, 0, -182, 0, -0.04, 2)),
        ("EPSG:4258", rasterio.Affine(0.04, 0, 178, 0, -0.04, 2)),
        # its middle is at 180 degrees
        ("EPSG:3832", rasterio.Affine(4000, 0, 3_139_585, 0, -4000, 200_000)),
    ],
)
@pytest.mark.parametrize("zone_crs", ["EPSG:4326", "EPSG:4269"])
def test_zones_beyond_180_degrees_are_where_the_scene_is(crs, transform, zone_crs):
    east, west = shapely.box(178, -5, 180, 5), shapely.box(-180, -5, -178, 5)
    elsewhere = shapely.box(-10, -5, 10, 5)
    (first, second, none), failed = placed([east, west, elsewhere], zone_crs, crs, transform)
    assert covered(first) == pytest.approx(0.5, abs=0.02) and covered(second) == pytest.approx(0.5, abs=0.02)
    assert first.centroid.x < second.centroid.x and none.is_empty and failed == 0
    ((both,), _) = placed([shapely.MultiPolygon([east, west])], zone_crs, crs, transform)
    assert covered(both) == pytest.approx(1, abs=0.02)


def test_a_system_that_cannot_be_converted_is_an_error_that_names_both():
    local = 'ENGCRS["of the site",EDATUM["b"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
    transform = rasterio.Affine(1, 0, LEFT, 0, -1, TOP)
    with pytest.raises(DataError, match=r"z\.gpkg are in 'of the site'[\s\S]*EPSG:32633[\s\S]*QGIS"):
        placed([shapely.box(0, 0, 1, 1)], local, "EPSG:32633", transform)


def test_fields_of_zones_keep_types_and_empty_values_under_names_of_their_own(tmp_path, scene, out):
    names = ["background", "Tree", "tree"]
    bundle = make_bundle(
        tmp_path / "bundle", classes=names, objects={**OBJECTS, "components": chosen_for(names[1:])}
    )
    properties = [
        {"objects": 1, "zone_objects": 2, "Hectares": 3.5, "TREE_low": None, "fid": 7, "is": True},
        {"objects": None, "zone_objects": 4, "Hectares": None, "TREE_low": 5, "fid": 8, "is": None},
    ]
    properties[0] |= {"tags": ["a", "b"], "day": "2024-05-06", "id": 1234567890123, "class": "x"}
    properties[1] |= {"tags": None, "day": None, "id": None, "class": None}
    square = [[[14.9, 45], [15.1, 45], [15.1, 45.3], [14.9, 45.3], [14.9, 45]]]
    polygon = {"type": "Polygon", "coordinates": square}
    features = [{"type": "Feature", "geometry": polygon, "properties": p} for p in properties]
    zones = tmp_path / "z.geojson"
    zones.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    rows, _, _ = counted(bundle, scene, zones, out)
    row, empty = rows["1", "Tree"], rows["2", "tree"]
    assert (row["zone_zone_objects"], row["zone_objects"], row["zone_Hectares"]) == ("1", "2", "3.5")
    assert (row["zone_class"], row["tags"], row["day"], row["id"]) == (
        "x",
        '["a", "b"]',
        "2024-05-06",
        "1234567890123",
    )
    assert [empty[n] for n in ("zone_zone_objects", "zone_Hectares", "is", "tags", "day", "id")] == [""] * 6
    _, table = pyogrio.raw.read_arrow(out / "scene_zones.gpkg", layer="zones")
    features = table.to_pydict()
    assert features["zone_zone_objects"] == [1, None] and features["zone_objects"] == [2, 4]
    assert features["is"] == [True, None] and str(features["day"][0]) == "2024-05-06"
    assert features["id"] == [1234567890123, None] and features["zone_fid"] == [7, 8]
    assert features["zone_TREE_low"] == [None, 5] and json.loads(features["tags"][0]) == ["a", "b"]
    assert features["Tree_objects"][0] == int(row["objects"]) > 0
    assert features["class_tree_objects"][0] == int(rows["1", "tree"]["objects"]) > 0


def chosen_for(names):
    """Entry of a method in model.json for other classes."""
    of_bundle = OBJECTS["components"]
    return {**of_bundle, "counts": dict(zip(names, of_bundle["counts"].values(), strict=True))}


def test_a_class_named_all_is_no_total(tmp_path, scene, out):
    names = ["background", "all", "objects"]
    bundle = make_bundle(
        tmp_path / "bundle", classes=names, objects={**OBJECTS, "components": chosen_for(names[1:])}
    )
    zones = write(tmp_path / "z.gpkg", [shapely.box(LEFT, BOTTOM, RIGHT, TOP)])
    rows, features, _ = counted(bundle, scene, zones, out)
    found = {r["class"]: int(r["objects"]) for r in csv.DictReader((out / "scene_counts.csv").open())}
    assert set(found) == {"all", "objects", ""} and found["all"] + found["objects"] == found[""]
    assert {name: int(rows["1", name]["objects"]) for name in found} == found
    assert [features[f][0] for f in ("all_objects", "objects_objects", "objects")] == list(found.values())
    for field in ("area_px", "area_m2", "estimate"):
        whole = {r["class"]: r[field] for r in csv.DictReader((out / "scene_counts.csv").open())}
        assert {name: rows["1", name][field] for name in found} == whole


@pytest.mark.parametrize("changed", [{}, {"accept": ["resolution"]}, {"flips": True}, {"min_area": 2}])
def test_counts_of_other_scenes_and_settings_than_those_of_the_validation_have_no_interval(
    tmp_path, scene, out, changed
):
    sizes = {"pixel_sizes": {"m": [2.0 if "accept" in changed else 0.5] * 3}}
    bundle = make_bundle(
        tmp_path / "bundle",
        objects=OBJECTS,
        training_images=sizes,
        parameters={"precision": "fp32", "augment": {"flips": True}},
    )
    settings = Predict.model_validate({"tile": 96, "overlap": 32, "outputs": ["counts"], **changed})
    Predictor(bundle, settings).predict_file(scene, out, "scene")
    for row in total(out).values():
        assert [row[field] != "" for field in ("estimate", "low", "high")] == [not changed] * 3


def test_zones_of_volumes_are_refused_before_the_prediction(tmp_path, out):
    bundle = make_bundle(tmp_path / "bundle", bands=1, objects=OBJECTS)
    write_nifti(tmp_path / "v.nii.gz", np.zeros((8, 9, 4), np.uint8), np.eye(4))
    zones = write(tmp_path / "z.gpkg", [shapely.box(0, 0, 10, 10)])
    settings = Predict.model_validate({"outputs": ["counts"], "count_by": str(zones)})
    steps: list = []
    with pytest.raises(DataError, match=r"v\.nii\.gz: is a volume[\s\S]*predict\.count_by to null"):
        Predictor(bundle, settings).predict_file(
            tmp_path / "v.nii.gz", out, progress=lambda *done: steps.append(done)
        )
    assert steps == []


@pytest.mark.parametrize("ending", [".shp", ".gpkg", ".gdb"])
def test_the_hash_of_zones_is_of_all_that_is_read(tmp_path, ending):
    def hashed(folder: str, shape=WORLD, crs="EPSG:4326", name="a") -> str:
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / f"z{ending}"
        driver = {"driver": "OpenFileGDB"} if ending == ".gdb" else {}
        blobs = shapely.to_wkb(np.array([shape], object))
        pyogrio.raw.write(
            path, blobs, [np.array([name])], ["name"], geometry_type="Polygon", crs=crs, **driver
        )
        return read_zones(path).sha256

    first = hashed("first")
    assert hashed("same") == first
    changed = [
        hashed("shape", shape=shapely.box(0, 0, 1, 1)),
        hashed("crs", crs="EPSG:4258"),
        hashed("name", name="b"),
    ]
    assert len({first, *changed}) == 4
