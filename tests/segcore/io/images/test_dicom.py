import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLosslessSV1, RLELossless, generate_uid

from segcore.constants import IGNORE
from segcore.data.volumes import to_planes
from segcore.errors import DataError
from segcore.io.annotations import open_labels
from segcore.io.grid import check_same_grid
from segcore.io.images import open_source
from segcore.prediction.writers.nifti import write_prediction
from tests.support.tiny import params_for
from tests.support.volumes import NAME, save, slice_elements, write_nifti, write_seg, write_series


def stack(count=4, seed=0, high=4096):
    return np.random.default_rng(seed).integers(0, high, (count, 6, 5)).astype(np.uint16)


def volume(path, slices="auto"):
    with open_source(path, slices) as source:
        read = [source.read(plane=i) for i in range(source.info.depth)]
    return np.stack([r.pixels for r in read]), np.stack([r.valid for r in read]), source.info


def edit(path, **over):
    elements = pydicom.dcmread(path)
    for key, value in over.items():
        if value is None:
            delattr(elements, key)
        else:
            setattr(elements, key, value)
    save(elements, path)


def fails(path, kind, *words):
    with pytest.raises(DataError) as caught, open_source(path) as source:
        source.read()
    return told(caught.value, kind, *words)


def told(error, kind, *words):
    assert error.kind == kind
    for word in words:
        assert word in error.what
    assert NAME not in str(error) and "jane" not in str(error).lower()
    assert error.remedy
    return error


# --- images


def test_slices_are_sorted_by_position_not_by_name_or_number(tmp_path):
    values = stack()
    folder = write_series(tmp_path / "ct", values)
    for i, file in enumerate(sorted(folder.iterdir())):
        edit(file, InstanceNumber=i)
    found, valid, info = volume(folder)
    np.testing.assert_array_equal(found[:, 0], values[:, :, ::-1])  # columns run to the patient's right
    assert valid.all()
    assert (info.depth, info.height, info.width, info.dtype, info.axis) == (4, 6, 5, "uint16", 2)
    assert info.spacing == (2, 0.5, 0.75)
    assert info.orientation == "LPS"
    np.testing.assert_allclose(info.affine[:4], [-0.75, 0, 0, -10])


@pytest.mark.parametrize("slices", ["auto", 0, 1])
def test_prediction_of_a_series_is_written_on_its_grid(tmp_path, slices):
    values = stack(high=3)
    found, _, info = volume(write_series(tmp_path / "ct", values), slices)
    write_prediction(tmp_path / "out.nii.gz", found[:, 0].astype(np.uint8), info)
    image = nibabel.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), values.transpose(2, 1, 0))
    np.testing.assert_allclose(image.affine, np.reshape(info.affine, (4, 4)))


def test_a_nifti_file_of_the_same_patient_gives_the_same_planes(tmp_path):
    values = stack()
    turned = {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "ImagePositionPatient": None}
    folder = write_series(tmp_path / "mr", values, **turned)
    for file in folder.iterdir():
        number = int(pydicom.dcmread(file).InstanceNumber)
        edit(file, ImagePositionPatient=[-2 * number, 3, 4])  # sagittal
    found, _, info = volume(folder)
    assert info.axis == 0
    stored = values.transpose(2, 1, 0)
    path = write_nifti(tmp_path / "mr.nii", stored, np.reshape(info.affine, (4, 4)))
    again, _, other = volume(path)
    np.testing.assert_array_equal(found, again)
    check_same_grid(info, other, (folder, path))


def test_rescaled_values_are_int16_where_they_fit_and_float32_elsewhere(tmp_path):
    values = stack()
    whole = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    found, _, info = volume(write_series(tmp_path / "a", values, **whole))
    assert info.dtype == "int16" == found.dtype
    np.testing.assert_array_equal(found[:, 0], values[:, :, ::-1].astype(int) - 1024)
    # 16 bits could overflow; these values do not
    found, _, info = volume(write_series(tmp_path / "b", values, BitsStored=16, HighBit=15, **whole))
    assert info.dtype == "int16" == found.dtype and found.min() < 0
    found, _, info = volume(write_series(tmp_path / "c", values + 50000, BitsStored=16, HighBit=15, **whole))
    assert info.dtype == "float32" == found.dtype and found.max() == values.max() + 48976
    found, _, info = volume(write_series(tmp_path / "d", values, RescaleSlope=0.5, RescaleIntercept=0))
    assert info.dtype == "float32"
    np.testing.assert_array_equal(found[:, 0], values[:, :, ::-1] / 2)


def test_padding_is_not_valid(tmp_path):
    values = stack()
    values[1, 2, 3] = 4000
    _, valid, _ = volume(write_series(tmp_path / "ct", values, PixelPaddingValue=4000))
    np.testing.assert_array_equal(valid, values[:, :, ::-1] != 4000)


