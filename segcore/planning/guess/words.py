"""Words in names of folders and files that say what these hold: images, masks, or a part of the data set."""

import re
from functools import cache

from segcore.io.layouts._builder import SPLIT_NAMES

IMAGE, MASK, VALID = "image", "mask", "valid"
_IMAGES = "image images img imgs imgsat pic pics picture pictures photo photos rgb sat raw input inputs orig original"
# `mask` is the weakest: some data sets have masks of valid pixels beside ground truth of another name
_MASKS = (
    "label labels labelids labelmap labelmaps lbl lab annotation annotations annot annots ann gt truth groundtruth "
    "target targets seg segs segmentation segmentations manual contour contours roi rois mask masks msk"
)
_VALID = "fov fieldofview validmask validmasks validpixels"
ROLES = {
    **dict.fromkeys(_IMAGES.split(), IMAGE),
    **dict.fromkeys(_MASKS.split(), MASK),
    **dict.fromkeys(_VALID.split(), VALID),
}
# words of a folder's path by which its images are taken in one way (`data.view`)
_MICROSCOPE = (
    "cell cells nuclei nucleus micro microscopy histology pathology retina fundus vessel vessels stare"
)
_NADIR = "aerial satellite drone uav ortho orthophoto sentinel landsat landcover"
_STREET = "street streets cityscapes camvid kitti driving dashcam"
VIEWS = {
    **dict.fromkeys(_MICROSCOPE.split(), "microscope"),
    **dict.fromkeys(_NADIR.split(), "nadir"),
    **dict.fromkeys(_STREET.split(), "street"),
}
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|[^\W\d_]+|\d+|[\W_]")


@cache
def tokens(text: str) -> tuple[str, ...]:
    """A text as words, numbers and single other characters: "imgTr_01" is img, Tr, _, 01."""
    return tuple(_TOKEN.findall(text))


@cache
def role(text: str) -> str | None:
    """What a folder of this name holds: IMAGE, MASK, VALID or None."""
    words = [word.lower() for word in tokens(text) if word.isalnum()]
    joined = "".join(words)
    found = {ROLES[word] for word in (*words, joined) if word in ROLES}
    if joined.endswith("annot") or "groundtruth" in joined:
        found.add(MASK)
    return next((one for one in (VALID, MASK, IMAGE) if one in found), None)


@cache
def split_in(text: str) -> tuple[str, str] | None:
    """A folder's name with {split} in place of the word for a split, and this word; None if it has none."""
    for word in tokens(text):
        if word.lower() in SPLIT_NAMES:
            return text.replace(word, "{split}", 1), word
    return None


@cache
def affix(stem: str) -> tuple[str, str, str | None]:
    """Text before and after the rest of a file's name that says what it holds, and which: ("", "_mask", MASK)."""
    words = tokens(stem)
    for count in (3, 2, 1):
        for at_end in (True, False):
            part = words[-count:] if at_end else words[:count]
            what = ROLES.get("".join(filter(str.isalnum, part)).lower()) if len(part) == count else None
            if what is None:
                continue
            rest = words[:-count] if at_end else words[count:]
            while rest and not rest[-1 if at_end else 0].isalnum():
                taken = rest[-1] if at_end else rest[0]
                part = (taken, *part) if at_end else (*part, taken)
                rest = rest[:-1] if at_end else rest[1:]
            text = "".join(part)
            return ("", text, what) if at_end else (text, "", what)
    return "", "", None


def common_affix(stems: list[str]) -> tuple[str, str]:
    """Words that all names begin with, and that all end with; not numbers at the edge of what differs."""
    first = tokens(stems[0])
    lead, tail = len(first), len(first)
    for stem in stems[1:]:
        words = tokens(stem)
        lead = next((i for i in range(min(lead, len(words))) if words[i] != first[i]), min(lead, len(words)))
        tail = next(
            (i for i in range(min(tail, len(words))) if words[-1 - i] != first[-1 - i]), min(tail, len(words))
        )
    tail = min(tail, len(first) - lead)
    return "".join(first[:lead]), "".join(first[len(first) - tail :])
