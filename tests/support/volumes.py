"""Builders of tiny NIfTI volumes, DICOM series and DICOM segmentations."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

# must not appear in any message
NAME = "Doe^Jane"


def affine_for(codes: str, spacing: tuple[float, ...] = (1.0, 1.5, 4.0), turn: float = 0.0) -> np.ndarray:
    """Affine whose stored axes have these directions; spacing by stored axis, turned about z by radians."""
    directions = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, (code, step) in enumerate(zip(codes, spacing, strict=True)):
        row, sign = directions[code]
        affine[row, column] = sign * step
    around = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine[:3, :3] = around @ affine[:3, :3]
    affine[:3, 3] = (-20.25, 31.5, 7.125)
    return affine.astype(np.float32).astype(np.float64)


def write_nifti(path: Path, values: np.ndarray, affine: np.ndarray | None = None, **header: Any) -> Path:
    """(i, j, k) with an affine; `header` overwrites fields of the header."""
    import nibabel

    image = nibabel.Nifti1Image(values, affine_for("RAS") if affine is None else affine)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    if header:
        overwrite_header(path, **header)
    return path


def overwrite_header(path: Path, **fields: Any) -> None:
    """Overwrite fields of a NIfTI-1 header in place, without any check."""
    import gzip

    import nibabel

    data = path.read_bytes()
    raw = bytearray(gzip.decompress(data) if path.name.endswith(".gz") else data)
    header = nibabel.Nifti1Header(bytes(raw[:348]), check=False)
    for key, value in fields.items():
        header.structarr[key] = value
    raw[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(raw)) if path.name.endswith(".gz") else bytes(raw))


def slice_elements(**over: Any) -> FileDataset:
    """One CT slice of 6 x 5 pixels, 12 of 16 bits, without rescaling; None in `over` leaves an element out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    found = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    values: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "FrameOfReferenceUID": "1.2.3.5",
        "PatientName": NAME,
        "PatientID": "jane-1",
        "PatientBirthDate": "",
        "PatientSex": "",
        "AccessionNumber": "",
        "StudyID": "",
        "StudyDate": "",
        "StudyTime": "",
        "ReferringPhysicianName": "",
        "Modality": "CT",
        "InstanceNumber": 1,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 6,
        "Columns": 5,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelSpacing": [0.5, 0.75],
        "SliceThickness": 2.0,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [10, 20, 30],
        "PixelData": np.arange(30, dtype="<u2").tobytes(),
        **over,
    }
    for key, value in values.items():
        if value is not None:
            setattr(found, key, value)
    return found


def save(elements: FileDataset, path: Path) -> Path:
    """Write a data set with its file meta information."""
    path.parent.mkdir(parents=True, exist_ok=True)
    elements.file_meta.MediaStorageSOPInstanceUID = elements.SOPInstanceUID
    elements.file_meta.MediaStorageSOPClassUID = elements.SOPClassUID
    pydicom.dcmwrite(path, elements, enforce_file_format=True)
    return path


def write_series(folder: Path, values: np.ndarray, **over: Any) -> Path:
    """(slices, rows, columns) unsigned 16 bits as files a, b, ... from the highest slice down, 2 mm apart."""
    count = len(values)
    for i, plane in enumerate(values):
        elements = {
            "Rows": plane.shape[0],
            "Columns": plane.shape[1],
            "InstanceNumber": i + 1,
            "ImagePositionPatient": [10, 20, 30 + 2 * i],
            "PixelData": plane.astype("<u2").tobytes(),
            **over,
        }
        save(slice_elements(**elements), folder / f"{chr(97 + count - 1 - i)}.dcm")
    return folder


def write_seg(path: Path, series: Path, pixels: np.ndarray, labels: list[str], **options: Any) -> Path:
    """DICOM segmentation of a series; pixels as highdicom takes them, in the order of InstanceNumber."""
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentDescription
    from pydicom.sr.codedict import codes

    sources = sorted((pydicom.dcmread(p) for p in series.glob("*.dcm")), key=lambda d: d.InstanceNumber)
    how = AlgorithmIdentificationSequence("tiny", codes.cid7162.ArtificialIntelligence, "1")
    described = [
        SegmentDescription(
            segment_number=i + 1,
            segment_label=label,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=how,
        )
        for i, label in enumerate(labels)
    ]
    made = Segmentation(
        sources,
        pixels,
        options.pop("kind", "BINARY"),
        described,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="tiny",
        manufacturer_model_name="tiny",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)
    return path
