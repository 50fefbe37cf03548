"""Objects of scenes: the outputs agree, and do not depend on the windows in which objects are found."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pyogrio
import pyogrio.raw
import pytest
import rasterio
import shapely
from pycocotools.coco import COCO
from rasterio.features import rasterize

from segcore.errors import ModelError
from segcore.objects.components import components
from segcore.params import Predict
from segcore.prediction import scene_objects
from segcore.prediction.predictor import Predictor
from tests.support.bundles import OBJECTS, make_bundle, noise
from tests.support.tiny import write_tif
from tests.support.volumes import affine_for, write_nifti

ROOT = Path(__file__).parents[3]
OUTPUTS = ["classes", "objects", "coco", "counts"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("objects") / "unet-0", objects=OBJECTS)


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        return source.read(1)


def settings(**more) -> Predict:
    return Predict.model_validate({"tile": 96, "overlap": 32, "outputs": OUTPUTS, **more})


def features(path: Path, layer: str = "objects") -> tuple[dict[str, np.ndarray], np.ndarray]:
    meta, _, blobs, values = pyogrio.raw.read(path, layer=layer)
    return dict(zip(meta["fields"], values, strict=True)), shapely.from_wkb(blobs)


@pytest.fixture(scope="module")
def made(bundle, tmp_path_factory):
    """Folder with the outputs of a scene with nodata, which is larger than the windows of the objects."""
    folder = tmp_path_factory.mktemp("made")
    pixels = noise(150, 333)
    pixels[:, 20:60, 100:200] = 0
    write_tif(folder / "scene.tif", pixels, nodata=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene_objects, "_SIDE", 64)
        files = Predictor(bundle, settings()).predict_file(folder / "scene.tif", folder / "out")
    made = ["scene.tif", "scene.qml", "scene_objects.tif", "scene.gpkg", "scene.json", "scene_counts.csv"]
    assert files == [*made, "scene.stac.json"]
    assert sorted(p.name for p in (folder / "out").iterdir()) == sorted(files), "nothing else is left"
    return folder


def test_objects_of_windows_are_the_components_of_the_class_raster(made):
    classes, numbers = read(made / "out/scene.tif"), read(made / "out/scene_objects.tif")
    whole = components(classes, [1, 2])
    assert whole.max() > 500 and np.array_equal(numbers, whole)


def test_the_raster_of_objects_is_a_cog_on_the_grid_of_the_scene(made):
    with rasterio.open(made / "scene.tif") as source, rasterio.open(made / "out/scene_objects.tif") as file:
        assert (file.crs, file.transform, file.shape) == (source.crs, source.transform, source.shape)
        assert (file.dtypes[0], file.nodata, file.compression.name) == ("uint32", 0, "deflate")
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and len(file.tags()["MODEL_SHA256"]) == 64


def test_geopackage_coco_and_raster_agree_object_by_object(made):
    classes, numbers = read(made / "out/scene.tif"), read(made / "out/scene_objects.tif")
    fields, shapes = features(made / "out/scene.gpkg")
    coco = COCO(made / "out/scene.json")
    count = int(numbers.max())
    assert list(fields["id"]) == sorted(coco.getAnnIds()) == list(range(1, count + 1))
    with rasterio.open(made / "out/scene_objects.tif") as file:
        burned = rasterize(
            zip(shapes, fields["id"], strict=True), file.shape, transform=file.transform, dtype="uint32"
        )
    assert np.array_equal(burned, numbers) and shapely.is_valid(shapes).all()
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["field", "water"]
    assert {n: i["file_name"] for n, i in coco.imgs.items()} == {1: "scene.tif"}
    edge = np.zeros(numbers.shape, bool)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    for place in range(0, count, 7):
        mask = numbers == fields["id"][place]
        annotation = coco.anns[fields["id"][place]]
        assert np.array_equal(coco.annToMask(annotation) > 0, mask)
        (index,) = np.unique(classes[mask])
        rows, cols = np.nonzero(mask)
        assert index == fields["class"][place] == annotation["category_id"]
        assert fields["name"][place] == ("background", "field", "water")[index]
        assert mask.sum() == annotation["area"] == fields["area_px"][place]
        assert np.isclose(fields["area_m2"][place], mask.sum() / 4) and annotation["iscrowd"] == 0
        assert annotation["bbox"] == [cols.min(), rows.min(), np.ptp(cols) + 1, np.ptp(rows) + 1]
        assert np.isclose(fields["score"][place], annotation["score"], atol=1e-5)
        assert fields["cut"][place] == (mask & edge).any()


def test_counts_are_those_of_the_objects_with_density_and_interval(made):
    classes, numbers = read(made / "out/scene.tif"), read(made / "out/scene_objects.tif")
    rows = {r["class"]: r for r in csv.DictReader((made / "out/scene_counts.csv").open())}
    assert list(rows) == ["field", "water", ""]
    hectares = (classes != 255).sum() / 40_000
    of_class = {"field": numbers[classes == 1], "water": numbers[classes == 2], "": numbers[numbers > 0]}
    for name, found in of_class.items():
        row, count = rows[name], len(np.unique(found))
        assert int(row["objects"]) == count and int(row["area_px"]) == len(found)
        assert np.isclose(float(row["area_m2"]), len(found) / 4)
        assert np.isclose(float(row["per_hectare"]), count / hectares, rtol=1e-4)
        # 19 are true where 19 are predicted, in three clusters of ratios 1.25, 0.86 and 1
        assert int(row["estimate"]) == count
        assert 0.3 * count < int(row["low"]) < count < int(row["high"]) < 1.8 * count


@pytest.mark.parametrize("method", ["components", "watershed"])
def test_a_scene_has_the_objects_of_an_array(bundle, tmp_path, out, method):
    write_tif(tmp_path / "scene.tif", noise(90, 120))
    predictor = Predictor(bundle, settings(objects=method, score=0.5))
    predictor.predict_file(tmp_path / "scene.tif", out)
    found = predictor.predict(tmp_path / "scene.tif").objects
    order = [int(np.argmax(found.numbers().ravel() == n)) for n in range(1, len(found) + 1)]
    assert order == sorted(order) and len(found) > 20
    assert np.array_equal(read(out / "scene_objects.tif"), found.numbers())
    fields, _ = features(out / "scene.gpkg")
    by_id = np.argsort(fields["id"])
    assert np.allclose(fields["score"][by_id], found.scores, atol=1e-4) and found.scores.min() >= 0.5
    assert (
        Predictor(bundle, settings(outputs=["classes"]))
        .predict(noise(32, 32)[0][..., None].repeat(3, 2))
        .objects
        is None
    )


@pytest.mark.parametrize("method", ["components", "watershed"])
def test_a_network_with_an_output_for_touching_objects_divides_them_alike_in_scenes_and_arrays(
    bundle, tmp_path, out, method
):
    touching = make_bundle(tmp_path / "touching", touching=True, objects={**OBJECTS, "touching": True})
    write_tif(tmp_path / "scene.tif", noise(90, 120))
    predictor = Predictor(touching, settings(objects=method, outputs=[*OUTPUTS, "probabilities"]))
    predictor.predict_file(tmp_path / "scene.tif", out)
    found = predictor.predict(tmp_path / "scene.tif").objects
    numbers = read(out / "scene_objects.tif")
    # probabilities on disk have 65,536 steps
    assert np.mean((numbers > 0) == (found.numbers() > 0)) > 0.999
    assert abs(int(numbers.max()) - len(found)) <= 0.01 * len(found)
    whole = components(read(out / "scene.tif"), [1, 2])
    assert numbers.max() > whole.max(), "components are divided"
    with rasterio.open(out / "scene_probabilities.tif") as file:
        assert file.count == 3


def test_the_watershed_in_windows_keeps_every_pixel(bundle, tmp_path, out, monkeypatch):
    monkeypatch.setattr(scene_objects, "_SIDE", 128)
    write_tif(tmp_path / "scene.tif", noise(200, 300))
    Predictor(bundle, settings(objects="watershed")).predict_file(tmp_path / "scene.tif", out)
    classes, numbers = read(out / "scene.tif"), read(out / "scene_objects.tif")
    assert np.mean((numbers > 0) == np.isin(classes, [1, 2])) > 0.999
    assert set(np.unique(numbers)) == set(range(numbers.max() + 1)), "numbers have no gap"


def test_min_area_and_simplify_are_of_polygons_and_objects(bundle, tmp_path, out):
    write_tif(tmp_path / "scene.tif", noise(120, 160))
    outputs = ["classes", "polygons", "objects", "counts"]
    for name, more in (("plain", {}), ("small", {"min_area": 20}), ("simple", {"simplify": 1.5})):
        Predictor(bundle, settings(outputs=outputs, **more)).predict_file(tmp_path / "scene.tif", out, name)
    plain, small = read(out / "plain_objects.tif"), read(out / "small_objects.tif")
    areas = np.bincount(plain.ravel())
    assert np.array_equal(small > 0, (plain > 0) & (areas[plain] >= 20)) and small.max() < plain.max()
    assert set(np.unique(small)) == set(range(small.max() + 1))
    for layer in ("classes", "objects"):
        of = {name: features(out / f"{name}.gpkg", layer)[1] for name in ("plain", "small", "simple")}
        assert shapely.area(of["small"]).min() >= 20 * 0.25 > shapely.area(of["plain"]).min()
        assert len(of["simple"]) == len(of["plain"]) and shapely.is_valid(of["simple"]).all()
        corners = {name: shapely.get_num_coordinates(shapes).sum() for name, shapes in of.items()}
        assert corners["simple"] < 0.8 * corners["plain"]
    rows = list(csv.DictReader((out / "small_counts.csv").open()))
    assert int(rows[-1]["objects"]) == small.max()
    assert rows[-1]["low"] == "", "the validation counted small objects too"


def test_with_another_score_than_that_of_the_validation_counts_have_no_interval(bundle, tmp_path, out):
    write_tif(tmp_path / "scene.tif", noise(60, 80))
    for score, has_interval in (("auto", True), (0.0, True), (0.3, False)):
        Predictor(bundle, settings(outputs=["counts"], score=score)).predict_file(tmp_path / "scene.tif", out)
        rows = list(csv.DictReader((out / "scene_counts.csv").open()))
        assert [row["low"] != "" for row in rows] == [has_interval] * 3


def test_a_geopackage_has_a_style_in_the_colours_of_the_classes(bundle, tmp_path, out):
    write_tif(tmp_path / "scene.tif", noise(60, 80))
    predictor = Predictor(bundle, settings(outputs=["polygons", "objects"]))
    files = predictor.predict_file(tmp_path / "scene.tif", out)
    assert files == ["scene.gpkg", "scene_objects.tif", "scene.stac.json"]
    fields, _ = features(out / "scene.gpkg", "layer_styles")
    assert fields["f_table_name"].tolist() == ["classes", "objects"] and fields["useAsDefault"].all()
    assert "255,179,0" in fields["styleQML"][0] and 'label="water"' in fields["styleQML"][0]


@pytest.mark.parametrize("codes", ["RAS", "LPS"])
def test_volumes_have_linked_objects_on_the_grid_of_their_source(tmp_path, out, codes):
    bundle = make_bundle(tmp_path / "bundle", bands=1, objects=OBJECTS)
    values = np.random.default_rng(0).integers(0, 255, (20, 24, 9), dtype=np.uint8)
    values = values.repeat(4, 0).repeat(4, 1).repeat(2, 2)
    write_nifti(tmp_path / "v.nii.gz", values, affine_for(codes))
    predictor = Predictor(bundle, settings())
    files = predictor.predict_file(tmp_path / "v.nii.gz", out, "v")
    assert files == ["v.nii.gz", "v.ctbl", "v_objects.nii.gz", "v_counts.csv"]
    classes, numbers = (nibabel.load(out / f"v{end}.nii.gz") for end in ("", "_objects"))
    assert np.array_equal(classes.affine, numbers.affine) and numbers.get_data_dtype() == np.uint32
    classes, numbers = np.asarray(classes.dataobj), np.asarray(numbers.dataobj)
    assert np.array_equal(numbers > 0, np.isin(classes, [1, 2])) and numbers.max() > 50
    ids = np.arange(1, numbers.max() + 1)
    of_class = [np.unique(classes[numbers == n]) for n in ids]
    assert all(len(found) == 1 for found in of_class)
    assert any(len(np.unique(np.nonzero(numbers == n)[2])) > 1 for n in ids[:50]), "planes are linked"
    rows = {r["class"]: r for r in csv.DictReader((out / "v_counts.csv").open())}
    assert int(rows[""]["objects"]) == len(ids) and int(rows[""]["area_px"]) == (numbers > 0).sum()
    assert rows[""]["low"] == rows[""]["area_m2"] == ""
    assert len(predictor.predict(tmp_path / "v.nii.gz").objects) == 18, "one of each plane"


def test_of_a_volume_no_coco_is_written_which_is_printed(tmp_path, out):
    bundle = make_bundle(tmp_path / "bundle", bands=1, objects=OBJECTS)
    write_nifti(tmp_path / "v.nii.gz", np.full((20, 24, 3), 9, np.uint8), affine_for("RAS"))
    notes = []
    for outputs, expected in (
        (["classes", "coco"], ["is a volume, of which no coco is written"]),
        (["objects"], []),
    ):
        predictor = Predictor(bundle, settings(outputs=outputs))
        predictor.predict_file(tmp_path / "v.nii.gz", out, "v", notes=notes.extend)
        assert [text for kind, text in notes if kind == "coco"] == expected
        notes.clear()


def test_a_stop_takes_effect_while_objects_are_found_and_written(bundle, tmp_path, out, monkeypatch):
    monkeypatch.setattr(scene_objects, "_SIDE", 64)
    write_tif(tmp_path / "scene.tif", noise(150, 333))
    predictor, calls = Predictor(bundle, settings()), []

    def predict(limit: float) -> None:
        calls.clear()

        def progress(done: int, total: int) -> None:
            calls.append(done == total)
            if sum(calls) > limit:
                raise KeyboardInterrupt

        predictor.predict_file(tmp_path / "scene.tif", out, progress=progress)

    predict(np.inf)
    for path in out.iterdir():
        path.unlink()
    # each of the 18 windows, and the outputs
    assert sum(calls) > 20
    for limit in range(1, sum(calls), 9):
        with pytest.raises(KeyboardInterrupt):
            predict(limit)
        assert list(out.iterdir()) == []


PEAK = """\
import resource, sys
from pathlib import Path
import numpy as np
from segcore.data.raster import Info
from segcore.objects.find import FindSettings
from segcore.prediction.scene_objects import ObjectStore
from segcore.prediction.writers.objects import write_object_layer
side = int(sys.argv[1])
info = Info(side, side, 3, "uint8")
names = ["ground", "house"]
store = ObjectStore(info, {"foreground": [1], "classes": names, "objects": {}}, FindSettings(), Path(sys.argv[2]))
block = np.zeros((500, 500), np.uint8)
for row in range(20, 480, 50):
    block[row : row + 30, 20:470:50] = block[row, 10:490] = 1
