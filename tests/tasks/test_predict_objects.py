"""The command `predict` with outputs of objects: record, names, resumption, and counts of all scenes."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import shapely

from segcore.errors import DataError, ModelError, ParamsError
from segcore.params import Params, load
from tasks.predict import Batch, run_prediction, settings_of
from tasks.prediction_arguments import chosen
from tasks.prediction_record import Record
from tests.segcore.prediction.test_zones import write
from tests.support.bundles import OBJECTS, make_bundle, make_project, noise, rewrite
from tests.support.tiny import params_for, values_for, write_tif

SCENES = ["scenes"]
FILES = ["_counts.csv", "_objects.tif", ".gpkg", ".json", ".tif", ".qml", ".stac.json"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, a bundle with objects, and three scenes."""
    folder = make_project(tmp_path, 3, monkeypatch)
    make_bundle(folder / "objects", objects=OBJECTS)
    return folder


def with_outputs(*outputs: str, **more: object) -> Params:
    values = {"overlap": 16, "outputs": list(outputs), **more}
    return Params.model_validate(values_for("x", predict=values))


def predict(p: Params) -> dict[str, int]:
    return run_prediction(p, SCENES, "objects", Path("out"))


def inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (folder / "out").glob("s*")}


def test_outputs_of_objects_are_recorded_and_not_repeated(project: Path) -> None:
    p = with_outputs("classes", "objects", "coco", "counts")
    assert predict(p) == {"predicted": 3, "done before": 0}
    before = inodes(project)
    assert sorted(before) == sorted(f"s{n}{end}" for n in range(3) for end in FILES)
    assert predict(p) == {"predicted": 0, "done before": 3}
    for fewer in (["classes"], ["objects"], ["coco", "counts"], ["classes", "objects"]):
        assert predict(with_outputs(*fewer))["predicted"] == 0
    assert inodes(project) == before
    # the GeoPackage has objects, but no polygons of classes
    assert predict(with_outputs("classes", "polygons"))["predicted"] == 3
    assert predict(with_outputs("classes", "objects", score=0.6))["predicted"] == 3
    assert predict(with_outputs("classes", "objects", objects="watershed"))["predicted"] == 3
    assert predict(with_outputs("classes", "objects", objects="watershed", min_area=4))["predicted"] == 3


def test_files_of_objects_that_are_not_wanted_are_deleted_on_request(project: Path) -> None:
    predict(with_outputs("classes", "objects", "coco", "counts"))
    run_prediction(with_outputs("classes"), SCENES, "objects", Path("out"), delete_others=True)
    assert set(inodes(project)) == {f"s{n}{end}" for n in range(3) for end in (".tif", ".qml", ".stac.json")}


def test_counts_of_all_scenes_are_in_one_file(project: Path) -> None:
    predict(with_outputs("counts"))
    rows = list(csv.DictReader((project / "out/counts.csv").open()))
    assert [r["scene"] for r in rows] == [*(f"s{n}" for n in range(3) for _ in range(3)), "", "", ""]
    for name in ("field", "water", ""):
        *scenes, together = (r for r in rows if r["class"] == name)
        for field in ("objects", "area_px", "hectares", "area_m2"):
            assert np.isclose(float(together[field]), sum(float(r[field]) for r in scenes), rtol=1e-4)
        density = int(together["objects"]) / float(together["hectares"])
        assert np.isclose(float(together["per_hectare"]), density, rtol=1e-4)
        assert int(together["low"]) < int(together["objects"]) < int(together["high"])


def test_changed_zones_are_counted_again(project: Path) -> None:
    def zones(right: float) -> None:
        (project / "zones.gpkg").unlink(missing_ok=True)
        write(project / "zones.gpkg", [shapely.box(500_000, 4_999_000, right, 5_000_000)])

    zones(500_010)
    p = with_outputs("counts", count_by="zones.gpkg")
    assert predict(p)["predicted"] == 3 and predict(p)["predicted"] == 0
    first = (project / "out/s0_zones.csv").read_text()
    zones(500_020)
    assert predict(p)["predicted"] == 3 and (project / "out/s0_zones.csv").read_text() != first
    with pytest.raises(ParamsError, match=r"predict\.count_by"):
        predict(with_outputs("counts", count_by="none.gpkg"))


