"""Outputs of the command `predict`: where they can be written, which are kept, and what the record says of them."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

from segcore.data.value_facts import value_facts, value_ranges
from segcore.errors import DataError, ParamsError, StageError
from segcore.params import Params, load
from tasks.predict import Batch, run_prediction
from tasks.prediction_arguments import chosen
from tasks.prediction_record import suffixes
from tasks.scenes import find_scenes
from tests.support.bundles import OBJECTS, make_bundle, make_project, noise
from tests.support.tiny import params_for, values_for, write_tif
from tests.support.volumes import write_nifti, write_series
from tests.system.bad_inputs import unprivileged
from tests.system.damage.environments import IN_NAMESPACE, can_mount

ROOT = Path(__file__).parents[2]
ALL = ["classes", "polygons", "probabilities"]
# files of the output `classes`
CLASSES = (".tif", ".qml", ".stac.json")


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    mine = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**mine, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        preexec_fn=unprivileged.drop,
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, a bundle and three scenes."""
    return make_project(tmp_path, 3, monkeypatch)


def with_outputs(*outputs: str) -> Params:
    return Params.model_validate(values_for("x", predict={"overlap": 16, "outputs": list(outputs)}))


def record(folder: Path) -> dict:
    return json.loads((folder / "out/predictions.json").read_text())["scenes"]


def inodes(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_ino for p in (folder / "out").glob("s*")}


def test_fewer_outputs_of_the_same_model_repeat_and_delete_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_prediction(with_outputs(*ALL), ["scenes"], "bundle", Path("out"))
    before = inodes(project)
    assert len(before) == 3 * 6
    counts = run_prediction(with_outputs("classes"), ["scenes"], "bundle", Path("out"))
    assert counts == {"predicted": 0, "done before": 3}
    assert inodes(project) == before
    assert "left outputs" not in capsys.readouterr().out
    assert run_prediction(with_outputs(*ALL), ["scenes"], "bundle", Path("out"))["predicted"] == 0
    (project / "out/s1.gpkg").unlink()
    assert run_prediction(with_outputs("polygons"), ["scenes"], "bundle", Path("out"))["predicted"] == 1


def test_more_outputs_predict_again(project: Path) -> None:
    run_prediction(with_outputs("classes"), ["scenes"], "bundle", Path("out"))
    assert (
        run_prediction(with_outputs("classes", "polygons"), ["scenes"], "bundle", Path("out"))["predicted"]
        == 3
    )
    assert len(inodes(project)) == 3 * 4


