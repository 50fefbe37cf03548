"""nnU-Net: imagesTr/{case}_0000.nii.gz, {case}_0001.nii.gz and so on, labelsTr/{case}.nii.gz and dataset.json.

Each case is an item, and its channels are its bands. dataset.json gives the number of channels and the file extension;
without it, both come from the names. Its labels must be those of data.classes and data.label_values. An image whose
whole name is that of its label, as in the Medical Segmentation Decathlon, holds all channels itself; so does
{case}_0000.png if it has all bands and no case has further files, as colour pictures of NaturalImage2DIO. The group is
the case unless data.group is set; it and data.objects may use {case}. imagesTs is not read.
"""

import json
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from segcore.errors import DataError
from segcore.io.images import open_declared
from segcore.io.layouts import _patterns as patterns
from segcore.io.layouts._builder import Builder, is_set
from segcore.io.layouts._files import Folder
from segcore.io.layouts._item import Item
from segcore.io.layouts._names import printable
from segcore.io.layouts._nnunet_labels import check_labels
from segcore.io.layouts._unique_ids import with_unique_ids
from segcore.io.layouts.pairs import no_images
from segcore.params.data import Data

DESCRIPTION = "dataset.json"
IMAGES, MASKS = "imagesTr", "labelsTr"
_CHANNEL = re.compile(r"(.+)_(\d{4})")


class _Description(NamedTuple):
    """What dataset.json declares; None: nothing.

    Attributes:
        channels: of each image.
        ending: file extension.
        cases: number of training cases.
    """

    channels: int | None = None
    ending: str | None = None
    cases: int | None = None


def find(data: Data, folder: Path) -> list[Item]:
    """Items of imagesTr in the folder and in the folders in it, such as Dataset001_Name.

    Raises:
        DataError: no image (kind "no-images"), dataset.json cannot be read (kind "no-list"), its labels are others than
            those of params.yaml (kind "other-labels"), or data.group has an unknown placeholder (kind "bad-pattern").
    """
    group = data.group if is_set(data, "group") else "{case}"
    patterns.check_placeholders("data.group", group, patterns.images_pattern(f"{IMAGES}/{{case}}_0000"))
    patterns.check_placeholders(
        "data.objects", data.objects or "", patterns.images_pattern(f"{IMAGES}/{{case}}_0000")
    )
    source = Folder(folder, data.links_to)
    roots = [
        match.path.parent
        for pattern in (IMAGES, f"*/{IMAGES}")
        for match in source.find(patterns.images_pattern(pattern))
        if match.is_folder
    ]
    items = [item for root in roots for item in _items(data, source, root, group, len(roots) > 1)]
    if not items:
        raise no_images(f"{IMAGES}/*", folder, source)
    return with_unique_ids(items)


def _items(data: Data, source: Folder, root: PurePosixPath, group: str, several: bool) -> list[Item]:
    described = _description(data, source, root / DESCRIPTION)
    cases: dict[str, dict[int, PurePosixPath]] = {}
    for match in source.find(patterns.images_pattern(str(root / IMAGES / "*"))):
        name = match.path.name
        if not match.is_folder and (described.ending is None or name.endswith(described.ending)):
            case, channel = _case(source, root, patterns.stem_of(name))
            cases.setdefault(case, {})[channel] = match.path
    count = described.channels or max((max(channels) + 1 for channels in cases.values()), default=1)
    if count > 1 and _hold_all(data, source, cases, count):
        count = 1
    items = [
        _item(data, source, root, case, channels, count, group, several)
        for case, channels in sorted(cases.items())
    ]
    if items and described.cases is not None and len(items) < described.cases:
        text = f"{DESCRIPTION} declares {described.cases} training cases, {IMAGES} has {len(items)}"
        items[0] = replace(items[0], notes=(*items[0].notes, ("missing-cases", text)))
    return items


def _case(source: Folder, root: PurePosixPath, stem: str) -> tuple[str, int]:
    """Case and channel of an image's name; channel 0 if the image holds all channels."""
    numbered = None if source.of_stem(root / MASKS, stem) else _CHANNEL.fullmatch(stem)
    return (numbered[1], int(numbered[2])) if numbered else (stem, 0)


def _hold_all(data: Data, source: Folder, cases: dict[str, dict[int, PurePosixPath]], count: int) -> bool:
    """Whether each case is one file with all channels, by the bands of the first one that can be read."""
    if any(set(channels) != {0} for channels in cases.values()):
        return False
    for channels in cases.values():
        with suppress(DataError), open_declared(source.path / channels[0], data) as image:
            return image.info.bands == count
    return False


def _item(
    data: Data,
    source: Folder,
    root: PurePosixPath,
    case: str,
    channels: dict[int, PurePosixPath],
    count: int,
    group: str,
    several: bool,
) -> Item:
    number, some = next(iter(sorted(channels.items())))
    ending = some.name.removeprefix(patterns.stem_of(some.name))
    is_whole = patterns.stem_of(some.name) == case
    first = some if is_whole or number == 0 else root / IMAGES / f"{case}_0000{ending}"
    build = Builder(data, source, patterns.Match(first, {"case": case}))
    if not is_whole and 0 not in channels:
        build.note_problem(source.missing(first, "channel 0000", str(first), "missing-channel"))
    further = [] if is_whole else range(1, count)
    paths = [channels.get(i, root / IMAGES / f"{case}_{i:04d}{ending}") for i in further]
    files = [
        build.file(path, f"channel {i:04d}", "missing-channel")
        for i, path in zip(further, paths, strict=True)
    ]
    if max(channels) >= count:
        build.note_problem(
            DataError(
                f"{printable(first.name)}: has a channel {max(channels):04d}, but {DESCRIPTION} declares {count}",
                f"correct channel_names in {DESCRIPTION}, or remove the file",
                kind="missing-channel",
            )
        )
    labels = source.of_stem(root / MASKS, case)
    mask = build.file(labels[0] if len(labels) == 1 else root / MASKS / f"{case}{ending}", "mask")
    id_text = patterns.safe_id(f"{root}/{case}" if several else case)
    found = [path for path in files if path]
    return build.item(id_text, build.group(group), mask, words={}, channels=found, objects=build.objects())


def _description(data: Data, source: Folder, path: PurePosixPath) -> _Description:
    """Content of dataset.json, whose labels are compared with params.yaml; empty if there is none."""
    if not source.exists(path):
        return _Description()
    problem = source.problem(path, "description", check_extension=False)
    if problem:
        raise DataError(problem.what, problem.remedy, kind="no-list")
    try:
        content: dict[str, Any] = json.loads((source.path / path).read_bytes())
        channels = content.get("channel_names", content.get("modality"))
        ending, cases = content.get("file_ending"), content.get("numTraining")
        described = _Description(
            None if channels is None else len(channels),
            None if ending is None else str(ending),
            None if cases is None else int(cases),
        )
        labels = dict(content["labels"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(
            f"{printable(path)}: is not a dataset.json of nnU-Net with labels ({reason[:200]})",
            "restore it, or remove it if the names of the files say all",
            kind="no-list",
        ) from error
    check_labels(printable(path), labels, data)
    return described