def test_monochrome1_is_inverted_unless_its_values_have_a_unit(tmp_path):
    values = stack()
    inverse = {"PhotometricInterpretation": "MONOCHROME1"}
    found, _, _ = volume(write_series(tmp_path / "a", values, **inverse))
    np.testing.assert_array_equal(found[:, 0], 4095 - values[:, :, ::-1])
    found, _, _ = volume(write_series(tmp_path / "b", values, RescaleSlope=1, RescaleIntercept=5, **inverse))
    np.testing.assert_array_equal(found[:, 0], values[:, :, ::-1] + 5)


def test_colours_are_three_bands(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (6, 5, 3)).astype(np.uint8)
    elements = slice_elements(
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelData=values.tobytes(),
    )
    found, _, info = volume(save(elements, tmp_path / "us.dcm"))
    assert info.bands == 3
    np.testing.assert_array_equal(found[0], values[:, ::-1].transpose(2, 0, 1))


def test_a_file_without_a_position_is_a_picture(tmp_path):
    nowhere = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "PixelSpacing": None}
    found, _, info = volume(save(slice_elements(**nowhere), tmp_path / "xray.dcm"))
    np.testing.assert_array_equal(found[0, 0], np.arange(30).reshape(6, 5))
    assert info.affine is info.spacing is info.orientation is None


def test_a_folder_without_positions_is_sorted_by_number_and_lies_nowhere(tmp_path):
    values = stack()
    folder = write_series(tmp_path / "ct", values, ImageOrientationPatient=None, ImagePositionPatient=None)
    found, _, info = volume(folder)
    np.testing.assert_array_equal(found[:, 0], values)
    assert info.affine is None and info.depth == 4
    with pytest.raises(DataError, match="axis 0 of the patient is unknown"), open_source(folder, 0):
        pass
    (folder / "b.dcm").unlink()
    fails(folder, "missing-slice", "1 missing", "3")
    for file in folder.iterdir():
        edit(file, InstanceNumber=None)
    fails(folder, "bad-affine", "neither position nor InstanceNumber")


def multiframe(path, values, **over):
    def holder(**content):
        item = pydicom.Dataset()
        for key, value in content.items():
            setattr(item, key, value)
        return item

    places = [
        holder(PlanePositionSequence=[holder(ImagePositionPatient=[0, 0, -3 * i])])
        for i in range(len(values))
    ]
    shared = holder(
        PlaneOrientationSequence=[holder(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[holder(PixelSpacing=[1, 1], SliceThickness=3)],
        PixelValueTransformationSequence=[holder(RescaleSlope=1, RescaleIntercept=-7)],
    )
    return save(
        slice_elements(
            NumberOfFrames=len(values),
            SharedFunctionalGroupsSequence=[shared],
            PerFrameFunctionalGroupsSequence=places,
            PixelData=values.astype("<u2").tobytes(),
            ImagePositionPatient=None,
            ImageOrientationPatient=None,
            PixelSpacing=None,
            **over,
        ),
        path,
    )


def test_frames_of_one_file_are_planes_in_order_of_position(tmp_path):
    values = stack()
    found, _, info = volume(multiframe(tmp_path / "enhanced.dcm", values))
    np.testing.assert_array_equal(found[:, 0], values[::-1, :, ::-1].astype(int) - 7)
    assert info.spacing == (3, 1, 1) and info.dtype == "int16"


def test_compressed_series_is_read_where_a_decoder_is_installed(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    for file in folder.iterdir():
        elements = pydicom.dcmread(file)
        elements.compress(RLELossless, generate_instance_uid=False)
        elements.save_as(file)
    found, _, _ = volume(folder)
    np.testing.assert_array_equal(found[:, 0], stack()[:, :, ::-1])


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, DeflatedExplicitVRLittleEndian])
def test_transfer_syntax_without_a_decoder_is_named_with_a_remedy(tmp_path, syntax):
    path = save(slice_elements(), tmp_path / "a.dcm")
    data = path.read_bytes()
    old = b"1.2.840.10008.1.2.1\0"
    assert old in data
    elements = pydicom.dcmread(path)
    if syntax.is_encapsulated:
        elements.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
        elements["PixelData"].is_undefined_length = True
    elements.file_meta.TransferSyntaxUID = syntax
    elements.save_as(path)
    error = fails(path, "unreadable", syntax.name, str(syntax))
    assert "dcmdjpeg" in error.remedy and "gdcmconv" in error.remedy


# --- bad series


def test_what_is_no_image_is_passed_over_and_a_damaged_slice_is_not(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    for name in (".DS_Store", "notes.txt", "DICOMDIR", "Thumbs.db"):
        (folder / name).write_text("no image")
    report = slice_elements(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Rows=None, Columns=None, PixelData=None
    )
    save(report, folder / "report.dcm")
    (folder / "sub").mkdir()
    assert volume(folder)[2].depth == 4
    (folder / "IM0005").write_bytes(b"cut off")
    told(fails(folder, "unreadable"), "unreadable", "IM0005")
    (folder / "IM0005").write_bytes(b"")
    fails(folder, "empty-file", "IM0005")


def test_folder_without_images_is_refused(tmp_path):
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "notes.txt").write_text("no image")
    fails(tmp_path / "ct", "unreadable", "holds no DICOM image")


def test_two_series_in_a_folder_are_refused(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    edit(folder / "a.dcm", SeriesInstanceUID="1.2.3.99")
    fails(folder, "mixed-series", "2 series", "1 files such as a.dcm", "3 files")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Rows": 3, "Columns": 10}, ("Rows differs", "6 in 3", "3 in 1")),
        ({"PixelSpacing": [0.5, 0.5]}, ("pixel spacing differs", "0.75")),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}, ("orientation differs", "a.dcm")),
        ({"PhotometricInterpretation": "MONOCHROME1"}, ("PhotometricInterpretation differs",)),
    ],
)
def test_a_slice_that_is_unlike_the_others_is_refused(tmp_path, change, words):
    folder = write_series(tmp_path / "ct", stack())
    edit(folder / "a.dcm", **change)
    fails(folder, "mixed-series", *words)