def test_zones_without_counts_are_an_error_and_with_them_the_zones_of_the_command_count(
    project: Path,
) -> None:
    write(project / "zones.gpkg", [shapely.box(500_000, 4_999_000, 500_010, 5_000_000)])
    with pytest.raises(ParamsError, match=r"--count-by: zones\.gpkg has no effect"):
        chosen(load(), ["objects"], None, "zones.gpkg")
    p = chosen(load(), ["counts"], None, "zones.gpkg")
    assert p.predict.count_by == "zones.gpkg" and chosen(load(), ["counts"], None).predict.count_by is None
    assert predict(p)["predicted"] == 3 and (project / "out/s2_zones.csv").is_file()


def test_changed_attributes_of_a_shapefile_are_counted_again(project: Path) -> None:
    def zones(name: str) -> None:
        square = [shapely.box(500_000, 4_999_000, 500_010, 5_000_000)]
        write(project / "zones.shp", square, name=[name])

    zones("first")
    shapes = (project / "zones.shp").read_bytes()
    p = with_outputs("counts", count_by="zones.shp")
    assert predict(p)["predicted"] == 3 and predict(p)["predicted"] == 0
    zones("second")
    assert (project / "zones.shp").read_bytes() == shapes
    assert predict(p)["predicted"] == 3 and "second" in (project / "out/s0_zones.csv").read_text()


