"""Several masks per image: of valid pixels, of other annotators, of one class each, or of one object each."""

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segcore.errors import DataError
from segcore.io import images
from segcore.names import same_key
from segcore.planning.guess.pairs import FOLDER, Pairing
from segcore.planning.guess.patterns import Patterns, mask_pattern
from segcore.planning.guess.values import read_masks, spread
from segcore.planning.guess.words import VALID

if TYPE_CHECKING:
    from segcore.planning.guess.section import Guess

# pairs whose overlap is measured, and mean overlap (of the smaller one) of two annotations of the same things
_COMPARED, _SAME = 3, 0.3
_MOST_CLASSES = 40


def several(made: "Guess", folder: Path, like: Patterns, best: Pairing, others: list[Pairing]) -> bool:
    """Set keys for further masks of the images; returns whether they also decide the classes."""
    patterns = {id(one): pattern for one in (best, *others) if (pattern := mask_pattern(one, like))}
    others = [one for one in others if id(one) in patterns]
    valid = next((one for one in others if one.masks.role == VALID), None)
    if valid:
        made.put("valid", patterns[id(valid)], "by its name, pixels that count")
    rest = [one for one in others if one.masks.role != VALID]
    if best.has_several:
        return _files_of_one_image(made, best)
    if not rest:
        return False
    pairings = [best, *rest]
    is_one_folder = len({one.masks.folder for one in pairings}) == 1
    named = zip(_labels([_title(one, is_one_folder) for one in pairings]), pairings, strict=True)
    labels = {name: patterns[id(one)] for name, one in named}
    if _agree(folder, best, rest[0]):
        first, *further = labels
        made.put(
            "baselines",
            {name: labels[name] for name in further},
            f"they agree with {first}: other annotators",
        )
        return False
    if len(labels) == len(pairings) and all(_is_binary(folder, one) for one in pairings):
        _of_classes(made, labels, pairings)
        return True
    made.notes.append(f"other masks were left out: {', '.join(patterns[id(one)] for one in rest)}")
    return False


def _title(pairing: Pairing, is_one_folder: bool) -> str:
    family = pairing.masks
    return f"{family.lead}{family.tail}" if is_one_folder else family.folder


def _labels(titles: list[str]) -> list[str]:
    """What is different in some texts: "masks/road", "masks/water" are road and water."""
    words = [re.findall(r"[^\W_]+", title) for title in titles]
    common = set.intersection(*map(set, words))
    return [
        "-".join(w for w in some if w not in common).lower() or title
        for some, title in zip(words, titles, strict=True)
    ]


def _binary(path: Path) -> np.ndarray | None:
    try:
        return np.asarray(images.read(path).pixels[0] > 0)
    except DataError:
        return None


def _agree(folder: Path, one: Pairing, other: Pairing) -> bool:
    """Whether two masks of the same images mostly cover the same pixels."""
    shares = []
    ours, theirs = (
        {image.path: found[0].path for image, found in pairs.pairs.values()} for pairs in (one, other)
    )
    for path in spread(sorted(set(ours) & set(theirs)), _COMPARED):
        first, second = _binary(folder / ours[path]), _binary(folder / theirs[path])
        if (
            first is not None
            and second is not None
            and first.shape == second.shape
            and first.any()
            and second.any()
        ):
            shares.append((first & second).sum() / min(first.sum(), second.sum()))
    return bool(shares) and float(np.mean(shares)) >= _SAME


def _is_binary(folder: Path, pairing: Pairing) -> bool:
    paths = [mask.path for _, masks in spread(list(pairing.pairs.values()), _COMPARED) for mask in masks[:1]]
    found = read_masks(folder, paths)
    return found.read > 0 and not found.has_colors and len(set(found.values) | {0}) == 2


def _of_classes(made: "Guess", masks: dict[str, str], pairings: list[Pairing]) -> None:
    made.put("masks", masks, "a mask of its own for each class")
    made.put("classes", ["background", *masks], "names of the masks")
    made.counts = {}
    made.without_image = []
    made.read = f"{sum(len(p.pairs) for p in pairings)} masks by name"


def _files_of_one_image(made: "Guess", best: Pairing) -> bool:
    """Masks of one image: of one class each if their names recur, else of one object each."""
    stems = Counter(mask.stem for _, masks in best.pairs.values() for mask in masks)
    recurring = [stem for stem, count in stems.items() if count > 1]
    pattern = made.keys["masks"]
    if (
        best.how == FOLDER
        and len(recurring) > 0.5 * len(stems)
        and len(stems) <= _MOST_CLASSES
        and not same_key(stems)
    ):
        ending = next(iter(best.masks.members)).ending
        place = pattern.rpartition("/")[0]
        _of_classes(made, {stem: f"{place}/{stem}{ending}" for stem in sorted(stems)}, [best])
        return True
    made.put("classes", ["background", "object"], "name the objects")
    made.put("label_values", {"0": "background", "others": "object"})
    made.put(
        "instances",
        True,
        f"{sum(stems.values())} files of masks for {len(best.pairs)} images: one object each",
    )
    made.read = f"{sum(stems.values())} masks by name"
    return True