def test_missing_and_doubled_slices_are_told_with_their_positions(tmp_path):
    folder = write_series(tmp_path / "ct", stack(6))
    shutil.copy(folder / "c.dcm", folder / "again.dcm")
    fails(folder, "missing-slice", "1 slices duplicated", "36 mm")
    (folder / "again.dcm").unlink()
    (folder / "c.dcm").unlink()
    fails(folder, "missing-slice", "4 mm between 34 and 38", "2 mm is usual")


def test_slices_off_their_line_or_partly_without_position_are_refused(tmp_path):
    folder = write_series(tmp_path / "ct", stack(5))
    edit(folder / "c.dcm", ImagePositionPatient=[15, 20, 34])
    fails(folder, "bad-affine", "are not on a line", "c.dcm is 5 mm off")
    edit(folder / "c.dcm", ImagePositionPatient=None)
    fails(folder, "bad-affine", "missing in 1 of 5 slices", "c.dcm")
    (folder / "c.dcm").unlink()
    for file in folder.iterdir():
        edit(file, PixelSpacing=[0, 0])
    edit(folder / "b.dcm", ImagePositionPatient=[10, 20, 34])
    edit(folder / "a.dcm", ImagePositionPatient=[10, 20, 36])
    fails(folder, "bad-affine", "no length")


