"""One pass over an item: every pixel of image and mask is read once, checked, measured and packed."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segcore.constants import IGNORE
from segcore.data.packed import PackedWriter, Shapes, can_hold, sample_shape
from segcore.data.raster import Info, Note, Window, pieces
from segcore.errors import DataError
from segcore.files import digest
from segcore.ingest.item_statistics import Measures
from segcore.ingest.links.perceptual_hash import signature
from segcore.ingest.source_files import content_hash, files_of, sidecars_of, stamp
from segcore.io import annotations, images
from segcore.io.annotations._parts import open_parts
from segcore.io.bands import Declared
from segcore.io.grid import open_on_grid
from segcore.io.layouts._item import Item
from segcore.params.data import Data

# columns of the catalogue for one item
Row = dict[str, Any]


@contextmanager
def _of_mask(path: Path, image: Path) -> Iterator[None]:
    """Let errors about a mask that has the name of its image begin with its folder, unless their kind is of masks."""
    try:
        yield
    except DataError as error:
        is_clear = error.kind.startswith("label-") or error.kind == "jpeg-mask"
        if is_clear or path.name != image.name or not error.what.startswith(f"{path.name}: "):
            raise
        raise DataError(f"{path.parent.name}/{error.what}", error.remedy, kind=error.kind) from error


class _Truth:
    """Labels of an image, its mask of valid pixels, and the labels of other annotators (`data.baselines`)."""

    def __init__(self, item: Item, folder: Path, info: Info, data: Data, stack: ExitStack) -> None:
        assert item.mask is not None
        image = folder / item.image

        self._paths = item.mask, item.image

        def opened(path: Path) -> annotations.LabelSource:
            with _of_mask(path, item.image):
                return stack.enter_context(annotations.open_labels(folder / path, image, info, data))

        if item.parts:
            parts = [(name, folder / path) for name, path in item.parts]
            self.labels = stack.enter_context(open_parts(parts, image, info, data))
        else:
            self.labels = opened(item.mask)
        self.others = [opened(path) for path in item.baselines.values()]
        self.valid = None
        if item.valid is not None:
            opened_valid = open_on_grid(folder / item.valid, folder / item.image, info, data)
            self.valid = stack.enter_context(opened_valid)

    @property
    def notes(self) -> list[Note]:
        """What was done to all of them; complete once every window was read."""
        valid = self.valid.info.notes if self.valid else ()
        named = [(kind, f"mask of valid pixels: {text}") for kind, text in valid]
        return [*self.labels.notes, *named, *(note for other in self.others for note in other.notes)]

    def read(
        self, window: Window, plane: int, valid: np.ndarray
    ) -> tuple[annotations.Labels, list[np.ndarray]]:
        """Labels, and those of other annotators, of a window (h, w); IGNORE where pixels are not valid."""
        with _of_mask(*self._paths):
            labels = self.labels.read(window, plane)
        if self.valid is not None:
            valid = valid & (self.valid.read(window, plane).pixels != 0).any(axis=0)
        classes = labels.classes if valid.all() else np.where(valid, labels.classes, np.uint8(IGNORE))
        hidden = classes == IGNORE
        others = [
            np.where(hidden, IGNORE, o.read(window, plane).classes).astype(np.uint8) for o in self.others
        ]
        instances = labels.instances
        if instances is not None:
            instances = np.where(hidden, 0, instances).astype(np.uint32)
        return annotations.Labels(classes, instances), others


def _check_header(info: Info, data: Data, name: str) -> None:
    total = info.depth * info.height * info.width
    if total > data.max_pixels or min(info.depth, info.height, info.width) < 1:
        raise DataError(
            f"{name}: declares {info.depth} x {info.height} x {info.width} pixels, "
            f"data.max_pixels is {data.max_pixels}",
            "restore the file if its header is damaged, cut it into smaller scenes, or raise data.max_pixels",
            kind="too-large",
        )
    if not can_hold(info.dtype):
        raise DataError(
            f"{name}: holds {info.dtype} values", "convert it to integers or floats", kind="unusable"
        )


@contextmanager
def _part(target: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `target` on success; it is not fsynced, which the caller does."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _shapes(info: Info, truth: _Truth, instances: bool) -> Shapes:
    plane, byte = (info.depth, info.height, info.width), np.dtype(np.uint8)
    sampled = (info.depth, *sample_shape(info.height, info.width))
    shapes: Shapes = {
        "pixels": (np.dtype(info.dtype), (*plane, info.bands)),
        "labels": (byte, plane),
        "valid": (byte, plane),
        "sample": (np.dtype(info.dtype), (*sampled, info.bands)),
        "sample_valid": (byte, sampled),
    }
    if instances:
        shapes["instances"] = (np.dtype(np.uint32), plane)
    if truth.others:
        shapes["baselines"] = (byte, (len(truth.others), *plane))
    return shapes


class _Window(NamedTuple):
    """Pixels (C, h, w), validity (h, w), labels, and labels (h, w) of other annotators of a window."""

    pixels: np.ndarray
    valid: np.ndarray
    labels: annotations.Labels
    others: list[np.ndarray]


def _windows(source: Declared, truth: _Truth) -> Iterator[_Window]:
    """All windows of all planes, each read once, so that what is counted while reading is right."""
    for plane in range(source.info.depth):
        for window in pieces(source.info):
            pixels, valid = source.read(window, plane)
            yield _Window(pixels, valid, *truth.read(window, plane, valid))


def _pack(source: Declared, truth: _Truth, data: Data, out: Path) -> tuple[Measures, str, bytes]:
    """Read, measure and write every window; return the measures and the signature of the middle plane."""
    info = source.info
    windows = _windows(source, truth)
    first = next(windows)
    windows, has_instances = chain([first], windows), first.labels.instances is not None
    measures = Measures(info, len(data.classes))
    with PackedWriter(out, _shapes(info, truth, has_instances)) as writer:
        for plane in range(info.depth):
            for window in pieces(info):
                pixels, valid, labels, others = next(windows)
                measures.update(pixels, valid, labels, plane, window)
                writer.write("pixels", (plane,), window, np.moveaxis(pixels, 0, -1))
                writer.write("labels", (plane,), window, labels.classes)
                writer.write("valid", (plane,), window, valid)
                if labels.instances is not None:
                    writer.write("instances", (plane,), window, labels.instances)
                for index, other in enumerate(others):
                    writer.write("baselines", (index, plane), window, other)
            sample, sample_valid = measures.take_sample()
            whole = (0, 0, *sample_valid.shape)
            writer.write("sample", (plane,), whole, sample)
            writer.write("sample_valid", (plane,), whole, sample_valid)
            if plane == info.depth // 2:
                phash, thumb = signature(sample, sample_valid > 0)
    return measures, phash, thumb


def _require_not_swapped(error: DataError, item: Item, folder: Path, info: Info, data: Data) -> None:
    """Raise a clearer error if the mask could not be read, but the image can be read as a mask."""
    if error.kind not in ("label-values", "label-bands", "jpeg-mask"):
        return
    try:
        annotations.read_labels(folder / item.image, folder / item.image, info, data)
    except DataError:
        return
    name = item.image.name
    raise DataError(
        f"{name}: image and mask are swapped: {name} contains class values and {item.mask and item.mask.name} does not",
        "exchange the two files",
        kind="swapped",
    ) from error


def _geometry(info: Info) -> Row:
    return {
        "height": info.height,
        "width": info.width,
        "bands": info.bands,
        "depth": info.depth,
        "dtype": info.dtype,
        "crs": info.crs,
        "transform": json.dumps(info.transform),
        "spacing": json.dumps(info.spacing),
        "affine": json.dumps(info.affine),
        "orientation": info.orientation,
        "axis": info.axis,
        "nodata": info.nodata,
    }


def _hash_of(paths: Sequence[Path], folder: Path) -> str:
    """Hash of a file or, where an image or mask is in several files, of all of them."""
    hashes = [content_hash(folder / path) for path in paths]
    return hashes[0] if len(hashes) == 1 else digest(*hashes)


def _content(item: Item, folder: Path, settings: str) -> tuple[list[str], str]:
    """Content hashes of image, mask, mask of valid pixels and baselines, and the key in the packed file's name."""
    assert item.mask is not None
    paths = [item.valid, *item.baselines.values()]
    hashes = [_hash_of(item.images, folder), _hash_of(item.masks, folder)]
    hashes += [content_hash(folder / path) for path in paths if path]
    if hashes[0] == hashes[1]:
        raise DataError(
            f"{item.image.name}: has the same content as its mask {item.mask.name}",
            "give the mask that belongs to the image, or correct the pattern",
            kind="same-file",
        )
    sidecars = [content_hash(path) for path in sidecars_of(item, folder)]
    # The classes of parts come from their names: a part that is absent changes no other hash.
    parts = [name for name, _ in item.parts]
    return hashes, digest(settings, *hashes, *sidecars, *parts)[:12]