def test_counts_are_printed_per_scene_and_in_all(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict(with_outputs("counts"))
    lines = capsys.readouterr().out.splitlines()
    rows = list(csv.DictReader((project / "out/counts.csv").open()))

    def text(scene: str) -> str:
        of_scene = [r for r in rows if r["scene"] == scene]
        assert [r["class"] for r in of_scene] == ["field", "water", ""]
        return "; ".join(
            f"{r['objects']} {r['class'] or 'objects in all'} (estimate {r['estimate']}, 95 %: {r['low']} to "
            f"{r['high']})"
            for r in of_scene
        )

    for name in ("s0", "s1", "s2"):
        assert f"{name}: {text(name)}" in lines
    assert f"predict: 3 scenes: {text('')}" in lines


@pytest.mark.parametrize(("key", "value"), [("score", 0.6), ("min_area", 4)])
def test_a_count_without_an_estimate_says_why(
    project: Path, capsys: pytest.CaptureFixture[str], key: str, value: float
) -> None:
    predict(with_outputs("counts", **{key: value}))
    reason = (
        f"counts have no estimate and no interval: {'predict.score' if key == 'score' else 'the validation'}"
    )
    assert capsys.readouterr().out.count(reason) == 3
    record = json.loads((project / "out/predictions.json").read_text())
    assert json.dumps(record).count(reason) == 3


def test_counts_of_all_scenes_are_those_of_the_latest_command(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(with_outputs("counts"))
    run_prediction(with_outputs("counts"), ["scenes/s1.tif"], "objects", Path("out"))
    rows = list(csv.DictReader((project / "out/counts.csv").open()))
    assert {r["scene"] for r in rows} == {"s1", ""}
    make_bundle(project / "other", seed=1)
    capsys.readouterr()
    for delete in (False, True):
        run_prediction(with_outputs("classes"), SCENES, "other", Path("out"), delete_others=delete)
        assert ", counts.csv" in capsys.readouterr().out
    assert not list((project / "out").glob("*counts.csv"))


def test_without_objects_record_and_names_are_as_before(project: Path) -> None:
    write_tif(project / "scenes/s0_objects.tif", noise(64, 64))
    write_tif(project / "scenes/predictions.tif", noise(64, 64))
    run_prediction(with_outputs("classes", "polygons"), SCENES, "bundle", Path("out"))
    record = json.loads((project / "out/predictions.json").read_text())
    older = {"tile", "overlap", "flips", "blend", "outputs", "accept", "resample", "precision"}
    assert set(record["settings"]) == older
    names = {Path(path).name: entry["name"] for path, entry in record["scenes"].items()}
    assert names["s0_objects.tif"] == "s0_objects" and names["predictions.tif"] == "predictions"
    # what the older version made the key of
    entry = next(iter(record["scenes"].values()))
    assert entry["key"] == Record(Path("x"), record["model"], record["settings"]).key
    with pytest.raises(ModelError, match="data without objects") as caught:
        run_prediction(with_outputs("objects"), SCENES, "bundle", Path("out"))
    # it has no temperature, which confidence needs
    assert caught.value.remedy.startswith("ask for classes, probabilities, polygons, dicomseg, or")
    rewrite(Path("bundle"), lambda description: description.update(calibration={"temperature": 1.0}))
    with pytest.raises(ModelError, match="data without objects") as caught:
        run_prediction(with_outputs("objects"), SCENES, "bundle", Path("out"))
    assert caught.value.remedy.startswith(
        "ask for classes, probabilities, confidence, polygons, dicomseg, or"
    )
    with pytest.raises(ParamsError, match=r"predictions\.json would be an output of predictions\.tif"):
        predict(with_outputs("coco"))


def test_no_output_of_objects_takes_the_name_of_another_file(project: Path) -> None:
    write_tif(project / "scenes/predictions.tif", noise(64, 64))
    write_tif(project / "scenes/s0_objects.tif", noise(64, 64))
    predict(with_outputs("classes", "objects", "coco"))
    record = json.loads((project / "out/predictions.json").read_text())["scenes"]
    files = [file for entry in record.values() for file in entry["files"]]
    assert len(files) == len(set(files)) == 5 * 6 and "predictions.json" not in files
    assert "scenes-predictions.json" in files


def test_files_of_a_recorded_scene_that_is_not_predicted_are_not_overwritten(project: Path) -> None:
    write_tif(project / "more/s0_objects.tif", noise(64, 64))
    run_prediction(with_outputs("classes"), [*SCENES, "more"], "objects", Path("out"))
    before = (project / "out/s0_objects.tif").read_bytes()
    with pytest.raises(
        ParamsError, match=r"s0_objects\.\S+ would be an output of s0\.tif and of s0_objects\.tif"
    ):
        predict(with_outputs("objects"))
    assert (project / "out/s0_objects.tif").read_bytes() == before


def test_words_and_settings_of_objects_are_those_of_the_parameters(project: Path) -> None:
    assert chosen(load(), ["objects", "counts"], None).predict.outputs == ["objects", "counts"]
    with pytest.raises(ParamsError, match=r"--outputs: 'count' is unknown[\s\S]*'counts'"):
        chosen(load(), ["count"], None)
    for evaluate, predicted, expected in (
        ("watershed", None, "watershed"),
        ("none", None, "components"),
        ("watershed", "components", "components"),
    ):
        p = params_for("x", evaluate={"objects": evaluate}, predict={"objects": predicted})
        assert settings_of(p).objects == expected


def test_a_large_overlap_is_advised_for_large_objects(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_bundle(project / "large", objects={**OBJECTS, "side": 50.0})
    with Batch(with_outputs("objects"), SCENES, "large", Path("out")):
        pass
    assert "longer than 50 pixels" in capsys.readouterr().out


def test_a_name_that_is_too_long_for_objects_is_an_error_of_the_scene(project: Path) -> None:
    write_tif(project / f"scenes/{'n' * 243}.tif", noise(64, 64))
    with Batch(with_outputs("objects"), SCENES, "objects", Path("out")) as batch:
        (scene,) = (s for s in batch.todo if s.name.startswith("n"))
        with pytest.raises(DataError, match="too long"):
            batch.predict(scene)
