"""Colours and markers of every chart and page, the same in print, on a light page and on a dark one."""

from collections.abc import Iterable

INK, MUTED, LINE, PAPER = "#1b2430", "#5d6878", "#d8dde5", "#fefefe"
HUMAN = "#6a6151"
# Distinguishable with deuteranopia and protanopia; markers repeat the distinction without colour.
KNOWN = {
    "fcn": "#7058c8",
    "unet": "#00866f",
    "deeplab": "#c2386b",
    "mask_rcnn": "#a06a00",
    "yolact": "#2f76b5",
    "solo": "#6b7f1e",
}
FALLBACK = ("#8a4b2f", "#4d5b8c", "#7a3b6b", "#3f6f5b")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h", "*", "p")
SPLITS = {"train": "#4477aa", "validation": "#c9a227", "test": "#d1495b"}
FOLDS = ("#4477aa", "#c9a227", "#d1495b", "#00866f", "#7058c8", "#a06a00", "#6a6151", "#77b4ea")

# Each chart colour with its counterpart on a dark page; `svg` replaces the first by a CSS variable.
DARK = {
    INK: "#e8ecf2",
    MUTED: "#9aa6b5",
    LINE: "#343d4a",
    PAPER: "#171c23",
    HUMAN: "#c9bda6",
    "#7058c8": "#a896f2",
    "#00866f": "#3cc7ae",
    "#c2386b": "#f2789f",
    "#a06a00": "#e0ad4a",
    "#2f76b5": "#77b4ea",
    "#6b7f1e": "#b5c962",
    "#8a4b2f": "#d99a7c",
    "#4d5b8c": "#9fabdc",
    "#7a3b6b": "#d58fc3",
    "#3f6f5b": "#8cc7ab",
}


def colours(architectures: Iterable[str]) -> dict[str, str]:
    """One colour per architecture; those in KNOWN have the same in every report."""
    unknown = sorted(set(architectures) - set(KNOWN))
    return KNOWN | {name: FALLBACK[i % len(FALLBACK)] for i, name in enumerate(unknown)}


def markers(architectures: Iterable[str]) -> dict[str, str]:
    """One marker per architecture, so that colour is never the only distinction."""
    names = [*KNOWN, *sorted(set(architectures) - set(KNOWN))]
    return {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(names)}
