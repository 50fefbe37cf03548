"""Style and output of all charts, the same in print and on light and dark pages."""

import io
import re
import unicodedata
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
from anyascii import anyascii
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from segcore.plots.palette import DARK, INK, LINE, MUTED, PAPER

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
    # a name may have dollar signs
    "text.parse_math": False,
}


def new_figure(width: float, height: float, panels: int = 1, **axes: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches (100 CSS pixels each) with a row of panels."""
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(1, panels, squeeze=False, **axes)
    return figure, list(grid[0])


def svg(figure: Figure, name: str) -> str:
    """Inline SVG with selectable text, whose colours follow the page's light or dark theme.

    Args:
        figure: the chart.
        name: unique on the page; makes ids unique and the output deterministic.
    """
    buffer = io.StringIO()
    with (
        mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False}),
        warnings.catch_warnings(),
    ):
        # the browser draws the text, by fonts that have its script
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
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


def drawable(text: str) -> str:
    """`text` with every word that the charts' font cannot draw transliterated to ASCII, such as 水体 to ShuiTi.

    Scripts that are written from right to left or joined are transliterated as well, because charts do not shape them.
    """
    text = unicodedata.normalize("NFC", text)
    return "".join(
        part if all(map(_is_drawable, part)) else anyascii(part) for part in re.split(r"(\s+)", text)
    )


def _is_drawable(character: str) -> bool:
    is_shaped = unicodedata.bidirectional(character) in ("R", "AL") or unicodedata.combining(character) > 0
    return not is_shaped and (character.isspace() or ord(character) in _glyphs())


@cache
def _glyphs() -> frozenset[int]:
    """Code points that the charts' font can draw."""
    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    return frozenset(font.get_charmap())


def save_png(figure: Figure, path: Path | str) -> None:
    """Write a figure as PNG at twice the page's resolution; see `drawable` for texts of other scripts."""
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        texts = [label.get_text() for label in axis.get_ticklabels()]
        drawn = [drawable(text) for text in texts]
        if drawn != texts:
            # texts of ticks are set again when they are drawn
            axis.set_ticks(axis.get_ticklocs(), drawn)
    for text in figure.findobj(Text):
        text.set_text(drawable(text.get_text()))
    with mpl.rc_context({"text.parse_math": False}):
        figure.savefig(path, format="png", dpi=200)
