"""Classes of `data` from the values that masks hold, and from the names that were found."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from segcore.errors import DataError
from segcore.planning.guess.names import Names
from segcore.planning.guess.values import Found

_IGNORED = (
    "ignore",
    "ignored",
    "unlabeled",
    "unlabelled",
    "void",
    "unknown",
    "nodata",
    "undefined",
    "unclassified",
)
_BACKGROUND = ("background", "bg", "back")
# more values or colours than this are no classes
_MOST = 64
# share of black pixels below which they are the rest of a colour-coded mask
_RARE = 0.01
# smoothed masks: grey values up to this from black or white are near, share of such pixels, and values between
_DARK, _NEAR, _GREYS = 31, 0.6, 8
_MARKS = (255, 65535, 2**32 - 1)


class Classes(NamedTuple):
    """Keys of `data` about classes, the reason of each guessed one, and pixels of each class."""

    keys: dict[str, Any]
    reasons: dict[str, str]
    shares: dict[str, int]


def classes_of(found: Found, names: Names) -> Classes:
    """Classes, background and label_values.

    Raises:
        DataError: no mask could be read, or their values are no classes.
    """
    if not found.read:
        raise found.problems[0] if found.problems else DataError("no mask was found", "add masks")
    if found.are_objects and not found.has_colors:
        return _numbers(found)
    if found.has_colors:
        return _colors(found, names)
    if _is_smoothed(found):
        return _ranges(found)
    if len(found.values) > _MOST:
        raise DataError(
            f"masks have {len(found.values)} values, from {min(found.values)} to {max(found.values)}: neither "
            "classes nor numbers of objects",
            "write label_values and classes by hand (see the guide about data), or correct the masks",
            kind="label-values",
        )
    return _values(found, names)


def _numbers(found: Found) -> Classes:
    rest = sum(found.values.values()) - found.values[0]
    keys = {
        "classes": ["background", "object"],
        "label_values": {"0": "background", "others": "object"},
        "instances": True,
    }
    reasons = {
        "instances": "each mask counts from 1, one connected area per number",
        "classes": "name the objects",
    }
    return Classes(keys, reasons, {"background": found.values[0], "object": rest})


def _is_smoothed(found: Found) -> bool:
    """Whether most pixels are black or white, and the others have many values of grey between them."""
    between = sum(_DARK < value < 255 - _DARK for value in found.values)
    low = sum(n for value, n in found.values.items() if 0 <= value <= _DARK)
    high = sum(n for value, n in found.values.items() if 255 - _DARK <= value <= 255)
    is_grey = min(found.values) >= 0 and max(found.values) <= 255 and between >= _GREYS
    return is_grey and low > 0 and high > 0 and low + high >= _NEAR * sum(found.values.values())


def _ranges(found: Found) -> Classes:
    total = sum(found.values.values())
    first = sum(n for value, n in found.values.items() if value < 128)
    return Classes(
        {
            "classes": ["background", "foreground"],
            "label_values": {"0-127": "background", "128-255": "foreground"},
        },
        {"label_values": "masks were saved with smoothing", "classes": "name the foreground"},
        {"background": first, "foreground": total - first},
    )


def _values(found: Found, names: Names) -> Classes:
    total, values = sum(found.values.values()), sorted(found.values)
    known = names.of_values(values)
    ignored = [v for v in values if v < 0 or known.get(v, "").lower() in _IGNORED]
    rest = [v for v in values if v not in ignored]
    # a mark at the top of the type, where the others are small numbers
    ignored += [v for v in rest[2:] if v in _MARKS and v == rest[-1] and rest[-2] < 64 and v not in known]
    labelled = [v for v in values if v not in ignored]
    if found.read < found.total:
        labelled = sorted({*labelled, *(v for v, n in known.items() if n.lower() not in _IGNORED)})
    if len(labelled) < 2:
        raise DataError(
            f"masks hold {', '.join(map(str, values))} alone ({found.read} of {found.total} were read): two classes "
            "are needed",
            "check that these are the masks, or write label_values by hand",
            kind="label-values",
        )
    background = _background(labelled, known, found.values)
    titles = {
        v: known.get(v) or ("foreground" if len(labelled) == 2 and background == 0 else f"class_{v}")
        for v in labelled
    }
    if background is not None and background not in known:
        titles[background] = "background"
    reasons = _reasons(names if known else None, "classes")
    if ignored:
        reasons["label_values"] = (
            f"{', '.join(map(str, ignored))}: ignored, as no class has such a value or name"
        )
    colors = None
    if found.palette and not found.has_plain:
        picked = [found.palette[v] if v < len(found.palette) else (0, 0, 0) for v in labelled]
        colors = picked if len(set(picked)) == len(picked) else None
    shares = {v: found.values[v] for v in labelled}
    return _finished(labelled, ignored, titles, background, shares, total, reasons, colors)


def _background(values: Sequence[int], known: Mapping[int, str], counts: Mapping[int, int]) -> int | None:
    """The value that is background: by its name, or else 0 if it is one of two values or the most frequent."""
    named = next((v for v in values if known.get(v, "").strip("_ ").lower() in _BACKGROUND), None)
    if named is not None or 0 not in values or 0 in known:
        return named
    return 0 if len(values) == 2 or counts.get(0, 0) == max(counts.get(v, 0) for v in values) else None


def _colors(found: Found, names: Names) -> Classes:
    counts = {f"#{color:06X}": n for color, n in found.colors.most_common()}
    if len(counts) > _MOST:
        raise DataError(
            f"masks have {len(counts)} colours: they were saved with smoothing or compression, or are no masks",
            "save the masks again without either, or correct the folder",
            kind="label-colors",
        )
    total, known = sum(counts.values()), {c: n for c, n in names.by_color.items() if c in counts}
    black, reasons = "#000000", _reasons(names if known else None, "classes")
    ignored = [c for c, n in known.items() if n.lower() in _IGNORED]
    if black in counts and black not in known and len(counts) > 2 and counts[black] < _RARE * total:
        ignored.append(black)
        reasons["label_values"] = f"black, {counts[black] / total:.1%} of the pixels, is ignored"
    labelled = [c for c in counts if c not in ignored]
    background = next((c for c, n in known.items() if n.strip("_ ").lower() in _BACKGROUND), None)
    if background is None and black in labelled and black not in known:
        background = black
        labelled = [black, *(c for c in labelled if c != black)]
    titles = {c: known.get(c, f"class_{c[1:]}") for c in labelled}
    if background and background not in known:
        titles[background] = "background"
    if names.by_color and (unused := [n for c, n in names.by_color.items() if c not in counts]):
        reasons["classes"] = f"name them; {names.origin} has other colours for {', '.join(unused[:8])}"
    colors = [tuple(bytes.fromhex(c[1:])) for c in labelled]
    return _finished(labelled, ignored, titles, background, counts, total, reasons, colors)


def _reasons(names: Names | None, key: str) -> dict[str, str]:
    return {key: f"from {names.origin}" if names else "no file names them; name them"}


def _finished(
    labelled: Sequence[Any],
    ignored: Sequence[Any],
    titles: Mapping[Any, str],
    background: Any,
    counts: Mapping[Any, int],
    total: int,
    reasons: dict[str, str],
    colors: Sequence[Sequence[int]] | None,
) -> Classes:
    classes = list(dict.fromkeys(titles[value] for value in labelled))
    keys: dict[str, Any] = {"classes": classes, "background": titles.get(background)}
    if colors and len(colors) == len(classes) and len(set(map(tuple, colors))) == len(colors):
        keys["colors"] = [list(color) for color in colors]
    keys["label_values"] = {**{v: titles[v] for v in labelled}, **dict.fromkeys(ignored, "ignore")}
    if keys["background"] == "background":
        del keys["background"]
    else:
        reasons["background"] = (
            "no value is named so or is 0 and most frequent" if background is None else "by its name"
        )
    shares: dict[str, int] = dict.fromkeys(classes, 0)
    for value in labelled:
        shares[titles[value]] += counts.get(value, 0)
    rest = total - sum(shares.values())
    return Classes(keys, reasons, {**shares, **({"ignore": rest} if rest else {})})
