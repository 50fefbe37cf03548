"""One pass over an item: every pixel of image and mask is read once, checked, measured and packed."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segcore.data.packed import PackedWriter, Shapes, can_hold, sample_shape
from segcore.data.raster import Info, pieces
from segcore.errors import DataError
from segcore.files import digest
from segcore.ingest.agreement import Agreement
from segcore.ingest.item_objects import ItemObjects
from segcore.ingest.item_statistics import Measures
from segcore.ingest.item_truth import Truth
from segcore.ingest.links.perceptual_hash import signature
from segcore.ingest.source_files import content_hash, files_of, sidecars_of, stamp
from segcore.io import annotations, images
from segcore.io.bands import Declared
from segcore.io.layouts._item import Item
from segcore.params.data import Data

# columns of the catalogue for one item
Row = dict[str, Any]


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


def _shapes(info: Info, truth: Truth, instances: bool, touching: bool) -> Shapes:
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
    if touching:
        shapes["touching"] = (byte, plane)
    if truth.others:
        shapes["baselines"] = (byte, (len(truth.others), *plane))
    return shapes


class _Window(NamedTuple):
    """Pixels (C, h, w), validity (h, w), labels, and labels (h, w) of other annotators of a window."""

    pixels: np.ndarray
    valid: np.ndarray
    labels: annotations.Labels
    others: list[np.ndarray]


def _windows(source: Declared, truth: Truth) -> Iterator[_Window]:
    """All windows of all planes, each read once, so that what is counted while reading is right."""
    for plane in range(source.info.depth):
        for window in pieces(source.info):
            pixels, valid = source.read(window, plane)
            yield _Window(pixels, valid, *truth.read(window, plane, valid))


class _Packing(NamedTuple):
    """Measures of an item, its objects and the agreement of its annotators, and the signature of its middle plane.

    Objects and agreement are None where there are none, or one annotator.
    """

    measures: Measures
    objects: ItemObjects | None
    agreement: Agreement | None
    phash: str
    thumb: bytes


def _pack(source: Declared, truth: Truth, data: Data, out: Path) -> _Packing:
    """Read, measure and write every window.

    Raises:
        DataError: a window cannot be read.
    """
    info = source.info
    windows = _windows(source, truth)
    first = next(windows)
    windows, measures = chain([first], windows), Measures(info, len(data.classes))
    objects, agreement = None, Agreement(len(data.annotators), len(data.classes)) if data.annotators else None
    if data.instances == "components" or first.labels.instances is not None:
        objects = ItemObjects(data, truth.numbers.name if truth.numbers else "")
    with PackedWriter(out, _shapes(info, truth, objects is not None, data.touching)) as writer:
        for plane in range(info.depth):
            for window in pieces(info):
                pixels, valid, labels, others = next(windows)
                measures.update(pixels, valid, labels, plane, window)
                writer.write("pixels", (plane,), window, np.moveaxis(pixels, 0, -1))
                writer.write("labels", (plane,), window, labels.classes)
                writer.write("valid", (plane,), window, valid)
                if objects and labels.instances is not None:
                    writer.write("instances", (plane,), window, objects.add(labels))
                if agreement:
                    agreement.update(others, labels.classes)
                for index, other in enumerate(others):
                    writer.write("baselines", (index, plane), window, other)
            if objects:
                objects.finish(writer, out, plane)
            sample, sample_valid = measures.take_sample()
            whole = (0, 0, *sample_valid.shape)
            writer.write("sample", (plane,), whole, sample)
            writer.write("sample_valid", (plane,), whole, sample_valid)
            if plane == info.depth // 2:
                phash, thumb = signature(sample, sample_valid > 0)
    return _Packing(measures, objects, agreement, phash, thumb)


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
    """Content hashes of image, mask, mask of valid pixels, baselines and object numbers, and the packed file's key."""
    assert item.mask is not None
    paths = [item.valid, *item.baselines.values(), item.objects]
    hashes = [_hash_of(item.images, folder), _hash_of(item.masks, folder)]
    hashes += [content_hash(folder / path) for path in paths if path]
    if hashes[0] == hashes[1]:
        raise DataError(
            f"{item.image.name}: has the same content as its mask {item.mask.name}",
            "give the mask that belongs to the image, or correct the pattern",
            kind="same-file",
        )
    if item.objects and hashes[0] == hashes[-1]:
        raise DataError(
            f"{item.image.name}: has the same content as its object numbers {item.objects.name}",
            "give the object numbers that belong to the image, or correct data.objects",
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
            truth = Truth(item, folder, info, data, stack)
            declared = Declared(source, data, name)
            packing = _pack(declared, truth, data, part)
        except DataError as error:
            _require_not_swapped(error, item, folder, info, data)
            raise
        measures, objects = packing.measures, packing.objects
        measures.require_usable(name)
        if stamp(item, folder) != before:
            raise DataError(
                f"{name}: was changed while it was read", "run again when it is complete", kind="changed"
            )
    notes = [*info.notes, *truth.notes, *(objects.notes() if objects else []), *measures.notes(data)]
    return {
        "sha256": hashes[0],
        "label_sha256": hashes[1],
        "packed": packed.name,
        "bytes": sum(f.stat().st_size for path in item.images for f in files_of(folder / path)),
        **_geometry(declared.info),
        "scaled_from": json.dumps(declared.range),
        **measures.facts(data),
        "objects": objects.count if objects else None,
        **(packing.agreement.facts() if packing.agreement else {}),
        "label_counts": json.dumps(truth.found),
        "phash": packing.phash,
        "thumb": packing.thumb.hex(),
        "notes": notes,
    }


def inspect_job(job: tuple[Item, Path, Data, Path, str]) -> Row:
    """`inspect` with its arguments as one tuple, for reader processes, which do not import the catalogue."""
    return inspect(*job)
