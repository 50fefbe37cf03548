"""Guesses the section `data` of params.yaml from a folder: what users would otherwise write by hand."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segcore.errors import DataError
from segcore.io import annotations, images
from segcore.io.annotations import LOSSY
from segcore.io.layouts._builder import SPLIT_NAMES
from segcore.io.layouts._names import is_archive
from segcore.planning.guess import annotation_files, class_values, families, image_headers, known_layouts
from segcore.planning.guess.annotation_files import Shared
from segcore.planning.guess.class_values import Classes
from segcore.planning.guess.families import OBJECTS, Family, Files
from segcore.planning.guess.masks import several
from segcore.planning.guess.names import names_in
from segcore.planning.guess.pairs import Matcher, Pairing, by_fields
from segcore.planning.guess.patterns import BY_FOLDER, Patterns, mask_pattern, patterns_of
from segcore.planning.guess.values import looks_like_mask, read_masks

_ORDER = (
    *(
        "name",
        "source",
        "layout",
        "listing",
        "images",
        "masks",
        "valid",
        "view",
        "group",
        "splits",
        "baselines",
    ),
    *(
        "classes",
        "background",
        "colors",
        "label_values",
        "label_property",
        "unlabelled",
        "instances",
        "scale",
    ),
    *("grey_to_rgb", "pages", "max_quarantined"),
)


@dataclass
class Guess:
    """A guessed section `data`.

    Attributes:
        keys: key: value.
        reasons: of each key that is guessed, why.
        images: paths of the images that have masks; empty where a layout finds them.
        without_mask: paths of images without one.
        without_image: paths of masks without an image.
        counts: pixels, or objects, of each class in what was read.
        read: how many masks were read, of how many; in words.
        notes: sentences about what was left out.
    """

    keys: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    without_mask: list[str] = field(default_factory=list)
    without_image: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    read: str = ""
    notes: list[str] = field(default_factory=list)

    def put(self, key: str, value: Any, why: str = "") -> None:
        """Set a key; `why` marks it as guessed."""
        self.keys[key] = value
        if why:
            self.reasons[key] = why

    def take(self, keys: dict[str, Any], reasons: dict[str, str]) -> None:
        """Set keys with their reasons."""
        self.keys |= keys
        self.reasons |= reasons

    @property
    def ordered(self) -> dict[str, Any]:
        """Keys in the order of params.yaml."""
        return {key: self.keys[key] for key in _ORDER if key in self.keys}


def guess(folder: Path, source: str | None = None) -> Guess:
    """The section `data` for a folder; only a bounded number of files is read.

    Args:
        folder: of images and masks.
        source: as `data.source` names the folder; None: its path.

    Raises:
        DataError: the folder is missing, or has no images, no masks, or masks that cannot be read.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder", "name the folder of your images and masks", kind="no-folder"
        )
    files = families.find(folder)
    made = Guess()
    made.put("name", _name(folder.resolve().name))
    made.put("source", source or str(folder))
    listing = known_layouts.listing_of(folder, files.paths)
    if listing:
        made.put("listing", listing, "it has the columns image and mask")
        known_layouts.fill(made, folder, files)
    elif layout := known_layouts.layout_of(files.paths):
        made.put("layout", layout, "by the names of folders")
        known_layouts.fill(made, folder, files)
    else:
        _fill(made, folder, files)
    return made


def _name(text: str) -> str:
    """A name of the dataset from that of its folder."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-") or "data"


def _fill(made: Guess, folder: Path, files: Files) -> None:
    matcher = Matcher(lambda path: looks_like_mask(folder / path))
    families = [f for f in files.families if f.kind != OBJECTS or _has_objects(folder, f)]
    best = matcher.best(families)
    if best is None or len(best.pairs) < 0.5 * len(best.images.members):
        more = [*families, *by_fields(families)]
        found = matcher.best(more)
        if found and (best is None or len(found.pairs) > len(best.pairs)):
            best, families = found, more
    common = annotation_files.shared(folder, files.families)
    if common and (best is None or common.covered > 1.1 * len(best.pairs)):
        _fill_shared(made, folder, files, common)
    elif best:
        _fill_pairs(made, folder, files, best, matcher, families)
    else:
        raise _nothing(folder, files)


def _has_objects(folder: Path, family: Family) -> bool:
    """Whether a family of annotations, by its first file, is one of images' own."""
    return annotation_files.format_of(folder / family.members[0].path) is not None


def _fill_pairs(
    made: Guess, folder: Path, files: Files, best: Pairing, matcher: Matcher, families: Sequence[Family]
) -> None:
    pairs = list(best.pairs.values())
    made.images = [image.path for image, _ in pairs]
    masks = [mask.path for _, found in pairs for mask in found]
    _unmatched(made, best.images, best.masks, masks)
    headers = image_headers.read(folder, made.images, f"{folder.resolve().name}/{best.images.folder}")
    patterns = _patterns(made, folder, best, headers.positioned)
    made.put("images", patterns.images)
    made.put("masks", patterns.masks, f"names correspond; {len(pairs)} images have a mask")
    if headers.one_band:
        others = matcher.others(best, families, for_masks=False)
        channels = [pattern for one in others if (pattern := mask_pattern(one, patterns))]
        if channels:
            made.put(
                "images", [patterns.images, *channels], "files of one band each with the same masks: channels"
            )
    _splits(made, best)
    made.take(headers.keys, headers.reasons)
    if several(made, folder, patterns, best, matcher.others(best, families, for_masks=True)):
        return
    names = names_in(folder, files.paths, masks[0])
    if best.masks.kind == OBJECTS or best.masks.endings == {".dcm"}:
        classes = annotation_files.classes_of(folder, masks, names)
        made.read = f"{len(masks)} files of annotations"
    else:
        found = read_masks(folder, masks, made.keys.get("pages"))
        classes = class_values.classes_of(found, names)
        made.read = f"{found.read} of {found.total} masks"
        made.notes += [f"{error.what}; {error.remedy}" for error in found.problems[:3]]
        made.reasons.setdefault("label_values", f"values of {made.read}")
    _classes(made, classes)