def test_a_tilted_gantry_is_kept_in_the_affine(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    for file in folder.iterdir():
        z = float(pydicom.dcmread(file).ImagePositionPatient[2])
        edit(file, ImagePositionPatient=[10, 20 + 0.2 * (z - 30), z])
    _, _, info = volume(folder)
    np.testing.assert_allclose(np.reshape(info.affine, (4, 4))[:3, 2], [0, -0.4, 2], atol=1e-12)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(b"")
    fails(path, "empty-file")
    path.write_bytes(b"garbage" * 100)
    fails(path, "unreadable", "a.dcm")
    save(slice_elements(), path)
    path.write_bytes(path.read_bytes()[:-20])
    fails(path, "unreadable", "a.dcm")
    save(slice_elements(PixelData=None), path)
    fails(path, "unreadable")
    save(slice_elements(Rows=65535, Columns=65535), path)
    fails(path, "unreadable", "8589672450")
    save(slice_elements(Rows=65535, Columns=65535, NumberOfFrames=1000), path)
    fails(path, "too-large")
    save(slice_elements(PhotometricInterpretation="PALETTE COLOR"), path)
    fails(path, "not-3d", "PALETTE COLOR")


def test_random_damage_gives_a_data_error_or_an_image_and_tells_no_name(tmp_path, caplog, recwarn):
    rng = np.random.default_rng(0)
    good = save(slice_elements(), tmp_path / "a.dcm").read_bytes()
    refused = 0
    for _ in range(150):
        data = bytearray(good)
        for at in rng.integers(128, len(data), 6):
            data[at] = rng.integers(0, 256)
        (tmp_path / "a.dcm").write_bytes(
            data[: rng.integers(140, len(data) + 1)] if rng.random() < 0.3 else data
        )
        try:
            volume(tmp_path / "a.dcm")
        except DataError as error:
            assert NAME not in str(error)
            refused += 1
    assert refused > 30
    assert NAME not in caplog.text + "".join(str(w.message) for w in recwarn)


# --- segmentations


def drawn(seed=1):
    mask = np.random.default_rng(seed).integers(0, 3, (4, 6, 5)).astype(np.uint8)
    mask[1] = 0  # a plane that the segmentation leaves out
    return mask


def data_for(table, **over):
    return params_for("x").data.model_copy(update={"label_values": table, **over})


def classes(seg, image_path, data, slices="auto"):
    with open_source(image_path, slices) as source:
        info = source.info
    with open_labels(Path(seg), image_path, info, data) as opened:
        read = [opened.read((0, 0, info.height, info.width), i) for i in range(info.depth)]
    return np.stack([r.classes for r in read]), read, opened.notes, info


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("slices", ["auto", 0, 1])
def test_segments_become_classes_by_number_or_label_on_the_image_planes(tmp_path, kind, slices):
    folder = write_series(tmp_path / "ct", stack())
    seg = write_seg(tmp_path / "seg.dcm", folder, drawn(), ["liver", "tumour"], kind=kind)
    found, _, notes, info = classes(seg, folder, data_for({"liver": 1, 2: "ignore"}), slices)
    expected = np.array([0, 1, IGNORE], np.uint8)[drawn()].transpose(2, 1, 0)
    np.testing.assert_array_equal(found, to_planes(expected, info))
    assert notes == []


def test_fractions_of_at_least_half_are_in(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    share = np.random.default_rng(0).random((4, 6, 5))
    options = {"kind": "FRACTIONAL", "fractional_type": "PROBABILITY", "max_fractional_value": 200}
    seg = write_seg(tmp_path / "seg.dcm", folder, share, ["liver"], **options)
    found, _, _, _ = classes(seg, folder, data_for({1: 1}))
    np.testing.assert_array_equal(found, (np.rint(share * 200) >= 100)[:, :, ::-1])


def test_where_segments_overlap_the_last_counts_and_a_note_says_so(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    both = np.zeros((4, 6, 5, 2), np.uint8)
    both[:, :3, :, 0] = 1
    both[:, 2:4, :, 1] = 1
    seg = write_seg(tmp_path / "seg.dcm", folder, both, ["liver", "tumour"])
    found, _, notes, _ = classes(seg, folder, data_for({"tumour": 1, "others": 0}))
    np.testing.assert_array_equal(found[:, :, 0], np.tile([0, 0, 1, 1, 0, 0], (4, 1)))
    assert [kind for kind, _ in notes] == ["overlapping-segments"]
    assert "20 pixels" in notes[0][1]


def test_segments_are_objects_where_objects_are_asked_for(tmp_path):
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
    error = told(caught.value, "unknown-category", "seg.dcm", "segment 2 ('tumour')")
    assert '"tumour"' in error.remedy


def test_a_segmentation_fits_a_nifti_image_of_its_series(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    seg = write_seg(tmp_path / "seg.dcm", folder, drawn(), ["liver", "tumour"])
    affine = np.reshape(volume(folder)[2].affine, (4, 4))
    image = write_nifti(tmp_path / "ct.nii.gz", stack().transpose(2, 1, 0), affine)
    found, *_ = classes(seg, image, data_for({1: 1, 2: 1}))
    np.testing.assert_array_equal(found, drawn()[:, :, ::-1] > 0)


def test_frames_without_position_go_to_the_slices_that_they_reference(tmp_path):
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
    told(caught.value, "affine-mismatch", "references 0 of the image's 4 files")


def test_a_segmentation_of_another_grid_is_refused_with_both_values(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    seg = write_seg(tmp_path / "seg.dcm", folder, drawn(), ["liver", "tumour"])
    data = data_for({1: 1, 2: 1})

    def refused(kind, *words, **change):
        other = write_series(tmp_path / "other", stack(), **change)
        with pytest.raises(DataError) as caught:
            classes(seg, other, data)
        told(caught.value, kind, "seg.dcm and its image other", *words)

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
    told(caught.value, "affine-mismatch", "0.5 voxels off")


def test_segmentation_and_image_are_not_taken_for_each_other(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    seg = write_seg(tmp_path / "seg.dcm", folder, drawn(), ["liver", "tumour"])
    fails(seg, "swapped", "segmentation")
    shutil.copy(seg, folder / "seg.dcm")  # beside its images it is passed over
    assert volume(folder)[2].depth == 4
    with pytest.raises(DataError) as caught:
        classes(folder / "a.dcm", folder, data_for({1: 1}))
    told(caught.value, "unreadable", "is not a DICOM segmentation")


def test_damaged_segmentations_are_refused(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    seg = write_seg(tmp_path / "seg.dcm", folder, drawn(), ["liver", "tumour"])
    whole = seg.read_bytes()
    for data in (b"", b"garbage" * 99, whole[:-10], whole[: len(whole) // 2]):
        seg.write_bytes(data)
        with pytest.raises(DataError) as caught:
            classes(seg, folder, data_for({1: 1, 2: 1}))
        told(caught.value, "unreadable" if data else "empty-file", "seg.dcm")
