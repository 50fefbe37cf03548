"""Reads DICOM Segmentation files (DICOM PS3.3, A.51): segments and frames, without placing them on an image."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segcore.errors import DataError
from segcore.io.images._checks import RESTORE
from segcore.io.images._declared import check_size
from segcore.io.images._elements import frames, header, item, parsing
from segcore.io.images._series import SEGMENTATIONS

_TAGS = (
    *("SOPClassUID", "FrameOfReferenceUID", "NumberOfFrames", "Rows", "Columns", "BitsAllocated"),
    *("SegmentationType", "MaximumFractionalValue", "SegmentSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)


@dataclass(frozen=True)
class Segmentation:
    """A segmentation file.

    Attributes:
        path: of the file.
        elements: pydicom dataset of the header.
        kind: "BINARY", "LABELMAP" or "FRACTIONAL".
        names: segment number -> label.
    """

    path: Path
    elements: Any
    kind: str
    names: dict[int, str]

    def segment_of(self, frame: int) -> int | None:
        """Number of the segment that a frame shows; None for LABELMAP, where the pixel values are the numbers."""
        if self.kind == "LABELMAP":
            return None
        with parsing(self.path):
            return int(item(self.elements, frame, "SegmentIdentificationSequence").ReferencedSegmentNumber)

    def frames(self) -> Iterator[np.ndarray]:
        """Stored values of the frames, (rows, columns) each.

        Raises:
            DataError: pixels are missing, truncated or damaged.
        """
        if self.elements.BitsAllocated != 1 or self.elements.file_meta.TransferSyntaxUID.is_encapsulated:
            yield from frames(self.path, raw=True)
            return
        # pydicom 3.0 fails on bit-packed frames that do not start at a byte boundary, and accepts truncated ones.
        shape = int(self.elements.Rows), int(self.elements.Columns)
        count, size = int(self.elements.get("NumberOfFrames") or 1), shape[0] * shape[1]
        with parsing(self.path):
            packed = np.frombuffer(header(self.path, ("PixelData",), pixels=True).PixelData, np.uint8)
            if len(packed) * 8 < count * size:
                raise DataError(
                    f"{self.path.name}: is truncated: {len(packed)} bytes of pixels for {count} frames of "
                    f"{shape[0]} x {shape[1]} bits",
                    RESTORE,
                    kind="unreadable",
                )
        for start in range(0, count * size, size):
            bits = np.unpackbits(packed[start // 8 : (start + size + 7) // 8], bitorder="little")
            yield bits[start % 8 : start % 8 + size].reshape(shape)

    def references(self, frame: int) -> list[str]:
        """UIDs of the SOP instances that a frame was drawn on."""
        derivation = item(self.elements, frame, "DerivationImageSequence")
        sources = derivation.get("SourceImageSequence", []) if derivation is not None else []
        return [str(source.ReferencedSOPInstanceUID) for source in sources]


def read_segmentation(path: Path) -> Segmentation:
    """Header of a segmentation file.

    Raises:
        DataError: the file is damaged, not a segmentation, or declares more pixels than it can hold.
    """
    elements = header(path, _TAGS)
    if elements.get("SOPClassUID") not in SEGMENTATIONS:
        raise DataError(
            f"{path.name}: is not a DICOM segmentation",
            "provide a Segmentation object, or convert the mask (perhaps an RTSTRUCT) to one or to NIfTI",
            kind="unreadable",
        )
    with parsing(path):
        names = {
            int(s.SegmentNumber): str(s.get("SegmentLabel", ""))[:64]
            for s in elements.get("SegmentSequence", [])
        }
        values = int(elements.Rows) * int(elements.Columns) * int(elements.get("NumberOfFrames") or 1)
        packed = elements.file_meta.TransferSyntaxUID.is_encapsulated
        check_size(path.name, values * int(elements.BitsAllocated) // 8, values, path.stat().st_size, packed)
        return Segmentation(path, elements, str(elements.SegmentationType), names)
