"""DICOM series are read as volumes, and series that cannot be used are refused."""

import shutil

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLosslessSV1, RLELossless

from segcore.errors import DataError
from segcore.io.grid import check_same_grid
from segcore.io.images import open_source
from segcore.prediction.writers.nifti import write_prediction
from tests.support.dicom import check_error, edit, fails, multiframe, stack, volume
from tests.support.volumes import NAME, save, slice_elements, write_nifti, write_series


def test_slices_are_sorted_by_position_not_by_name_or_number(tmp_path):
    values = stack()
    folder = write_series(tmp_path / "ct", values)
    for i, file in enumerate(sorted(folder.iterdir())):
        edit(file, InstanceNumber=i)
    found, valid, info = volume(folder)
    # Columns run to the patient's right.
    np.testing.assert_array_equal(found[:, 0], values[:, :, ::-1])
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
        # Sagittal slices.
        edit(file, ImagePositionPatient=[-2 * number, 3, 4])
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
    # 16 bits could overflow, but these values do not.
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


def test_a_folder_without_positions_is_sorted_by_number_and_has_no_affine(tmp_path):
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


def test_files_that_are_not_images_are_skipped_and_damaged_slices_are_not(tmp_path):
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
    check_error(fails(folder, "unreadable"), "unreadable", "IM0005")
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
def test_a_slice_that_differs_from_the_others_is_refused(tmp_path, change, words):
    folder = write_series(tmp_path / "ct", stack())
    edit(folder / "a.dcm", **change)
    fails(folder, "mixed-series", *words)


def test_missing_and_duplicated_slices_are_reported_with_their_positions(tmp_path):
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
    fails(folder, "bad-affine", "length 0")


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


def test_random_damage_gives_a_data_error_or_an_image_and_reports_no_name(tmp_path, caplog, recwarn):
    rng = np.random.default_rng(0)
    good = save(slice_elements(), tmp_path / "a.dcm").read_bytes()
    messages = []
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
            messages.append(str(error))
    assert len(messages) > 30 and not any(NAME in message for message in messages)
    assert NAME not in caplog.text + "".join(str(w.message) for w in recwarn)


def video(path, values, **over):
    """Frames (N, 6, 5) of one file without positions of their own, as of ultrasound."""
    return save(
        slice_elements(NumberOfFrames=len(values), PixelData=values.astype("<u2").tobytes(), **over), path
    )


@pytest.mark.parametrize("position", [None, [1, 2, 3]])
def test_frames_without_positions_are_what_data_pages_says(tmp_path, position):
    values = stack()
    path = video(tmp_path / "us.dcm", values, ImagePositionPatient=position, InstanceNumber=None)
    check_error(fails(path, "pages"), "pages", "4 frames without a position")
    with open_source(path, pages="planes") as source:
        info = source.info
        read = [source.read(plane=i).pixels[0] for i in range(info.depth)]
    assert info.is_stack and info.affine is None and [kind for kind, _ in info.notes] == ["pages-read"]
    np.testing.assert_array_equal(read, values)
    with open_source(path, pages="channels") as source:
        assert (source.info.depth, source.info.bands) == (1, 4)
        np.testing.assert_array_equal(source.read().pixels, values)
        assert source.read().valid.all()


def test_frames_with_positions_are_a_volume_whatever_data_pages_says(tmp_path):
    path = multiframe(tmp_path / "enhanced.dcm", stack())
    for pages in (None, "planes", "channels"):
        with open_source(path, pages=pages) as source:
            assert source.info.depth == 4 and source.info.affine and not source.info.is_stack


def test_values_that_are_scaled_or_inverted_are_noted(tmp_path):
    def notes(**over):
        return dict(volume(write_series(tmp_path / str(len(over)), stack(), **over))[2].notes)

    assert "scaled" not in notes()
    assert "RescaleSlope" in notes(RescaleSlope=1, RescaleIntercept=-1024)["scaled"]
    assert "inverted" in notes(PhotometricInterpretation="MONOCHROME1")["scaled"]
