"""Predicted volumes as DICOM segmentations of their series (DICOM PS3.3, A.51), written by highdicom.

Texts of highdicom and pydicom may quote elements that identify a patient, so they are kept out of all messages.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from segcore.data.raster import Info
from segcore.data.volumes import from_planes
from segcore.errors import DataError
from segcore.io.images._elements import parsing, quiet
from segcore.io.images._series import is_slice, read_series

_OTHER_OUTPUTS = "choose other predict.outputs for it, such as classes"
# Elements of the patient and the study that may be empty; highdicom needs them to be there.
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
)
_DATES = ("PatientBirthDate", "StudyDate")
_SEXES = ("M", "F", "O")
# Elements of each file that a segmentation needs, and whether all files have the same one, or each its own.
_UIDS = {
    "StudyInstanceUID": "same",
    "SeriesInstanceUID": "same",
    "FrameOfReferenceUID": "same",
    "SOPClassUID": "any",
    "SOPInstanceUID": "own",
}
# LO, the type of labels and names, has at most 64 characters
_LONGEST = 64
# as dcmqi numbers series of segmentations
_SERIES_NUMBER = 300


class SegmentationWriter:
    """Writes class maps of a DICOM series as a segmentation with one binary segment per foreground class.

    Segments are numbered from 1 in the order of the foreground classes, and have their names and colours. All are
    coded as "Tissue", because names of classes are no codes. Frames have the position and orientation of the source,
    and reference its instances. Planes in which a class is absent have no frame; if all classes are, each plane has a
    frame without a pixel for each of them.

    UIDs follow from those of the source, the weights, the segments and the pixels: the same prediction, repeated,
    replaces the same object.

    Args:
        scene: folder of a series, or a file.
        info: of the scene.
        description: model.json of the bundle.

    Raises:
        DataError: the scene is no DICOM series, has no place in space, or lacks what a segmentation needs.
    """

    def __init__(self, scene: Path, info: Info, description: dict[str, Any]) -> None:
        self._scene, self._info, self._description = scene, info, description
        self._foreground: list[int] = description["foreground"]
        if not (scene.is_dir() or is_slice(scene)):
            raise self._error("is no DICOM series, so there is no DICOM segmentation of it")
        self._series = read_series(scene)
        if info.affine is None:
            raise self._error("has no position in space, so there is no DICOM segmentation of it")
        files = list(dict.fromkeys(frame.file for frame in self._series.frames))
        is_of_frames = len(files) < len(self._series.frames)
        if is_of_frames and len(files) > 1:
            raise self._error("has several files of several frames, which one segmentation cannot reference")
        if self._series.frame_of_reference is None:
            raise self._error("has no frame of reference (FrameOfReferenceUID), which a segmentation needs")
        self._sources = [_read(file) for file in files]
        self._check_uids()
        _set_orientation(self._sources)
        self._step = round(float(np.linalg.norm(np.reshape(info.affine, (4, 4))[:3, 2])), 6)
        if not is_of_frames and not self._sources[0].get("SliceThickness"):
            # highdicom needs one: the distance of slices, as viewers assume
            self._sources[0].SliceThickness = self._step
        # stored order of the frames of one file, else that of the files
        numbers = [frame.number for frame in self._series.frames]
        self._order = np.argsort(numbers) if is_of_frames else np.arange(len(numbers))
        # what the series lacks shows before it is predicted
        trial = np.zeros((info.depth, info.height, info.width), np.uint8)
        trial[0, 0, 0] = self._foreground[0]
        self._made(trial)

    def _error(self, what: str) -> DataError:
        return DataError(f"{self._scene.name}: {what}", _OTHER_OUTPUTS)

    def _check_uids(self) -> None:
        count = len(self._sources)
        for key, kind in _UIDS.items():
            found = [str(source.get(key) or "") for source in self._sources]
            absent, different = found.count(""), len(set(found))
            if absent:
                where = f" in {absent} of {count} files" if absent < count else ""
                raise self._error(f"lacks {key}{where}, which a DICOM segmentation needs")
            if kind == "same" and different > 1:
                raise self._error(
                    f"has {different} different values of {key}, and one segmentation can only have one"
                )
            if kind == "own" and different < count:
                raise self._error(f"has the same {key} in several files, so that none can be referenced")

    def write(self, path: Path, planes: np.ndarray) -> None:
        """Write a file.

        Args:
            path: .dcm, replaced.
            planes: (D, H, W) uint8 class indices in the order in which the scene was read.

        Raises:
            DataError: highdicom cannot write it. OSError: the disk is full or not writable.
        """
        made = self._made(planes)
        with quiet("pydicom", "highdicom"):
            made.save_as(path, enforce_file_format=True)

    def _made(self, planes: np.ndarray) -> Any:
        """The data set of a segmentation."""
        from highdicom.seg import Segmentation

        table = np.zeros(256, np.uint8)
        table[self._foreground] = np.arange(1, len(self._foreground) + 1)
        stored = from_planes(planes, self._info).transpose(2, 1, 0)[self._order]
        pixels = table[stored]
        title = str(self._description.get("title") or self._description.get("architecture") or "model")
        weights = str(self._description["weights_sha256"])
        with self._failures():
            made = Segmentation(
                source_images=self._sources,
                pixel_array=pixels,
                segmentation_type="BINARY",
                segment_descriptions=[self._segment(n, title, weights) for n in range(len(self._foreground))],
                series_instance_uid=self._uid("series"),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=self._uid("instance", sha256(np.ascontiguousarray(pixels).data).hexdigest()),
                instance_number=1,
                manufacturer="segflow",
                manufacturer_model_name=title[:_LONGEST],
                software_versions=f"weights {weights[:12]}",
                device_serial_number=weights[:_LONGEST],
                content_label="SEGMENTATION",
                series_description=f"Segmentation by {title}"[:_LONGEST],
                # of names of any language
                specific_character_set="ISO_IR 192",
            )
            # highdicom draws this one at random
            self._set_dimension_uid(made)
            if len(self._series.frames) == 1:
                # highdicom writes 1.0
                (measures,) = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
                measures.SpacingBetweenSlices = self._step
        return made

    def _segment(self, index: int, title: str, weights: str) -> Any:
        from highdicom import AlgorithmIdentificationSequence
        from highdicom.color import CIELabColor
        from highdicom.seg import SegmentDescription
        from pydicom.sr.codedict import codes

        of_class = self._foreground[index]
        label = self._description["classes"][of_class]
        return SegmentDescription(
            segment_number=index + 1,
            segment_label=_text(label) or f"class {of_class}",
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type="AUTOMATIC",
            algorithm_identification=AlgorithmIdentificationSequence(
                name=_text(title), family=codes.cid7162.ArtificialIntelligence, version=weights[:12]
            ),
            display_color=CIELabColor.from_rgb(*map(int, self._description["colors"][of_class])),
        )

    def _uid(self, *parts: str) -> str:
        """A UID that depends on the source, the weights, the segments and `parts` only."""
        from pydicom.uid import generate_uid

        segments = [
            (self._description["classes"][i], self._description["colors"][i]) for i in self._foreground
        ]
        of_sources = [str(self._sources[0].SeriesInstanceUID), *(frame.uid for frame in self._series.frames)]
        of_model = [str(self._description["weights_sha256"]), json.dumps(segments)]
        return str(generate_uid(entropy_srcs=[*of_sources, *of_model, *parts]))

    def _set_dimension_uid(self, made: Any) -> None:
        identifier = self._uid("dimensions")
        for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
            item.DimensionOrganizationUID = identifier

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            with quiet("pydicom", "highdicom"):
                yield
        except (OSError, MemoryError):
            raise
        # highdicom raises nearly any exception where an element of the series is missing or wrong
        except Exception as error:  # noqa: BLE001
            raise self._error(self._reason(error)) from None

    def _reason(self, error: Exception) -> str:
        """What is wrong, without texts of the exception except for the keyword of an element."""
        from pydicom.datadict import tag_for_keyword

        keyword = error.name if isinstance(error, AttributeError) else None
        if keyword and tag_for_keyword(keyword) is not None:
            return f"lacks {keyword}, which a DICOM segmentation needs"
        if isinstance(error, KeyError) and error.args == (self._sources[0].SOPClassUID,):
            return "has an SOPClassUID of images that highdicom does not know"
        return f"has elements that highdicom does not accept ({type(error).__name__})"


def _read(file: Path) -> Any:
    """Header of a file, as a pydicom data set with all elements that highdicom reads.

    Values of patient and study that the standard does not allow, as of anonymised series, are empty.
    """
    import pydicom

    with parsing(file):
        elements = pydicom.dcmread(file, stop_before_pixels=True)
        for key in _MAY_BE_EMPTY:
            if key not in elements or not _is_allowed(key, elements[key].value):
                setattr(elements, key, None)
        return elements


def _is_allowed(key: str, value: Any) -> bool:
    """Whether a value of an element that may be empty has the form that highdicom checks."""
    from pydicom.valuerep import DA, TM

    if key == "PatientSex":
        return value in _SEXES
    form = DA if key in _DATES else TM if key == "StudyTime" else None
    if form is None or not value:
        return True
    try:
        form(value)
    # such as of several values
    except (ValueError, TypeError, AttributeError):
        return False
    return True


def _set_orientation(sources: list[Any]) -> None:
    """Give all slices the orientation of the first, and the frames of a file that of its first frame.

    The series was read, so that they differ by rounding only, but highdicom needs equal ones.
    """
    from pydicom import Dataset

    first = sources[0]
    if "PerFrameFunctionalGroupsSequence" not in first:
        for other in sources[1:]:
            other.ImageOrientationPatient = first.ImageOrientationPatient
        return
    shared = first.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for key in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        of_frame = first.PerFrameFunctionalGroupsSequence[0]
        if key not in shared[0] and key in of_frame:
            setattr(shared[0], key, of_frame[key].value)
    first.SharedFunctionalGroupsSequence = shared


def _text(name: str) -> str:
    """A name as LO: no control characters, and no backslash, which separates values."""
    return "".join(c if c.isprintable() and c != "\\" else " " for c in name).strip()[:_LONGEST]
