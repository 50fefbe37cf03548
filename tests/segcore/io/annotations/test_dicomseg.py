"""DICOM segmentations become class indices on the planes of their image."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from segcore.constants import IGNORE
from segcore.data.volumes import to_planes
from segcore.errors import DataError
from segcore.io.annotations import open_labels
from segcore.io.images import open_source
from tests.support.dicom import check_error, edit, fails, stack, volume
from tests.support.tiny import params_for
from tests.support.volumes import write_nifti, write_seg, write_series


def drawn(seed=1):
    mask = np.random.default_rng(seed).integers(0, 3, (4, 6, 5)).astype(np.uint8)
    # A plane without a frame in the segmentation.
    mask[1] = 0
    return mask


def data_for(table, **over):
    return params_for("x").data.model_copy(update={"label_values": table, **over})


def classes(seg, image_path, data, slices="auto"):
    with open_source(image_path, slices) as source:
        info = source.info
    with open_labels(Path(seg), image_path, info, data) as opened:
        planes = [opened.read((0, 0, info.height, info.width), i) for i in range(info.depth)]
    return np.stack([p.classes for p in planes]), planes, opened.notes, info


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("slices", ["auto", 0, 1])
def test_segments_become_classes_by_number_or_label_on_the_image_planes(tmp_path, kind, slices):
    folder = write_series(tmp_path / "ct", stack())
    seg = write_seg(tmp_path / "seg.dcm", folder, drawn(), ["liver", "tumour"], kind=kind)
    found, _, notes, info = classes(seg, folder, data_for({"liver": 1, 2: "ignore"}), slices)
    expected = np.array([0, 1, IGNORE], np.uint8)[drawn()].transpose(2, 1, 0)
    np.testing.assert_array_equal(found, to_planes(expected, info))
    assert notes == []


def test_fractions_of_at_least_half_belong_to_the_segment(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    fractions = np.random.default_rng(0).random((4, 6, 5))
    options = {"kind": "FRACTIONAL", "fractional_type": "PROBABILITY", "max_fractional_value": 200}
    seg = write_seg(tmp_path / "seg.dcm", folder, fractions, ["liver"], **options)
    found, _, _, _ = classes(seg, folder, data_for({1: 1}))
    np.testing.assert_array_equal(found, (np.rint(fractions * 200) >= 100)[:, :, ::-1])


def test_where_segments_overlap_the_last_is_used_and_noted(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    both = np.zeros((4, 6, 5, 2), np.uint8)
    both[:, :3, :, 0] = 1
    both[:, 2:4, :, 1] = 1
    seg = write_seg(tmp_path / "seg.dcm", folder, both, ["liver", "tumour"])
    found, _, notes, _ = classes(seg, folder, data_for({"tumour": 1, "others": 0}))
    np.testing.assert_array_equal(found[:, :, 0], np.tile([0, 0, 1, 1, 0, 0], (4, 1)))
    assert [kind for kind, _ in notes] == ["overlapping-segments"]
    assert "20 pixels" in notes[0][1]


def test_segments_are_objects_with_instances(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    seg = write_seg(tmp_path / "seg.dcm", folder, drawn(), ["cell", "cell"])
    found, read, _, _ = classes(seg, folder, data_for({"cell": 1}, instances=True))
    np.testing.assert_array_equal(np.stack([r.instances for r in read]), drawn()[:, :, ::-1])
    np.testing.assert_array_equal(found, drawn()[:, :, ::-1] > 0)


def test_segment_that_is_not_declared_is_named(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    seg = write_seg(tmp_path / "seg.dcm", folder, drawn(), ["liver", "tumour"])
    with pytest.raises(DataError) as caught:
        classes(seg, folder, data_for({"liver": 1}))
    error = check_error(caught.value, "unknown-category", "seg.dcm", "segment 2 ('tumour')")
    assert '"tumour"' in error.remedy


def test_a_segmentation_fits_a_nifti_image_of_its_series(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    seg = write_seg(tmp_path / "seg.dcm", folder, drawn(), ["liver", "tumour"])
    affine = np.reshape(volume(folder)[2].affine, (4, 4))
    image = write_nifti(tmp_path / "ct.nii.gz", stack().transpose(2, 1, 0), affine)
    found, *_ = classes(seg, image, data_for({1: 1, 2: 1}))
    np.testing.assert_array_equal(found, drawn()[:, :, ::-1] > 0)


def test_frames_without_position_are_placed_on_the_slices_that_they_reference(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    seg = write_seg(tmp_path / "seg.dcm", folder, drawn(), ["liver", "tumour"])
    elements = pydicom.dcmread(seg)
    for group in elements.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence
    elements.save_as(seg)
    found, *_ = classes(seg, folder, data_for({1: 1, 2: 1}))
    np.testing.assert_array_equal(found, drawn()[:, :, ::-1] > 0)
    for file in folder.iterdir():
        edit(file, SOPInstanceUID=generate_uid())
    with pytest.raises(DataError) as caught:
        classes(seg, folder, data_for({1: 1, 2: 1}))
    check_error(caught.value, "affine-mismatch", "references 0 of the image's 4 files")


def test_a_segmentation_of_another_grid_is_refused_with_both_values(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    seg = write_seg(tmp_path / "seg.dcm", folder, drawn(), ["liver", "tumour"])
    data = data_for({1: 1, 2: 1})

    def refused(kind, *words, **change):
        other = write_series(tmp_path / "other", stack(), **change)
        with pytest.raises(DataError) as caught:
            classes(seg, other, data)
        check_error(caught.value, kind, "seg.dcm and its image other", *words)

    refused("affine-mismatch", "frames of reference differ", "1.2.3.5", "9.9", FrameOfReferenceUID="9.9")
    refused("affine-mismatch", "voxels off", PixelSpacing=[0.6, 0.75])
    refused("affine-mismatch", "voxels off", ImageOrientationPatient=[0.8, 0.6, 0, -0.6, 0.8, 0])
    small = {"Rows": 5, "PixelData": stack()[0, :5].tobytes()}
    refused("size-mismatch", "4 x 5 x 5", "reaches", **small)
    for file in sorted(folder.glob("*.dcm")):
        position = [float(v) for v in pydicom.dcmread(file).ImagePositionPatient]
        edit(file, ImagePositionPatient=[position[0], position[1], position[2] + 1])
    with pytest.raises(DataError) as caught:
        classes(seg, folder, data)
    check_error(caught.value, "affine-mismatch", "0.5 voxels off")


def test_segmentation_and_image_are_not_confused(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    seg = write_seg(tmp_path / "seg.dcm", folder, drawn(), ["liver", "tumour"])
    fails(seg, "swapped", "segmentation")
    # In the folder of its images it is skipped.
    shutil.copy(seg, folder / "seg.dcm")
    assert volume(folder)[2].depth == 4
    with pytest.raises(DataError) as caught:
        classes(folder / "a.dcm", folder, data_for({1: 1}))
    check_error(caught.value, "unreadable", "is not a DICOM segmentation")


def test_damaged_segmentations_are_refused(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    seg = write_seg(tmp_path / "seg.dcm", folder, drawn(), ["liver", "tumour"])
    whole = seg.read_bytes()
    for data in (b"", b"garbage" * 99, whole[:-10], whole[: len(whole) // 2]):
        seg.write_bytes(data)
        with pytest.raises(DataError) as caught:
            classes(seg, folder, data_for({1: 1, 2: 1}))
        check_error(caught.value, "unreadable" if data else "empty-file", "seg.dcm")
