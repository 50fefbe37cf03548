"""Colours, type and output of every chart: one look, in print, on a light page and on a dark one."""

import base64
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

INK, MUTED, LINE, PAPER = "#1b2430", "#5d6878", "#d8dde5", "#fefefe"
HUMAN = "#6a6151"
# Chosen to stay apart under deuteranopia and protanopia; markers repeat the distinction without colour.
KNOWN = {"fcn": "#7058c8", "unet": "#00866f", "deeplab": "#c2386b"}
FALLBACK = ("#a06a00", "#2f76b5", "#6b7f1e", "#8a4b2f", "#4d5b8c")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
SPLITS = {"train": "#4477aa", "validation": "#c9a227", "test": "#d1495b"}

# Each chart colour with its counterpart on a dark page; `svg` turns the first into a CSS variable.
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
}

RC: Any = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "svg.fonttype": "none",
}


def colours(architectures: Iterable[str]) -> dict[str, str]:
    """One colour an architecture, the same for a known name in every report."""
    unknown = sorted(set(architectures) - set(KNOWN))
    return KNOWN | {name: FALLBACK[i % len(FALLBACK)] for i, name in enumerate(unknown)}


def markers(architectures: Iterable[str]) -> dict[str, str]:
    """One marker an architecture, so that colour is never the only distinction."""
    names = [*KNOWN, *sorted(set(architectures) - set(KNOWN))]
    return {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(names)}


def new_figure(width: float, height: float, panels: int = 1, **axes: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches (100 CSS pixels each) with a row of panels."""
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(1, panels, squeeze=False, **axes)
    return figure, list(grid[0])


def svg(figure: Figure, name: str) -> str:
    """Inline SVG whose text is text and whose colours follow the page's light or dark theme.

    Args:
        name: unique on the page; it keeps the ids of several drawings apart and the output deterministic.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font: ([0-9.]+px) [^;\"]+", r"font-size: \1", text)
    text = re.sub(r"font: (?:bold|700) ([0-9.]+px) [^;\"]+", r"font-weight: 700; font-size: \1", text)
    for colour in DARK:
        text = re.sub(colour, f"var(--{colour[1:]})", text, flags=re.IGNORECASE)
    width = round(figure.get_figwidth() * 100)
    head = f'<svg class="chart" role="img" aria-hidden="true" style="--w:{width}px"'
    return re.sub(
        r'<svg(.*?) width="[^"]*"', rf"{head}\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text), count=1
    )


def save_png(figure: Figure, path: Path | str) -> None:
    """Write a figure as PNG at twice the page's resolution."""
    figure.savefig(path, format="png", dpi=200)


def data_uri(picture: np.ndarray, side: int = 512) -> str:
    """A picture (H, W, C) uint8 as a data URI of at most `side` pixels: RGB as JPEG 4:4:4, RGBA as PNG."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    kind = "png" if picture.shape[-1] == 4 else "jpeg"
    if kind == "png":
        image.save(buffer, "PNG", optimize=True)
    else:  # no chroma subsampling: it would smear thin coloured errors; `optimize` fails on noisy small pictures
        image.save(buffer, "JPEG", quality=86, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
