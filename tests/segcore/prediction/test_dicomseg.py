"""DICOM segmentations of predictions: the voxels are those of the class map, at their place, by two readers."""

import json
import sys
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import EnhancedCTImageStorage

from segcore.constants import IGNORE
from segcore.data.raster import Info
from segcore.data.volumes import from_planes
from segcore.errors import DataError, ExportError
from segcore.io.annotations import open_labels
from segcore.io.images import open_source
from segcore.prediction.predictor import load
from segcore.prediction.writers.dicom_segmentation import SegmentationWriter
from tests.support.bundles import FACTS, make_bundle
from tests.support.dicom import edit, multiframe, stack
from tests.support.tiny import params_for, write_tif
from tests.support.volumes import NAME, write_series

DESCRIPTION = {**FACTS, "weights_sha256": "ab" * 32, "title": "U-Net", "architecture": "unet"}
# classes of segments
TABLE = {"field": 1, "water": 2}


def header(scene: Path, slices: str | int = "auto") -> Info:
    with open_source(scene, slices) as source:
        return source.info


def drawn(info: Info, seed: int = 0) -> np.ndarray:
    """Classes and voxels without data, with a plane of background."""
    values = np.random.default_rng(seed).integers(0, 4, (info.depth, info.height, info.width))
    values[info.depth // 2] = 0 if info.depth > 1 else values[0]
    return np.where(values == 3, IGNORE, values).astype(np.uint8)


def written(scene: Path, path: Path, slices: str | int = "auto", **over) -> tuple[np.ndarray, Info]:
    """Write random classes; returns them, and the header of the scene."""
    info = header(scene, slices)
    planes = drawn(info)
    SegmentationWriter(scene, info, {**DESCRIPTION, **over}).write(path, planes)
    return planes, info


def read_back(path: Path, scene: Path, info: Info) -> np.ndarray:
    data = params_for("x").data.model_copy(
        update={"label_values": {0: 0, **TABLE}, "classes": FACTS["classes"], "colors": FACTS["colors"]}
    )
    with open_labels(path, scene, info, data) as labels:
        planes = [labels.read((0, 0, info.height, info.width), i).classes for i in range(info.depth)]
    return np.stack(planes)


def check(path: Path, scene: Path, planes: np.ndarray, info: Info) -> pydicom.Dataset:
    """Both readers give the classes, and viewers find what they need; returns the data set."""
    expected = np.where(planes == IGNORE, 0, planes)
    np.testing.assert_array_equal(read_back(path, scene, info), expected)
    made = highdicom.seg.segread(path)
    stored = from_planes(expected, info).transpose(2, 1, 0)
    files = sorted(scene.iterdir()) if scene.is_dir() else [scene]
    sources = [pydicom.dcmread(file) for file in files]
    first = sources[0]
    assert made.FrameOfReferenceUID == first.FrameOfReferenceUID
    assert made.StudyInstanceUID == first.StudyInstanceUID and made.PatientID == first.PatientID
    assert made.SeriesInstanceUID != first.SeriesInstanceUID and made.Modality == "SEG"
    assert made.SegmentationType == "BINARY" and made.segment_numbers == [1, 2]
    assert (made.Rows, made.Columns) == (first.Rows, first.Columns)
    referenced = {
        i.ReferencedSOPInstanceUID for i in made.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referenced == {s.SOPInstanceUID for s in sources}
    if "NumberOfFrames" in first:
        frames = range(1, first.NumberOfFrames + 1)
        pixels = made.get_pixels_by_source_frame(
            first.SOPInstanceUID, list(frames), combine_segments=True, assert_missing_frames_are_empty=True
        )
        # the builder stores them in descending order
        np.testing.assert_array_equal(pixels, stored[::-1])
        return made
    in_order = sorted(sources, key=lambda s: np.dot(normal(s), np.array(s.ImagePositionPatient, float)))
    pixels = made.get_pixels_by_source_instance(
        [s.SOPInstanceUID for s in in_order], combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(pixels, stored)
    return made


def normal(slice_: pydicom.Dataset) -> np.ndarray:
    directions = np.array(slice_.ImageOrientationPatient, float)
    return np.cross(directions[:3], directions[3:])


OBLIQUE = [0.8, 0.6, 0, 0, 0, -1]
# name -> elements of each of four slices, by their number
SERIES = {
    "axial": lambda i: {},
    "reversed": lambda i: {"ImagePositionPatient": [10, 20, 30 - 2 * i]},
    "anisotropic": lambda i: {"PixelSpacing": [0.3, 1.7], "ImagePositionPatient": [1, 2, 9.25 * i]},
    "oblique": lambda i: {
        "ImageOrientationPatient": OBLIQUE,
        "ImagePositionPatient": [10 - 0.6 * 3 * i, 20 + 0.8 * 3 * i, 30],
    },
    "tilted": lambda i: {"ImagePositionPatient": [10, 20 + 0.5 * i, 30 + 2 * i]},
    "rounded": lambda i: {"ImagePositionPatient": [10, 20, 30 + 2 * i + 0.05 * (i % 2)]},
    "without thickness": lambda i: {"SliceThickness": None},
}


def series(folder: Path, name: str, count: int = 4) -> Path:
    values = stack(count)
    write_series(folder, values)
    for file in sorted(folder.iterdir()):
        number = pydicom.dcmread(file).InstanceNumber - 1
        edit(file, **SERIES[name](number))
    return folder


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("slices", ["auto", 0, 1, 2])
def test_voxels_are_read_back_whatever_the_grid_and_the_axis_of_the_planes(tmp_path, name, slices):
    scene = series(tmp_path / "ct", name)
    planes, info = written(scene, tmp_path / "s.dcm", slices)
    made = check(tmp_path / "s.dcm", scene, planes, info)
    assert made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing


def test_a_single_slice_is_read_back(tmp_path):
    scene = series(tmp_path / "ct", "axial", count=1)
    made = check(tmp_path / "s.dcm", scene, *written(scene, tmp_path / "s.dcm"))
    measures = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SpacingBetweenSlices == measures.SliceThickness == 2
    scene = next(iter(scene.iterdir()))
    check(tmp_path / "s.dcm", scene, *written(scene, tmp_path / "s.dcm"))


@pytest.mark.parametrize("slices", ["auto", 0, 1])
def test_frames_of_one_file_are_read_back(tmp_path, slices):
    multiframe(tmp_path / "ct.dcm", stack(5), SOPClassUID=EnhancedCTImageStorage)
    scene = tmp_path / "ct.dcm"
    check(tmp_path / "s.dcm", scene, *written(scene, tmp_path / "s.dcm", slices))


def test_segments_have_names_colours_and_codes_in_any_language(tmp_path):
    scene = series(tmp_path / "ct", "axial")
    for file in scene.iterdir():
        edit(file, SpecificCharacterSet="ISO_IR 100", PatientName="M\u00fcller^J\u00fcrgen")
    names = ["background", "\u809d\u81d3 a\\b", "w" * 80]
    info = header(scene)
    SegmentationWriter(scene, info, {**DESCRIPTION, "classes": names}).write(tmp_path / "s.dcm", drawn(info))
    made = highdicom.seg.segread(tmp_path / "s.dcm")
    assert str(made.PatientName) == "M\u00fcller^J\u00fcrgen"
    labels = [made.get_segment_description(n).segment_label for n in (1, 2)]
    assert labels == ["\u809d\u81d3 a b", "w" * 64]
    for number in (1, 2):
        described = made.get_segment_description(number)
        assert described.segmented_property_type.meaning == "Tissue"
        assert described.algorithm_type.value == "AUTOMATIC"
        colour = highdicom.color.CIELabColor.from_dicom_value(described.RecommendedDisplayCIELabValue)
        assert np.abs(np.subtract(colour.to_rgb(), FACTS["colors"][number])).max() <= 2


def test_background_need_not_be_the_first_class(tmp_path):
    scene = series(tmp_path / "ct", "axial")
    info = header(scene)
    planes = np.zeros((info.depth, info.height, info.width), np.uint8)
    planes[0, 0, 0], planes[1, 2, 3] = 1, 2
    other = {**DESCRIPTION, "classes": ["field", "background", "water"], "foreground": [0, 2]}
    SegmentationWriter(scene, info, other).write(tmp_path / "s.dcm", planes)
    expected = np.array([1, 0, 2], np.uint8)[planes]
    np.testing.assert_array_equal(read_back(tmp_path / "s.dcm", scene, info), expected)


def test_without_any_object_every_plane_has_an_empty_frame(tmp_path):
    scene = series(tmp_path / "ct", "axial")
    info = header(scene)
    planes = np.zeros((info.depth, info.height, info.width), np.uint8)
    SegmentationWriter(scene, info, DESCRIPTION).write(tmp_path / "s.dcm", planes)
    assert pydicom.dcmread(tmp_path / "s.dcm").NumberOfFrames == 2 * info.depth
    np.testing.assert_array_equal(read_back(tmp_path / "s.dcm", scene, info), planes)


def test_the_same_prediction_is_the_same_object_and_another_one_is_not(tmp_path):
    scene = series(tmp_path / "ct", "axial")

    def uids(name: str, **over: object) -> list[str]:
        info = header(scene)
        planes = drawn(info, seed=int(over.pop("seed", 0)))
        SegmentationWriter(scene, info, {**DESCRIPTION, **over}).write(tmp_path / name, planes)
        made = pydicom.dcmread(tmp_path / name)
        own = made.DimensionOrganizationSequence[0].DimensionOrganizationUID
        assert {d.DimensionOrganizationUID for d in made.DimensionIndexSequence} == {own}
        return [made.SOPInstanceUID, made.SeriesInstanceUID, own]

    first = uids("a.dcm")
    assert first == uids("b.dcm") and len(set(first)) == 3
    other_pixels, other_weights = uids("c.dcm", seed=1), uids("d.dcm", weights_sha256="cd" * 32)
    assert other_pixels[0] != first[0] and other_pixels[1] == first[1]
    assert not set(other_weights) & set(first)


def test_elements_of_patient_and_study_may_be_absent(tmp_path):
    scene = series(tmp_path / "ct", "axial")
    absent = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID")
    for file in scene.iterdir():
        edit(file, **dict.fromkeys((*absent, "StudyDate", "StudyTime", "ReferringPhysicianName")))
    written(scene, tmp_path / "s.dcm")
    made = pydicom.dcmread(tmp_path / "s.dcm")
    # of type 2: there, but empty
    assert all(key in made and not made[key].value for key in (*absent, "StudyDate", "StudyTime"))


@pytest.mark.parametrize(
    ("element", "value"),
    [
        ("PatientBirthDate", "anonymised"),
        ("PatientSex", "unknown"),
        ("StudyDate", "2024-05-06"),
        ("StudyDate", ["20240506", "20240507"]),
        ("StudyTime", "noon"),
    ],
)
def test_values_of_patient_and_study_that_are_not_allowed_are_empty(tmp_path, element, value):
    scene = series(tmp_path / "ct", "axial")
    with pydicom.config.disable_value_validation():
        for file in scene.iterdir():
            edit(file, **{element: value})
    written(scene, tmp_path / "s.dcm")
    made = pydicom.dcmread(tmp_path / "s.dcm")
    assert element in made and not made[element].value and made.PatientName == NAME


def test_orientations_that_differ_by_rounding_are_one(tmp_path):
    scene = series(tmp_path / "ct", "axial")
    for number, file in enumerate(sorted(scene.iterdir())):
        edit(file, ImageOrientationPatient=[1, 1e-5 * number, 0, 0, 1, 0])
    planes, info = written(scene, tmp_path / "s.dcm")
    np.testing.assert_array_equal(
        read_back(tmp_path / "s.dcm", scene, info), np.where(planes == IGNORE, 0, planes)
    )


def test_the_orientation_may_be_one_of_each_frame(tmp_path):
    scene = tmp_path / "ct.dcm"
    multiframe(scene, stack(5), SOPClassUID=EnhancedCTImageStorage)
    elements = pydicom.dcmread(scene)
    shared = elements.SharedFunctionalGroupsSequence[0]
    for frame in elements.PerFrameFunctionalGroupsSequence:
        for key in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
            setattr(frame, key, shared[key].value)
    del shared.PlaneOrientationSequence, shared.PixelMeasuresSequence
    elements.save_as(scene)
    check(tmp_path / "s.dcm", scene, *written(scene, tmp_path / "s.dcm"))


GROUPS = [["SharedFunctionalGroupsSequence"], ["PerFrameFunctionalGroupsSequence"]]


def lacking(made: pydicom.Dataset) -> list[str]:
    """Elements that the standard requires of a segmentation (PS3.3, tables that highdicom has) and that it lacks."""
    tables = Path(highdicom.__file__).parent / "_standard"
    modules, elements = (
        json.loads((tables / f"{name}_map.json").read_text()) for name in ("iod_module", "module_attribute")
    )
    wrong = []
    for module in [module["key"] for module in modules["segmentation"] if module["usage"] == "M"]:
        for element in elements[module]:
            items = [made]
            for sequence in element["path"]:
                items = [inner for item in items for inner in item.get(sequence) or []]
            of_type = element["type"]
            for item in items:
                value = item.get(element["keyword"])
                is_there = element["keyword"] in item and (of_type == "2" or value not in (None, "", []))
                # a functional group may be of all frames, or of each
                is_shared = element["path"] in GROUPS and any(
                    all(element["keyword"] in of for of in made[group]) for (group,) in GROUPS
                )
                # only of slides
                is_of_slides = element["keyword"] == "PlanePositionSlideSequence"
                if of_type in ("1", "2") and not (is_there or is_shared or is_of_slides):
                    wrong.append(".".join([*element["path"], element["keyword"]]))
    return sorted(set(wrong))


@pytest.mark.parametrize("name", ["axial", "oblique", "without thickness"])
@pytest.mark.parametrize("is_anonymous", [False, True])
def test_no_element_that_the_standard_requires_is_absent(tmp_path, name, is_anonymous):
    scene = series(tmp_path / "ct", name)
    if is_anonymous:
        for file in scene.iterdir():
            edit(file, PatientName=None, PatientID=None, StudyID=None, ReferringPhysicianName=None)
    written(scene, tmp_path / "s.dcm")
    made = pydicom.dcmread(tmp_path / "s.dcm")
    assert lacking(made) == []
    del made.SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    assert lacking(made) == ["SegmentSequence.SegmentedPropertyTypeCodeSequence"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"FrameOfReferenceUID": None}, "has no frame of reference"),
        ({"StudyInstanceUID": None}, "ct: lacks StudyInstanceUID, which"),
        ({"SOPClassUID": "1.2.3"}, "has an SOPClassUID of images that highdicom does not know"),
        ({"SOPInstanceUID": "1.2.3"}, "has the same SOPInstanceUID in several files"),
        ({"ImagePositionPatient": None, "ImageOrientationPatient": None}, "has no position in space"),
    ],
)
def test_a_series_that_lacks_what_a_segmentation_needs_is_refused_before_it_is_predicted(
    tmp_path, change, words
):
    scene = series(tmp_path / "ct", "axial")
    for file in scene.iterdir():
        edit(file, **change)
    with pytest.raises(DataError, match=words) as caught:
        SegmentationWriter(scene, header(scene), DESCRIPTION)
    assert "such as classes" in caught.value.remedy and NAME not in str(caught.value)


