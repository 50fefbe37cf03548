"""Pictures of the gallery of a written report, for pages that show a part of it."""

import base64
import io
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from segcore.plots.pictures import data_uri

# longest side in pixels
_SIDE = 320


@dataclass
class GalleryRow:
    """A test image of the gallery.

    Attributes:
        title: such as "Typical a17 · mean IoU 81.2 %".
        cells: caption and pictures (data URIs) of each column: image, truth, and each architecture.
    """

    title: str = ""
    cells: list[tuple[str, list[str]]] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """`best`, `typical` or `worst`."""
        return self.title.partition(" ")[0].lower()


def gallery_rows(page: Path) -> list[GalleryRow]:
    """Rows of the gallery in the order of the page, with pictures of the whole images; empty without a gallery."""
    reader = _Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader.rows


class _Reader(HTMLParser):
    """Collects the rows of `results.html.j2`."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[GalleryRow] = []
        self._is_inside, self._text = False, list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "section":
            self._is_inside = attributes.get("id") == "gallery"
        if not self._is_inside:
            return
        if tag in ("h3", "p"):
            self._text = []
        elif attributes.get("class") == "case":
            self.rows.append(GalleryRow())
        elif attributes.get("class") == "cell":
            self.rows[-1].cells.append(("", []))
        elif tag == "img" and attributes.get("class") == "whole":
            self.rows[-1].cells[-1][1].append(_smaller(attributes.get("src") or ""))

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if not self._is_inside or not self.rows:
            return
        text = " ".join(" ".join(self._text).split())
        if tag == "h3":
            self.rows[-1].title = text
        elif tag == "figure":
            self.rows[-1].cells[-1] = (text, self.rows[-1].cells[-1][1])


def _smaller(uri: str) -> str:
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        return data_uri(np.array(picture.convert("RGB")), _SIDE)
