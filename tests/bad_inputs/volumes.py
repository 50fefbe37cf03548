"""Bad NIfTI volumes, DICOM series and DICOM segmentations."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.uid import MPEG2MPML, generate_uid

from tests.bad_inputs.case import DataSet, Pair, cut, scramble
from tests.volumes_tiny import (
    affine_for,
    overwrite_header,
    save,
    slice_elements,
    write_nifti,
    write_seg,
    write_series,
)

SHAPE = (12, 10, 5)


def content(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint16 volume and uint8 mask of 0 and 255."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:8, 2:7, 1:4] = 255
    return rng.integers(100, 900, SHAPE).astype(np.uint16) + mask, mask


def nifti_pair(folder: Path, name: str, seed: int) -> Pair:
    made = Pair(folder / "images" / f"{name}.nii.gz", folder / "masks" / f"{name}_m.nii.gz", seed)
    image, mask = content(seed)
    write_nifti(made.image, image)
    write_nifti(made.mask, mask)
    return made


VOLUMES = DataSet(
    "volumes",
    nifti_pair,
    {"images": "images/{file}", "masks": "masks/{stem}_m.*", "label_values": {0: 0, 255: 1}},
)
case = VOLUMES.case


@case("unreadable", "damaged or truncated")
def truncated_nifti(pair):
    cut(pair.image)


@case("unreadable", "header declares 1552 bytes of data, the file has 1241")
def truncated_voxels(pair):
    path = write_nifti(pair.replace_image("truncated_voxels.nii"), content(pair.seed)[0])
    cut(path, 0.8)


@case("unreadable", "damaged or truncated")
def damaged_gzip(pair):
    scramble(pair.image)


@case("unreadable", "damaged or truncated")
def nifti_without_gzip(pair):
    pair.image.write_bytes(gzip.decompress(pair.image.read_bytes()))


@case("unreadable", "is no NIfTI file")
def text_as_nifti(pair):
    pair.replace_image("text_as_nifti.nii").write_text("no NIfTI " * 100)


@case("too-large", "header declares")
def nifti_of_30000_cubed(pair):
    overwrite_header(pair.image, dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])


@case("unreadable", "header declares")
def nifti_of_3000_cubed_in_a_small_file(pair):
    overwrite_header(pair.image, dim=[3, 2000, 2000, 2000, 1, 1, 1, 1])


@case("too-large", "unpacks to more than its header declares")
def nifti_that_unpacks_to_more(pair):
    raw = gzip.decompress(pair.image.read_bytes())
    pair.image.write_bytes(gzip.compress(raw + bytes(2**24)))


@case("unreadable", "")
def nifti_of_no_rows(pair):
    overwrite_header(pair.image, dim=[3, 12, 0, 5, 1, 1, 1, 1])


@case("not-3d", "has 4 dimensions, 12 x 10 x 5 x 40")
def series_in_time(pair):
    values = np.repeat(content(pair.seed)[0][..., None], 40, axis=3)
    write_nifti(pair.image, values)


@case("not-3d", "colour or complex type")
def nifti_of_colours(pair):
    values = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(values, affine_for("RAS")), pair.image)


@case("bad-affine", "voxel spacing (pixdim) is 1 x 0 x 4")
def spacing_of_zero(pair):
    overwrite_header(pair.image, pixdim=[1, 1, 0, 4, 1, 1, 1, 1])


@case("bad-affine", "voxel spacing (pixdim) is nan")
def spacing_that_is_no_number(pair):
    overwrite_header(pair.image, pixdim=[1, np.nan, 1, 4, 1, 1, 1, 1])


@case("bad-affine", "is singular")
def singular_affine(pair):
    overwrite_header(pair.image, srow_x=[1, 1, 0, 0], srow_y=[1, 1, 0, 0])


@case("bad-affine", "no numbers")
def affine_of_nan(pair):
    overwrite_header(pair.image, srow_x=[np.nan, 0, 0, 0])


@case("spacing-mismatch", "voxel spacings differ, image (4.0, 1.5, 1.0) mm, mask (5.0, 1.5, 1.0) mm")
def mask_of_other_spacing(pair):
    write_nifti(pair.mask, content(pair.seed)[1], affine_for("RAS", (1.0, 1.5, 5.0)))


@case("affine-mismatch", "voxel affines differ, image RAS")
def mask_flipped_left_to_right(pair):
    write_nifti(pair.mask, content(pair.seed)[1], affine_for("LAS"))


@case("size-mismatch", "image 5 x 10 x 12, mask 4 x 10 x 12")
def mask_of_fewer_slices(pair):
    write_nifti(pair.mask, content(pair.seed)[1][..., :4])


@case("label-fractions", "holds fractions (float32)", of="mask")
def volume_mask_resampled_to_fractions(pair):
    write_nifti(pair.mask, content(pair.seed)[1].astype(np.float32) / 400)


@case("label-values", "outside the declared classes: 4 (75)", of="mask")
def volume_mask_of_another_value(pair):
    write_nifti(pair.mask, content(pair.seed)[1] // 63)


@case("swapped", "image and mask are swapped")
def swapped_volumes(pair):
    image, mask = pair.image.read_bytes(), pair.mask.read_bytes()
    pair.image.write_bytes(mask)
    pair.mask.write_bytes(image)


@case("other-dtype", "dtype is float32, most others have uint16")
def volume_of_another_type(pair):
    write_nifti(pair.image, content(pair.seed)[0].astype(np.float32))


@case("unreadable", "header of a pair")
def header_of_a_pair(pair):
    path = write_nifti(pair.replace_image("header_of_a_pair.nii"), content(pair.seed)[0])
    overwrite_header(path, magic=b"ni1")


def planes(seed: int) -> np.ndarray:
    """(4, 6, 5) stored values of a series."""
    return np.random.default_rng(seed).integers(1, 4000, (4, 6, 5))


def segments(*names: tuple[int, ...]) -> np.ndarray:
    """(4, 6, 5, 1 or 2) uint8: rectangles that overlap where there are two."""
    out = np.zeros((4, 6, 5, len(names)), np.uint8)
    for i, (first, last) in enumerate(names):
        out[1:3, first:last, 1:4, i] = 1
    return out


def series_pair(folder: Path, name: str, seed: int) -> Pair:
    """A folder of four slices and a DICOM segmentation of it."""
    made = Pair(folder / "images" / name, folder / "masks" / f"{name}.dcm", seed)
    write_series(made.image, planes(seed), SeriesInstanceUID=generate_uid())
    write_seg(made.mask, made.image, segments((1, 4)), ["square"])
    return made


SERIES = DataSet(
    "series",
    series_pair,
    {"images": "images/*", "masks": "masks/{stem}.dcm", "label_values": {"square": 1, "rim": 0}},
    sound=4,
)


def slices(pair: Pair) -> list[Path]:
    return sorted(pair.image.iterdir())


def changed(path: Path, **elements: object) -> None:
    found = pydicom.dcmread(path)
    for key, value in elements.items():
        if value is None:
            delattr(found, key)
        else:
            setattr(found, key, value)
    found.save_as(path)


@SERIES.case("mixed-series", "holds 2 series")
def two_series_in_a_folder(pair):
    changed(slices(pair)[0], SeriesInstanceUID="1.2.9")


@SERIES.case("mixed-series", "Rows differs between slices")
def localizer_among_slices(pair):
    first = pydicom.dcmread(slices(pair)[0])
    elements = slice_elements(
        SeriesInstanceUID=first.SeriesInstanceUID,
        Rows=3,
        PixelData=bytes(30),
        ImagePositionPatient=[10, 20, 50],
    )
    save(elements, pair.image / "z.dcm")


@SERIES.case("missing-slice", "slices missing or unevenly spaced")
def slice_missing(pair):
    slices(pair)[1].unlink()


@SERIES.case("missing-slice", "1 slices doubled")
def slice_doubled(pair):
    found = pydicom.dcmread(slices(pair)[1])
    found.SOPInstanceUID = generate_uid()
    found.save_as(pair.image / "copy.dcm")


@SERIES.case("bad-affine", "is missing in 1 of 4 slices")
def slice_without_position(pair):
    changed(slices(pair)[2], ImagePositionPatient=None)


@SERIES.case("unreadable", "", of="slice")
def slice_truncated(pair):
    cut(slices(pair)[1], 0.97)


@SERIES.case("unreadable", "no DICOM file", of="slice")
def slice_of_text(pair):
    slices(pair)[1].write_text("nothing " * 200)


@SERIES.case("empty-file", "0 bytes", of="slice")
def slice_empty(pair):
    slices(pair)[1].write_bytes(b"")


@SERIES.case("too-large", "header declares", of="slice")
def slice_of_absurd_size(pair):
    for path in slices(pair):
        changed(path, Rows=65535, Columns=65535, NumberOfFrames=30000)


@SERIES.case("unreadable", "cannot be decoded here", of="slice")
def slice_of_a_codec_without_decoder(pair):
    for path in slices(pair):
        found = pydicom.dcmread(path)
        found.file_meta.TransferSyntaxUID = MPEG2MPML
        found.PixelData = pydicom.encaps.encapsulate([bytes(60)])
        found["PixelData"].VR = "OB"
        found["PixelData"].is_undefined_length = True
        found.save_as(path)


@SERIES.case("unreadable", "is a folder without a DICOM image")
def folder_of_notes(pair):
    for path in slices(pair):
        path.unlink()
    (pair.image / "notes.txt").write_text("nothing to see")


@SERIES.case("affine-mismatch", "", of="mask")
def segmentation_of_another_patient(pair):
    changed(pair.mask, FrameOfReferenceUID="1.2.99")


@SERIES.case("overlapping-segments", "6 pixels are in more than one segment")
def segments_that_overlap(pair):
    write_seg(pair.mask, pair.image, segments((1, 3), (2, 4)), ["square", "rim"])


@SERIES.case("unknown-category", "tumour", of="mask")
def segment_that_is_not_declared(pair):
    write_seg(pair.mask, pair.image, segments((1, 4)), ["tumour"])


@SERIES.case("unreadable", "", of="mask")
def image_where_a_segmentation_is_expected(pair):
    pair.mask.write_bytes(slices(pair)[0].read_bytes())


@SERIES.case("swapped", "is a DICOM segmentation where an image is expected")
def segmentation_where_an_image_is_expected(pair):
    path = pair.mask.with_name("segmentation_where_an_image_is_expected.dcm")
    target = pair.image.with_name(path.name)
    target.write_bytes(path.read_bytes())
    changed(target, SeriesDescription="not its own mask")
    for file in slices(pair):
        file.unlink()
    pair.image.rmdir()
    pair.image = target