@pytest.mark.parametrize("element", ["StudyInstanceUID", "FrameOfReferenceUID"])
@pytest.mark.parametrize(
    ("value", "words"), [("1.2.3456", "has 2 different values of {}"), (None, "lacks {} in 1 of 4 files")]
)
def test_a_series_of_two_studies_or_places_is_refused_by_the_name_of_the_element(
    tmp_path, element, value, words
):
    scene = series(tmp_path / "ct", "axial")
    edit(sorted(scene.iterdir())[-1], **{element: value})
    with pytest.raises(DataError, match=words.format(element)) as caught:
        SegmentationWriter(scene, header(scene), DESCRIPTION)
    assert "such as classes" in caught.value.remedy and NAME not in str(caught.value)


def test_the_prediction_of_a_series_is_written_as_segmentation(tmp_path, out):
    values = np.random.default_rng(0).integers(0, 255, (3, 24, 20), dtype=np.uint16)
    write_series(tmp_path / "ct", values, Rows=24, Columns=20)
    folder = make_bundle(tmp_path / "b", bands=1)
    files = load(folder, tile=32, overlap=8, outputs=["dicomseg"]).predict_file(tmp_path / "ct", out)
    assert files == ["ct.dcm"] and [f.name for f in out.iterdir()] == files
    predictor = load(folder, tile=32, overlap=8, outputs=["classes", "dicomseg"])
    assert predictor.predict_file(tmp_path / "ct", out) == ["ct.nii.gz", "ct.ctbl", "ct.dcm"]
    made, info = predictor.predict(tmp_path / "ct").classes, header(tmp_path / "ct")
    assert set(np.unique(made)) == {0, 1, 2}
    check(out / "ct.dcm", tmp_path / "ct", made, info)
    stored = np.asarray(nibabel.load(out / "ct.nii.gz").dataobj)
    np.testing.assert_array_equal(stored, from_planes(made, info))