def _fill_shared(made: Guess, folder: Path, files: Files, common: Shared) -> None:
    """Images whose annotations are all in one file."""
    members = common.images.members
    made.images = [member.path for member in members]
    itself = {image: (image, [image]) for image in members}
    pairing = Pairing(common.images, common.images, "stem", {(m.texts, m.stem): p for m, p in itself.items()})
    made.put("masks", common.path, f"annotations of {common.covered} of {len(members)} images")
    headers = image_headers.read(folder, made.images, f"{folder.resolve().name}/{common.images.folder}")
    made.put("images", _patterns(made, folder, pairing, headers.positioned).images)
    made.take(headers.keys, headers.reasons)
    _classes(made, annotation_files.classes_of(folder, [common.path], names_in(folder, files.paths)))
    made.read = "1 file of annotations"


def _classes(made: Guess, classes: Classes) -> None:
    made.take(classes.keys, made.reasons | classes.reasons)
    made.counts = classes.shares


def _unmatched(made: Guess, image: Family, mask: Family, masks: Sequence[str]) -> None:
    used, partners = set(made.images), set(masks)
    texts = {member.texts for member in image.members if member.path in used}
    paired = {text[:1] for text in texts} if image.words[:1] == ("split",) else None
    alone = [m for m in image.members if m.path not in used and m.path not in partners]
    made.without_mask = [m.path for m in alone if paired is None or m.texts[:1] in paired or len(paired) > 1]
    made.without_image = [m.path for m in mask.members if m.path not in partners]
    if len(made.without_mask) > len(used):
        total = len(made.without_mask) + len(used)
        share = min(1.0, round(len(made.without_mask) / total + 0.05, 2))
        made.put("max_quarantined", share, f"{len(made.without_mask)} of {total} images have no mask")


def _patterns(made: Guess, folder: Path, pairing: Pairing, positioned: bool) -> Patterns:
    """Patterns, with the group by folders; or by place, of tiles that touch; or by names."""
    patterns = patterns_of(pairing)
    named, place = patterns.group, None
    if positioned and (named is None or named.why != BY_FOLDER):
        place = image_headers.by_place(folder, made.images)
    if place:
        made.put("group", place[0], f"tiles that touch, two by two; {place[1]} groups")
        return patterns_of(pairing, with_fields=False)
    if named:
        made.put("group", named.pattern, f"{named.why}; {named.groups} groups of {len(made.images)} images")
    return patterns


def _splits(made: Guess, best: Pairing) -> None:
    if "{split}" not in str(made.keys["images"]):
        return
    place = best.images.words.index("split")
    texts = sorted({member.texts[place] for member in best.images.members})
    splits = {text: SPLIT_NAMES[text.lower()] for text in texts}
    why = "the data set's own"
    if "test" not in {SPLIT_NAMES[image.texts[place].lower()] for image, _ in best.pairs.values()}:
        splits = {text: "test" if split == "validation" else split for text, split in splits.items()}
        why += "; without masks of a test part, validation is the test, and validation is taken from training"
    made.put("splits", splits, why)


def _nothing(folder: Path, files: Files) -> DataError:
    """The error for a folder without images or without masks that belong to them."""
    pictures = [f for f in files.families if f.kind != OBJECTS]
    looked = f"looked through {files.total:,} files"
    if not pictures:
        packed = [path for path in files.paths if is_archive(path)]
        remedy = (
            f"unpack {', '.join(packed[:3])}" if packed else "name the folder of your images, or convert them"
        )
        links = sorted(path.name for path in folder.iterdir() if path.is_symlink() and path.is_dir())
        if links:
            looked += f", and not through links to folders, {', '.join(links[:3])},"
            remedy = "copy the folders that the links lead to, or link their files"
        endings = ", ".join(images.extensions())
        return DataError(f"{folder}: no image found ({looked} for {endings})", remedy, kind="no-images")
    shown = ", ".join(sorted({m.path for f in pictures for m in f.members[:1]})[:4])
    if any(f.role == "mask" and f.endings <= set(LOSSY) for f in pictures):
        return DataError(
            f"{folder}: the masks are JPEG, whose compression changes their values",
            "provide the original masks as PNG or GeoTIFF",
            kind="jpeg-mask",
        )
    return DataError(
        f"{folder}: no masks found that belong to the images ({looked}, such as {shown}): neither rasters nor "
        f"annotations ({', '.join(e for e in annotations.extensions() if e not in images.extensions())}) whose names "
        "correspond to those of images, in a folder such as masks or labels, or with an end such as _mask",
        "put images in a folder images and masks of the same names in a folder masks, or write images and masks of "
        "section data by hand (see the guide about data)",
        kind="missing-mask",
    )
