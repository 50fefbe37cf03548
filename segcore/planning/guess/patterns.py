"""Patterns of `data` for the pairs that were found, and a group word where names suggest one."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from segcore.planning.guess.families import Family, Member
from segcore.planning.guess.pairs import FOLDER, Pairing, affix_of
from segcore.planning.guess.words import common_affix, tokens

# groups that the three parts of a split need, and number from which the coarsest group is taken
_FEWEST, _ENOUGH = 3, 5
BY_FOLDER = "a folder each"
_NOUNS = "patient case subject sub scene tile site area plot region slide city country field plate well volume block"


class Group(NamedTuple):
    """A group that names suggest: pattern, number of groups, and the reason."""

    pattern: str
    groups: int
    why: str


class Patterns(NamedTuple):
    """Patterns of images and masks.

    Attributes:
        images: pattern of the images.
        masks: pattern of their masks.
        group: the group; None: names suggest none.
        folders: what stands for the words of folders.
        lead: what names of images begin with, before `name`.
        name: what stands for the part of the names of images that differs.
        tail: what follows it.
    """

    images: str
    masks: str
    group: Group | None
    folders: tuple[str, ...]
    lead: str
    name: str
    tail: str


def patterns_of(pairing: Pairing, with_fields: bool = True) -> Patterns:
    """Patterns that give the pairs of a pairing.

    Args:
        pairing: images and their masks.
        with_fields: whether fields of names may be a group.
    """
    images = [image for image, _ in pairing.pairs.values()]
    texts = _texts(pairing.images, images)
    names = _names(texts)
    lead, tail = _affixes(pairing)[0]
    cores = [image.stem[len(lead) : len(image.stem) - len(tail)] for image in images]
    is_constant = len(set(cores)) == 1 and len(cores) > 1
    group, name = _by_folder(texts, names, is_constant), "{stem}"
    if is_constant:
        name = cores[0]
    elif with_fields and group is None and (found := _by_fields(cores)):
        group, name = found
    is_whole = not is_constant and not lead and not tail
    # `*` reads more easily where nothing but the whole name is meant
    plain = "*" if is_whole and name == "{stem}" else name
    image = _path(pairing.images.folder, names, lead + plain + tail + _ending(images))
    if is_whole:
        name = "{stem}"
    made = Patterns(image, "", group, tuple(names.values()), lead, name, tail)
    return made._replace(masks=mask_pattern(pairing, made) or "")


def mask_pattern(pairing: Pairing, like: Patterns) -> str | None:
    """Pattern of masks, or of further channels, with the words of an image's pattern; None if it cannot have them."""
    members = [mask for _, found in pairing.pairs.values() for mask in found]
    (lead, tail), (mask_lead, mask_tail) = _affixes(pairing)
    if pairing.how == FOLDER:
        stems = {mask.stem for mask in members}
        last = stems.pop() if len(stems) == 1 else "*"
    elif like.lead.startswith(lead) and like.tail.endswith(tail):
        before, after = like.lead[len(lead) :], like.tail[: len(like.tail) - len(tail)]
        last = mask_lead + before + like.name + after + mask_tail
    else:
        return None
    # words stand in one order in both
    named = dict(zip(pairing.masks.words, like.folders, strict=True))
    return _path(pairing.masks.folder, named, last + _ending(members))


def _affixes(pairing: Pairing) -> tuple[tuple[str, str], tuple[str, str]]:
    """Beginning and end of the names of images and of masks, without what both have in common."""
    ours, theirs = (affix_of(family, pairing.how) for family in (pairing.images, pairing.masks))
    lead, mask_lead = ("", "") if ours[0] == theirs[0] else (ours[0], theirs[0])
    tail, mask_tail = ("", "") if ours[1] == theirs[1] else (ours[1], theirs[1])
    return (lead, tail), (mask_lead, mask_tail)


def _texts(family: Family, members: Sequence[Member]) -> dict[str, list[str]]:
    """Texts of each word of the folders, in the order of the members."""
    return {word: [member.texts[index] for member in members] for index, word in enumerate(family.words)}


def _names(texts: dict[str, list[str]]) -> dict[str, str]:
    """What stands for each word: its only text, {split}, or a name in braces that its texts suggest."""
    names: dict[str, str] = {}
    for word, found in texts.items():
        if len(set(found)) == 1:
            names[word] = found[0]
        elif word == "split":
            names[word] = "{split}"
        else:
            noun = _noun(common_affix(sorted(set(found)))[0]) or "folder"
            number = sum(name.startswith(f"{{{noun}") for name in names.values())
            names[word] = f"{{{noun}{number + 1 if number else ''}}}"
    return names


def _noun(text: str) -> str | None:
    """The word of a group at the end of a text that all names begin with."""
    found = [token.lower() for token in tokens(text) if token.lower() in _NOUNS.split()]
    return found[-1] if found else None


def _by_folder(texts: dict[str, list[str]], names: dict[str, str], is_constant: bool) -> Group | None:
    words = [word for word in texts if word != "split" and names[word].startswith("{")]
    for word in words:
        count = len(set(texts[word]))
        if count >= _FEWEST or is_constant:
            return Group(names[word], count, BY_FOLDER)
    return None


def _by_fields(cores: Sequence[str]) -> tuple[Group, str] | None:
    """The group by the leading fields of names, and the name's pattern; None where no field is shared by some names.

    The fewest fields that make five groups are taken, or else three.
    """
    lead = re.sub(r"\d+$", "", common_affix(list(cores))[0])
    for separator in ("(_)", r"([\W_]+)"):
        parts = [re.split(separator, core[len(lead) :]) for core in cores]
        if found := _of_parts(parts, len(cores), lead):
            return found
    return None


def _of_parts(parts: Sequence[Sequence[str]], items: int, lead: str) -> tuple[Group, str] | None:
    """As `_by_fields`, of names without `lead` as fields with the separators between them."""
    counts: dict[int, int] = {}
    for end in range(1, min(map(len, parts)) - 1, 2):
        if len({tuple(part[1 : end + 1 : 2]) for part in parts}) > 1 or not all(part[0] for part in parts):
            break
        count = len({tuple(part[:end]) for part in parts})
        if _FEWEST <= count < items:
            counts[end] = count
    if not counts:
        return None
    end = next((end for end, count in counts.items() if count >= _ENOUGH), min(counts))
    words = [(_noun(lead) or "scene") + (str(i + 1) if i else "") for i in range((end + 1) // 2)]
    pattern = "".join(f"{{{words[i // 2]}}}" if i % 2 == 0 else parts[0][i] for i in range(end))
    why = "names begin alike"
    return Group(pattern, counts[end], why), f"{lead}{pattern}{parts[0][end]}{{part}}"


def _ending(members: Sequence[Member]) -> str:
    endings = {member.ending for member in members}
    return endings.pop() if len(endings) == 1 else ".*"


def _path(folder: str, names: dict[str, str], last: str) -> str:
    for word, text in names.items():
        folder = folder.replace(f"{{{word}}}", text, 1)
    return f"{folder}/{last}" if folder else last