def test_an_instance_network_writes_its_class_map(tmp_path, out):
    values = np.random.default_rng(0).integers(0, 255, (2, 64, 64), dtype=np.uint16)
    write_series(tmp_path / "ct", values, Rows=64, Columns=64)
    folder = make_bundle(tmp_path / "b", bands=1, architecture="mask_rcnn")
    predictor = load(folder, tile=64, overlap=16, outputs=["classes", "dicomseg"])
    predictor.predict_file(tmp_path / "ct", out)
    stored, info = np.asarray(nibabel.load(out / "ct.nii.gz").dataobj), header(tmp_path / "ct")
    found = from_planes(read_back(out / "ct.dcm", tmp_path / "ct", info), info)
    np.testing.assert_array_equal(found, stored)


def test_a_scene_that_is_no_series_is_an_error_and_leaves_nothing(tmp_path, out):
    folder = make_bundle(tmp_path / "b")
    write_tif(tmp_path / "s.tif", np.ones((3, 40, 40), np.uint8))
    predictor = load(folder, tile=32, overlap=8, outputs=["classes", "dicomseg"])
    with pytest.raises(DataError, match=r"s\.tif: is no DICOM series") as caught:
        predictor.predict_file(tmp_path / "s.tif", out)
    assert "such as classes" in caught.value.remedy and not list(out.iterdir())


def test_without_the_package_nothing_is_predicted_and_the_extra_is_named(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ExportError, match="highdicom is not installed") as caught:
        load(bundle, outputs=["dicomseg"])
    assert "install the extra export" in caught.value.remedy
