"""Pairs of image and mask families: which files belong together by their names."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from segcore.io.annotations import LOSSY
from segcore.planning.guess.families import OBJECTS, SPLIT, Family, Member
from segcore.planning.guess.words import IMAGE, MASK, VALID, common_affix, tokens

# how names correspond: equal; without what says their role; without what all have in common; one image per folder
STEM, ROLE, CORE, FOLDER = "stem", "role", "core", "folder"
Key = tuple[tuple[str, ...], str]
# channels or classes that have a word of names of their own
_MOST_FIELDS = 16
# share of the images of the best pairing that further masks, and further channels, have
_MANY, _ALL = 0.9, 0.95
_FEWEST = 0.2
# families that are compared
_MOST_FAMILIES = 80
_FIELD = re.compile(r"(.*?)([\W_]*[^\W_]+)", re.DOTALL)
_FIRST_FIELD = re.compile(r"([^\W_]+[\W_]*)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Pairing:
    """Images with their masks.

    Attributes:
        images: family of the images.
        masks: family of the masks.
        how: STEM, ROLE, CORE or FOLDER.
        pairs: image and masks by the key that they share.
    """

    images: Family
    masks: Family
    how: str
    pairs: dict[Key, tuple[Member, list[Member]]]

    @property
    def has_several(self) -> bool:
        """Whether an image has several files of masks."""
        return any(len(masks) > 1 for _, masks in self.pairs.values())


def affix_of(family: Family, how: str) -> tuple[str, str]:
    """What precedes and follows the part of the names that a pairing compares."""
    if how == ROLE:
        return family.lead, family.tail
    if how == CORE:
        return common_affix([member.stem for member in family.members])
    return "", ""


def keys_of(family: Family, how: str) -> dict[Key, list[Member]]:
    """Members by what a pairing compares."""
    lead, tail = affix_of(family, how)
    found: dict[Key, list[Member]] = defaultdict(list)
    for member in family.members:
        core = "" if how == FOLDER else member.stem[len(lead) : len(member.stem) - len(tail)]
        found[member.texts, core].append(member)
    return found


class Matcher:
    """Matches families; keys are computed once per family.

    Args:
        is_mask: whether a file, by its path, looks like a mask; asked where no name says it.
    """

    def __init__(self, is_mask: Callable[[str], bool]) -> None:
        self._is_mask = is_mask
        self._keys: dict[tuple[int, str], dict[Key, list[Member]]] = {}
        self._kept: list[Family] = []

    def _keyed(self, family: Family, how: str) -> dict[Key, list[Member]]:
        if (id(family), how) not in self._keys:
            # kept, so that no other family gets its id
            self._kept.append(family)
            self._keys[id(family), how] = keys_of(family, how)
        return self._keys[id(family), how]

    def match(self, images: Family, masks: Family) -> Pairing | None:
        """The pairing with most pairs; None if no names correspond."""
        if len(images.words) != len(masks.words) or (SPLIT in images.words) != (SPLIT in masks.words):
            return None
        best: Pairing | None = None
        for how in (STEM, ROLE, CORE, FOLDER):
            if how == FOLDER and not images.words:
                continue
            ours, theirs = self._keyed(images, how), self._keyed(masks, how)
            pairs = {
                key: (found[0], theirs[key])
                for key, found in ours.items()
                if key in theirs and len(found) == 1
            }
            is_whole = len(pairs) > 1 or len(ours) == len(theirs) == 1
            if how == FOLDER and len(pairs) < len(ours) * _FEWEST:
                continue
            if pairs and is_whole and (best is None or len(pairs) > len(best.pairs)):
                best = Pairing(images, masks, how, pairs)
            if len(pairs) == min(len(images.members), len(masks.members)):
                break
        return best

    def weight(self, images: Family, masks: Family) -> float:
        """How far names, or else contents, say that these are images and masks: 0 (not) to 1."""
        if images.role in (MASK, VALID) or masks.role in (IMAGE, VALID) or images.kind == OBJECTS:
            return 0.0
        if masks.endings <= set(LOSSY) or _shared(images, masks):
            return 0.0
        if masks.role == MASK:
            words = [word.lower() for word in tokens(f"{masks.folder} {masks.lead} {masks.tail}")]
            weight = 0.99 if {"mask", "masks"} & set(words) else 1.0
        elif images.role == IMAGE:
            weight = 0.9
        else:
            is_mask = masks.kind == OBJECTS or self._is_mask(masks.members[0].path)
            weight = 0.6 if is_mask and not self._is_mask(images.members[0].path) else 0.0
        return weight * (0.97 if masks.kind == OBJECTS else 1.0)

    def best(self, families: Iterable[Family]) -> Pairing | None:
        """The pairing with most pairs, weighted by what names say."""
        found = sorted(families, key=lambda f: -len(f.members))[:_MOST_FAMILIES]
        best, most = None, 0.0
        for images in found:
            for masks in found:
                if images is masks or min(len(images.members), len(masks.members)) <= most:
                    continue
                pairing = self.match(images, masks)
                if pairing is None or len(pairing.pairs) <= most:
                    continue
                score = len(pairing.pairs) * self.weight(images, masks)
                if score > most:
                    best, most = pairing, score
        return best

    def others(self, best: Pairing, families: Iterable[Family], for_masks: bool) -> list[Pairing]:
        """Pairings of the same images with other masks or, as if they were masks, with images that may be channels."""
        taken, found = [best.images, best.masks], []
        for family in sorted(families, key=lambda f: (f.folder, f.lead, f.tail)):
            mine = best.masks if for_masks else best.images
            is_alike = family.role == mine.role or (family.role == VALID and for_masks)
            if family.kind != mine.kind or not is_alike or any(_shared(family, one) for one in taken):
                continue
            pairing = self.match(best.images, family)
            share = _ALL
            if for_masks:
                parent = mine.folder.rpartition("/")[0]
                beside = family.folder.rpartition("/")[0] == parent != ""
                share = _FEWEST if beside or family.folder == mine.folder != "" else _MANY
            if pairing and len(pairing.pairs) >= share * len(best.pairs):
                found.append(pairing)
                taken.append(family)
        return found


def _shared(one: Family, other: Family) -> bool:
    """Whether two families have a file in common."""
    small, large = sorted((one, other), key=lambda f: len(f.members))
    some = {member.path for member in large.members}
    return any(member.path in some for member in small.members)


def by_fields(families: Iterable[Family]) -> list[Family]:
    """Families of names that differ in one field at their end or beginning alone: channels, or classes of masks."""
    found = []
    for family in families:
        for is_end in (True, False):
            parts = _by_field(family, is_end)
            found += parts
            if parts:
                break
    return found


def _by_field(family: Family, is_end: bool) -> list[Family]:
    tail = common_affix([m.stem for m in family.members])[1] if is_end else ""
    fields: dict[str, list[Member]] = defaultdict(list)
    bases = set()
    for member in family.members:
        stem = member.stem[: len(member.stem) - len(tail)]
        match = (_FIELD if is_end else _FIRST_FIELD).fullmatch(stem)
        if not match:
            return []
        base, field = (match[1], match[2]) if is_end else (match[2], match[1])
        fields[field].append(member)
        bases.add((member.texts, base))
        if len(fields) > _MOST_FIELDS:
            return []
    several = len(fields) > 1 and len(bases) > 1 and len(family.members) >= 0.5 * len(bases) * len(fields)
    if not several:
        return []
    return [
        replace(
            family,
            members=tuple(members),
            lead="" if is_end else field,
            tail=field + tail if is_end else "",
        )
        for field, members in sorted(fields.items())
    ]