def test_fewer_outputs_of_another_model_keep_the_old_files_and_list_them_with_their_model(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_prediction(with_outputs(*ALL), ["scenes"], "bundle", Path("out"))
    before, first = inodes(project), record(project)
    make_bundle(project / "other", seed=1)
    run_prediction(with_outputs("classes"), ["scenes"], "other", Path("out"))
    after = inodes(project)
    assert after.keys() == before.keys()
    written = {f"s{n}{ending}" for n in range(3) for ending in CLASSES}
    assert {name for name in after if after[name] != before[name]} == written
    output = capsys.readouterr().out
    assert "left outputs of an earlier prediction" in output
    assert "s0.gpkg, s0_probabilities.qml, s0_probabilities.tif, s1.gpkg" in output
    assert "--delete-others" in output
    for scene, entry in record(project).items():
        name = Path(scene).stem
        assert entry["files"] == [f"{name}{ending}" for ending in CLASSES]
        kept = {f"{name}.gpkg", f"{name}_probabilities.tif", f"{name}_probabilities.qml"}
        assert set(entry["kept"]) == kept
        assert entry["kept"][f"{name}.gpkg"] == first[scene]["model"]
        assert entry["model"]["weights_sha256"] != first[scene]["model"]["weights_sha256"]
    # they stay listed, until they are written again or deleted
    run_prediction(with_outputs("classes"), ["scenes"], "other", Path("out"))
    assert "s0.gpkg" in capsys.readouterr().out
    run_prediction(with_outputs("classes", "polygons"), ["scenes/s0.tif"], "other", Path("out"))
    assert set(record(project)[str(project / "scenes/s0.tif")]["kept"]) == {
        "s0_probabilities.tif",
        "s0_probabilities.qml",
    }
    run_prediction(with_outputs("classes"), ["scenes"], "other", Path("out"), delete_others=True)
    assert set(inodes(project)) == written
    assert "deleted outputs" in capsys.readouterr().out
    assert not any("kept" in entry for entry in record(project).values())
    counts = run_prediction(with_outputs("classes"), ["scenes"], "other", Path("out"))
    assert counts == {"predicted": 0, "done before": 3}


def test_the_item_of_a_scene_does_not_list_files_that_were_deleted(project: Path) -> None:
    def assets() -> set[str]:
        item = json.loads((project / "out/s0.stac.json").read_text())
        return {asset["href"].removeprefix("./s0") for asset in item["assets"].values()}

    run_prediction(with_outputs(*ALL), ["scenes"], "bundle", Path("out"))
    assert assets() == {".tif", ".qml", "_probabilities.tif", "_probabilities.qml", ".gpkg"}
    run_prediction(with_outputs("polygons"), ["scenes"], "bundle", Path("out"), delete_others=True)
    assert assets() == {".gpkg"}
    assert set(inodes(project)) == {f"s{n}{ending}" for n in range(3) for ending in (".gpkg", ".stac.json")}
    # a damaged item is named, with a remedy that works
    run_prediction(with_outputs(*ALL), ["scenes"], "bundle", Path("out"))
    (project / "out/s0.stac.json").write_text("[]")
    with pytest.raises(DataError, match=r"s0\.stac\.json: is no STAC item .*") as caught:
        run_prediction(with_outputs("polygons"), ["scenes"], "bundle", Path("out"), delete_others=True)
    assert caught.value.remedy == "delete it, and run again"
    (project / "out/s0.stac.json").unlink()
    run_prediction(with_outputs("polygons"), ["scenes"], "bundle", Path("out"), delete_others=True)
    assert assets() == {".gpkg"}


def test_outputs_of_the_command_line_win(project: Path) -> None:
    arguments = ("-m", "tasks", "predict", "scenes", "--model", "bundle", "--output", "out")
    done = command(project, *arguments, "--outputs", "polygons,classes")
    assert done.returncode == 0, done.stderr
    assert set(inodes(project)) == {f"s{n}{ending}" for n in range(3) for ending in (".gpkg", *CLASSES)}
    p = load()
    assert chosen(p, ["probabilities"], ["range"]).predict.accept == ["range"]
    assert chosen(p, None, None).predict == p.predict
    for outputs, accept, name in ((["polygon"], None, "--outputs"), (None, ["units"], "--accept")):
        with pytest.raises(ParamsError, match=rf"{name}: '\w+' is unknown[\s\S]*'(classes|range)'"):
            chosen(p, outputs, accept)


@pytest.mark.parametrize(
    "obstacle",
    ["file", "file/below", "link", "lock", "locked", "sealed", "sealed/new", "full"],
)
def test_an_output_that_cannot_be_written_is_an_error_before_the_model_is_loaded(
    project: Path, obstacle: str
) -> None:
    (project / "file").write_text("a file")
    (project / "link").symlink_to("nowhere")
    (project / "lock/.lock").mkdir(parents=True)
    (project / "locked").mkdir()
    (project / "locked/.lock").touch()
    (project / "locked/.lock").chmod(0o444)
    (project / "sealed").mkdir(mode=0o555)
    code = (
        "import resource, sys; from tasks import predict\n"
        + ("resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n" if obstacle == "full" else "")
        + f"sys.argv = ['predict', 'scenes', '--model', 'no-such-model', '--output', '{obstacle}']\n"
        "predict.main()"
    )
    before = sorted(project.rglob("*"))
    done = command(project, "-c", code)
    assert done.returncode == 1
    assert f"Error: {obstacle}: cannot be used as output folder" in done.stderr
    assert "Remedy: " in done.stderr and "Traceback" not in done.stderr
    assert "no-such-model" not in done.stderr
    assert sorted(project.rglob("*")) == before


def test_a_model_that_is_missing_creates_no_folder(project: Path) -> None:
    done = command(project, "-m", "tasks", "predict", "scenes", "--model", "nowhere", "--output", "out")
    assert done.returncode == 1 and "nowhere: holds no model bundle" in done.stderr
    assert not (project / "out").exists()


def test_notes_of_a_scene_are_printed_once_and_recorded(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [np.moveaxis(noise(64, 64, 3, seed), 0, -1).reshape(-1, 3) for seed in range(3)]
    facts = {"values": value_ranges([value_facts(v) for v in images]), "pixel_sizes": {"m": [2.0, 2.0, 2.0]}}
    make_bundle(project / "fitted", training_images=facts)
    p = chosen(load(), None, ["resolution"])
    with pytest.raises(StageError, match=r"that of the training images 2 m"):
        run_prediction(load(), ["scenes"], "fitted", Path("out"))
    capsys.readouterr()
    assert run_prediction(p, ["scenes"], "fitted", Path("out"))["predicted"] == 3
    printed = capsys.readouterr()
    assert "older version" not in printed.out
    assert printed.out.count("s1.tif: side of a pixel on the ground is 0.5 m") == 1
    for entry in record(project).values():
        ((kind, text),) = entry["notes"]
        assert kind == "other-resolution" and "0.5 m" in text
    assert run_prediction(load(), ["scenes"], "fitted", Path("out"))["predicted"] == 0


def test_scenes_that_are_not_found_name_what_is_there(project: Path) -> None:
    (project / "other").mkdir()
    for name in ("a.xyz", "b.XYZ", "c.doc", "README"):
        (project / "other" / name).touch()
    message = (
        r"other: no scene found \(files in the folder: 2 \.xyz, 1 \.doc, 1 without extension\)[\s\S]*\.tif"
    )
    with pytest.raises(DataError, match=message):
        find_scenes(["other"], Path("out"))
    with pytest.raises(DataError, match=r"\(files of that pattern: 1 \.doc\)"):
        find_scenes(["other/*.doc"], Path("out"))
    with pytest.raises(DataError, match=r"\(there is nothing of that name\)"):
        find_scenes(["nothing"], Path("out"))


HANGING = """\
import sys, time
from segcore.ingest import source_files
from segcore.io.images import _dataset, geotiff
source_files._SECONDS = 3.0
of = geotiff if sys.argv[1] == "open_source" else _dataset.Dataset
real = getattr(of, sys.argv[1])
def hangs(first, *rest, **named):
    if getattr(first, "_path", first).name == "s1.tif":
        time.sleep(1000)
    return real(first, *rest, **named)
setattr(of, sys.argv[1], hangs)
from tasks import predict
sys.argv = ["predict", "scenes", "--model", "bundle", "--output", "out"]
predict.main()
"""


@pytest.mark.parametrize("where", ["open_source", "read"])
def test_a_file_system_that_does_not_answer_costs_one_scene(project: Path, where: str) -> None:
    start = time.monotonic()
    done = command(project, "-c", HANGING, where)
    assert time.monotonic() - start < 60
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "1 of 3 scenes failed" in done.stderr
    assert "s1.tif: reading took longer than 3 s" in done.stderr
    assert sorted(p.name for p in (project / "out").iterdir() if p.suffix == ".tif") == ["s0.tif", "s2.tif"]


def test_no_outputs_and_unknown_ones_are_errors_that_name_the_words(project: Path) -> None:
    for given, words in (([], "--outputs: is empty"), (["foo"], "--outputs: 'foo' is unknown")):
        with pytest.raises(ParamsError, match=words) as caught:
            chosen(load(), given, None)
        assert all(word in caught.value.remedy for word in ALL)
    (project / "params.yaml").write_text(yaml.safe_dump(values_for("source", predict={"outputs": []})))
    with pytest.raises(ParamsError, match=r"predict\.outputs"):
        load()


def test_the_default_overlap_adapts_to_small_windows_and_a_chosen_one_does_not(project: Path) -> None:
    for tile, overlap in ((96, 48), (128, 64)):
        p = params_for("source", evaluate={"tile": tile}, predict={"overlap": 64})
        with Batch(chosen(p, ["classes"], None), ["scenes"], "bundle", Path("out")) as batch:
            assert (batch.predictor.tile, batch.predictor.settings.overlap) == (tile, overlap)
    p = params_for("source", predict={"overlap": 40, "tile": 64})
    with pytest.raises(ParamsError, match=r"predict\.overlap 40 is more than half"):
        Batch(chosen(p, ["classes"], None), ["scenes"], "bundle", Path("out"))


@pytest.mark.skipif(not can_mount(), reason="this user cannot mount a disk")
@pytest.mark.parametrize("outputs", ["classes", "classes,probabilities,polygons", "objects,coco,counts"])
def test_a_full_disk_ends_the_prediction_in_one_sentence_and_keeps_the_scenes_that_are_done(
    project: Path, outputs: str
) -> None:
    # the room that is left when the second scene starts, less than it needs
    code = (
        "import subprocess, sys; from tasks import predict, console\n"
        "add = predict.Batch.predict\n"
        "def filled(batch, scene, progress):\n"
        "    if scene.name == 's1.tif': subprocess.run(\n"
        "        'dd if=/dev/zero of=out/fill bs=1k; truncate -s -20k out/fill', shell=True)\n"
        "    return add(batch, scene, progress)\n"
        "predict.Batch.predict = filled\n"
        "sys.argv = ['predict', 'scenes', '--model', 'objects', '--output', 'out', '--outputs', sys.argv[1]]\n"
        "predict.main()"
    )
    make_bundle(project / "objects", objects=OBJECTS)
    (project / "run.py").write_text(code)
    (project / "out").mkdir()
    mount = "mount -t tmpfs -o size=8m none out"
    run = shlex.join([sys.executable, "run.py", outputs])
    done = subprocess.run(
        [
            *IN_NAMESPACE,
            "sh",
            "-c",
            f"{mount} && {{ {run}; echo status $?; ls out; cat out/predictions.json; }}",
        ],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    output = done.stdout + done.stderr
    assert "status 1" in output and "Traceback" not in output, output
    assert output.count("because the disk is full") == 1 and "free disk space" in output, output
    assert "correct or remove" not in output and "s2" not in output, output
    files = done.stdout.partition("status 1")[2].split()
    last = "s{}_counts.csv" if "counts" in outputs else "s{}.tif"
    assert last.format(0) in files and last.format(1) not in files, output


def test_confidence_is_an_output_as_others(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_bundle(project / "calibrated", calibration={"temperature": 1.5})
    assert "s0_confidence.tif" not in suffixes_of("s0", "classes")
    run_prediction(with_outputs("classes", "confidence"), ["scenes"], "calibrated", Path("out"))
    before = inodes(project)
    files = record(project)[str(project / "scenes/s0.tif")]["files"]
    assert [file for file in files if file.endswith(".tif")] == ["s0.tif", "s0_confidence.tif"]
    for outputs in (["classes"], ["confidence"], ["confidence", "classes"]):
        counts = run_prediction(with_outputs(*outputs), ["scenes"], "calibrated", Path("out"))
        assert counts["predicted"] == 0 and inodes(project) == before
    run_prediction(with_outputs("classes"), ["scenes"], "calibrated", Path("out"), delete_others=True)
    assert {name for name in inodes(project) if "confidence" in name} == set()
    assert "deleted outputs that were not asked for: s0_confidence.tif" in capsys.readouterr().out


def test_scenes_of_an_older_version_are_predicted_again_once(project: Path) -> None:
    run_prediction(with_outputs("classes"), ["scenes"], "bundle", Path("out"))
    path = project / "out/predictions.json"
    content = json.loads(path.read_text())
    for entry in content["scenes"].values():
        # that version wrote neither styles nor items
        del entry["outputs"]
        entry["files"] = entry["files"][:1]
    path.write_text(json.dumps(content))
    for ending in (".qml", ".stac.json"):
        for file in (project / "out").glob(f"*{ending}"):
            file.unlink()
    for again in (3, 0):
        counts = run_prediction(with_outputs("classes"), ["scenes"], "bundle", Path("out"))
        assert counts["predicted"] == again
    assert set(inodes(project)) == {f"s{n}{ending}" for n in range(3) for ending in CLASSES}
    assert not any("kept" in entry for entry in record(project).values())


def test_fewer_outputs_of_volumes_repeat_nothing_and_delete_the_right_files(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_bundle(project / "grey", bands=1, calibration={"temperature": 1.5}, input={"pages": "planes"})
    values = np.random.default_rng(0).integers(0, 255, (3, 24, 20), dtype=np.uint16)
    write_series(project / "ct", values, Rows=24, Columns=20)
    write_nifti(project / "mr.nii.gz", noise(24, 20, 3).transpose(1, 2, 0))
    tifffile.imwrite(project / "st.tif", noise(24, 20, 3), photometric="minisblack")
    maps = {"ct": ["nii.gz", "ctbl"], "mr.nii.gz": ["nii.gz", "ctbl"], "st.tif": ["tif"]}
    for scene, first, then, left in (
        ("ct", ["classes", "dicomseg"], ["dicomseg"], ["dcm"]),
        ("ct", ["classes", "dicomseg"], ["classes"], maps["ct"]),
        ("mr.nii.gz", ["classes", "confidence"], ["classes"], maps["mr.nii.gz"]),
        ("mr.nii.gz", ["classes", "confidence"], ["confidence"], [*maps["mr.nii.gz"], "confidence.nii.gz"]),
        ("mr.nii.gz", ["classes", "polygons"], ["polygons"], maps["mr.nii.gz"]),
        ("st.tif", ["classes", "polygons"], ["polygons"], maps["st.tif"]),
    ):
        out = Path(f"out-{scene}-{'-'.join(first)}-{'-'.join(then)}")
        run_prediction(with_outputs(*first), [scene], "grey", out)
        before = {path.name: path.stat().st_ino for path in out.iterdir()}
        for delete in (False, True):
            counts = run_prediction(with_outputs(*then), [scene], "grey", out, delete_others=delete)
            assert counts == {"predicted": 0, "done before": 1}
            (entry,) = json.loads((out / "predictions.json").read_text())["scenes"].values()
            assert "kept" not in entry and all((out / file).is_file() for file in entry["files"])
        name = scene.partition(".")[0]
        after = {path.name: path.stat().st_ino for path in out.iterdir() if path.name[0] in name}
        assert {file.removeprefix(name).lstrip("._") for file in after} == set(left)
        assert after.items() <= before.items()
        # the record is that of a prediction with these outputs
        assert run_prediction(with_outputs(*then), [scene], "grey", out)["predicted"] == 0
    assert "left outputs" not in capsys.readouterr().out


def test_no_output_that_is_added_takes_the_name_of_another_file(project: Path) -> None:
    make_bundle(project / "calibrated", calibration={"temperature": 1.5})
    write_tif(project / "more/s0_confidence.tif", noise(40, 50))
    run_prediction(with_outputs("classes"), ["scenes", "more"], "calibrated", Path("out"))
    before = inodes(project)
    for scenes in (["scenes", "more"], ["scenes"]):
        with pytest.raises(
            ParamsError,
            match=r"s0_confidence\.\S+ would be an output of s0",
        ):
            run_prediction(with_outputs("classes", "confidence"), scenes, "calibrated", Path("out"))
    assert inodes(project) == before
    # in a new folder, each scene has names of its own
    run_prediction(with_outputs("classes", "confidence"), ["scenes", "more"], "calibrated", Path("new"))
    entries = json.loads((project / "new/predictions.json").read_text())["scenes"].values()
    files = [file for entry in entries for file in entry["files"]]
    assert len(files) == len(set(files)) == 4 * 5


def test_series_get_segmentations_and_other_scenes_an_error(project: Path) -> None:
    make_bundle(project / "grey", bands=1)
    values = np.random.default_rng(0).integers(0, 255, (3, 24, 20), dtype=np.uint16)
    write_series(project / "volumes/ct", values, Rows=24, Columns=20)
    write_nifti(project / "volumes/mr.nii.gz", noise(24, 20, 3).transpose(1, 2, 0))
    p = with_outputs("classes", "dicomseg")
    with pytest.raises(
        StageError, match=r"1 of 2 scenes failed(.|\n)*mr\.nii\.gz: is no DICOM series"
    ) as caught:
        run_prediction(p, ["volumes"], "grey", Path("out"))
    assert caught.value.remedy == "choose other predict.outputs for it, such as classes"
    entry = record(project)[str(project / "volumes/ct")]
    assert entry["files"] == ["ct.nii.gz", "ct.ctbl", "ct.dcm"]
    first = inodes_of(project, "ct.*")
    assert run_prediction(p, ["volumes/ct"], "grey", Path("out")) == {"predicted": 0, "done before": 1}
    assert inodes_of(project, "ct.*") == first
    # a single file of the same name would be overwritten
    (project / "single").mkdir()
    (project / "volumes/ct/a.dcm").rename(project / "single/x.dcm")
    with pytest.raises(ParamsError, match=r"x\.dcm: the prediction of x\.dcm would overwrite a scene"):
        run_prediction(p, ["single/x.dcm"], "grey", Path("single"))
    assert run_prediction(with_outputs("classes"), ["single/x.dcm"], "grey", Path("single"))["predicted"] == 1


def suffixes_of(name: str, *outputs: str) -> list[str]:
    return [name + suffix for suffix in suffixes(outputs)]


def inodes_of(folder: Path, pattern: str) -> dict[str, int]:
    return {p.name: p.stat().st_ino for p in (folder / "out").glob(pattern)}