for row in range(0, side, 500):
    for col in range(0, side, 500):
        place = (slice(row, row + 500), slice(col, col + 500))
        store.put(0, place, block, np.full((1, 500, 500), 40_000, np.uint16))
objects = store.objects(0)
write_object_layer(objects, Path(sys.argv[2]) / f"{side}.gpkg", info, names, None)
print(len(objects), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_memory_of_objects_does_not_grow_with_the_scene(tmp_path):
    found = {}
    for side in (1500, 6000):
        command = [sys.executable, "-c", PEAK, str(side), str(tmp_path)]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found[side] = [float(text) for text in done.stdout.split()]
    assert found[6000][0] == 16 * found[1500][0] > 1000
    # classes, probabilities and numbers of the larger scene have 252 MB
    assert found[6000][1] - found[1500][1] < 60, found


def test_a_model_of_data_without_objects_is_refused_with_a_remedy(tmp_path, out):
    plain = make_bundle(tmp_path / "plain")
    for word in ("objects", "coco", "counts"):
        with pytest.raises(ModelError, match=rf"data without objects[\s\S]*{word}") as caught:
            Predictor(plain, settings(outputs=["classes", word]))
        assert "data.instances" in caught.value.remedy
    Predictor(plain, settings(outputs=["classes", "polygons"], min_area=5))


def test_an_overlap_smaller_than_large_objects_is_warned_of(tmp_path, bundle):
    assert Predictor(bundle, settings()).warning is None
    large = make_bundle(tmp_path / "large", objects={**OBJECTS, "side": 40.0})
    assert "longer than 40 pixels" in Predictor(large, settings()).warning
    assert Predictor(large, settings(outputs=["classes"])).warning is None


def test_an_empty_scene_has_outputs_without_objects(bundle, tmp_path, out):
    write_tif(tmp_path / "scene.tif", np.zeros((3, 40, 50), np.uint8), nodata=0)
    Predictor(bundle, settings()).predict_file(tmp_path / "scene.tif", out)
    assert not read(out / "scene_objects.tif").any() and len(features(out / "scene.gpkg")[1]) == 0
    assert json.loads((out / "scene.json").read_text())["annotations"] == []
    assert COCO(out / "scene.json").getAnnIds() == []
    rows = list(csv.DictReader((out / "scene_counts.csv").open()))
    assert [(r["objects"], r["low"], r["hectares"], r["per_hectare"]) for r in rows] == [
        ("0", "", "0", "")
    ] * 3