def inspect(item: Item, folder: Path, data: Data, target: Path, settings: str) -> Row:
    """Check one item and pack it into `target`/<id>-<key>.safetensors.

    Args:
        item: item to read.
        folder: folder that the item's paths are relative to.
        data: settings.
        target: existing folder.
        settings: fingerprint of the settings that affect how files are read; part of the key.

    Returns:
        Columns of the catalogue that come from the content of the files.

    Raises:
        DataError: the item cannot be used.
    """
    before, name = stamp(item, folder), item.image.name
    hashes, key = _content(item, folder, settings)
    packed = target / f"{item.id}-{key}.safetensors"
    with ExitStack() as stack, _part(packed) as part:
        source = stack.enter_context(images.open_declared([folder / path for path in item.images], data))
        info = source.info
        _check_header(info, data, name)
        try:
            truth = _Truth(item, folder, info, data, stack)
            declared = Declared(source, data, name)
            measures, phash, thumb = _pack(declared, truth, data, part)
        except DataError as error:
            _require_not_swapped(error, item, folder, info, data)
            raise
        measures.require_usable(name)
        if stamp(item, folder) != before:
            raise DataError(
                f"{name}: was changed while it was read", "run again when it is complete", kind="changed"
            )
    notes = [*info.notes, *truth.notes, *measures.notes(data)]
    return {
        "sha256": hashes[0],
        "label_sha256": hashes[1],
        "packed": packed.name,
        "bytes": sum(f.stat().st_size for path in item.images for f in files_of(folder / path)),
        **_geometry(declared.info),
        "scaled_from": json.dumps(declared.range),
        **measures.facts(data),
        "label_counts": json.dumps(truth.labels.found),
        "phash": phash,
        "thumb": thumb.hex(),
        "notes": notes,
    }


def inspect_job(job: tuple[Item, Path, Data, Path, str]) -> Row:
    """`inspect` with its arguments as one tuple, for reader processes, which do not import the catalogue."""
    return inspect(*job)
