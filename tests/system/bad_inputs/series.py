"""Bad DICOM series and DICOM segmentations."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import MPEG2MPML, generate_uid

from tests.support.volumes import save, slice_elements, write_seg, write_series
from tests.system.bad_inputs.case import DataSet, Pair, cut


def planes(seed: int) -> np.ndarray:
    """Stored values of a series, (4, 6, 5)."""
    return np.random.default_rng(seed).integers(1, 4000, (4, 6, 5))


def segments(*rows: tuple[int, ...]) -> np.ndarray:
    """Rectangles (4, 6, 5, N) uint8, one per pair of first and last row."""
    out = np.zeros((4, 6, 5, len(rows)), np.uint8)
    for i, (first, last) in enumerate(rows):
        out[1:3, first:last, 1:4, i] = 1
    return out


def series_pair(folder: Path, name: str, seed: int) -> Pair:
    """Write a folder of four slices and a DICOM segmentation of it."""
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
    dataset = pydicom.dcmread(path)
    for key, value in elements.items():
        if value is None:
            delattr(dataset, key)
        else:
            setattr(dataset, key, value)
    dataset.save_as(path)


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


@SERIES.case("missing-slice", "1 slices duplicated")
def slice_duplicated(pair):
    dataset = pydicom.dcmread(slices(pair)[1])
    dataset.SOPInstanceUID = generate_uid()
    dataset.save_as(pair.image / "copy.dcm")


@SERIES.case("bad-affine", "is missing in 1 of 4 slices")
def slice_without_position(pair):
    changed(slices(pair)[2], ImagePositionPatient=None)


@SERIES.case("unreadable", "", of="slice")
def slice_truncated(pair):
    cut(slices(pair)[1], 0.97)


@SERIES.case("unreadable", "not a DICOM file", of="slice")
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
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = MPEG2MPML
        dataset.PixelData = pydicom.encaps.encapsulate([bytes(60)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(path)


@SERIES.case("unreadable", "is a folder that holds no DICOM image")
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
