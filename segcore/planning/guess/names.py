"""Names of classes in files beside the data: dataset.json, lists of classes, colour tables, headers of masks."""

import csv
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LISTS = re.compile(
    r"(dataset|class(es)?([-_ ]?(names?|dict|list|map))?|labels?([-_ ]?(names?|colou?rs?|map|list))?|codes|legend"
    r"|colou?rs?|categories)\.(json|txt|csv)",
    re.IGNORECASE,
)
_MOST_BYTES, _MOST_DEPTH = 2**20, 2
_HEX = re.compile(r"#?([0-9A-Fa-f]{6})")
_NAME_KEYS, _VALUE_KEYS = (
    ("name", "title", "label", "class", "label_name"),
    ("id", "value", "index", "trainid", "code"),
)


@dataclass
class Names:
    """Names of classes.

    Attributes:
        by_value: name of each mask value.
        by_color: name of each colour "#RRGGBB".
        in_order: names without values, from a list.
        origin: the file that has them; empty: none.
    """

    by_value: dict[int, str] = field(default_factory=dict)
    by_color: dict[str, str] = field(default_factory=dict)
    in_order: list[str] = field(default_factory=list)
    origin: str = ""

    def of_values(self, values: Iterable[int]) -> dict[int, str]:
        """Names of mask values; empty where they are not those of the file."""
        found = [value for value in values if 0 <= value < 255]
        if self.by_value or not self.in_order:
            names = self.by_value
        else:
            # a list without the background begins with 1
            first = 1 if max(found, default=0) == len(self.in_order) else 0
            names = dict(enumerate(self.in_order, first))
        return names if sum(value in names for value in found) >= 0.8 * len(found) else {}


def names_in(folder: Path, paths: Iterable[str], mask: str | None = None) -> Names:
    """Names of the first file near the root of a folder that has any, or else of the header of a mask.

    Args:
        folder: the source.
        paths: of all its files.
        mask: a mask, whose header is read.
    """
    likely = [p for p in paths if p.count("/") <= _MOST_DEPTH and _LISTS.fullmatch(p.rpartition("/")[2])]
    for path in sorted(likely, key=lambda p: (p.count("/"), p)):
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, csv.Error):
            if (folder / path).stat().st_size <= _MOST_BYTES:
                text = (folder / path).read_text(encoding="utf-8-sig")
                names = _of_json(json.loads(text)) if path.lower().endswith(".json") else _of_lines(text)
                if names.by_value or names.by_color or names.in_order:
                    names.origin = path
                    return names
    if mask:
        with suppress(OSError, ValueError):
            return _of_header(folder, mask)
    return Names()


def _of_json(content: Any) -> Names:
    names = Names()
    if isinstance(content, dict):
        inner = next(
            (content[k] for k in ("labels", "classes", "categories", "colors") if content.get(k)), content
        )
        if isinstance(inner, dict):
            for key, value in inner.items():
                _add(names, key, value)
            return names
        content = inner
    for index, entry in enumerate(content if isinstance(content, list) else []):
        if isinstance(entry, str):
            names.in_order.append(entry)
        elif isinstance(entry, dict):
            low = {str(key).lower(): value for key, value in entry.items()}
            name = next(str(low[key]) for key in _NAME_KEYS if key in low)
            value = next((low[key] for key in _VALUE_KEYS if isinstance(low.get(key), int)), None)
            color = low.get("color", low.get("colour"))
            if color is not None:
                names.by_color[_hex(color)] = name
            if value is not None:
                names.by_value[value] = name
            elif color is None:
                names.by_value[index] = name
    return names


def _add(names: Names, key: Any, value: Any) -> None:
    """Add name: value, value: name, name: colour or colour: name."""
    for name, other in ((key, value), (value, key)):
        if isinstance(name, str) and not name.isdecimal() and not _HEX.fullmatch(name):
            if (isinstance(other, list) and len(other) == 3) or (
                isinstance(other, str) and _HEX.fullmatch(other)
            ):
                names.by_color[_hex(other)] = name
            elif isinstance(other, int) or (isinstance(other, str) and other.isdecimal()):
                names.by_value[int(other)] = name


def _hex(color: Any) -> str:
    if isinstance(color, str) and (match := _HEX.fullmatch(color)):
        return f"#{match[1].upper()}"
    red, green, blue = (int(value) for value in color)
    return f"#{red:02X}{green:02X}{blue:02X}"


def _of_lines(text: str) -> Names:
    """Names of a text: one per line, with a value before or after it, or with red, green and blue."""
    names = Names()
    for line in text.splitlines():
        line = line.partition("#")[0] if not _HEX.search(line) else line
        words = [word for word in re.split(r"[,;:\t]|\s+(?=\d)|(?<=\d)\s+", line.strip()) if word.strip()]
        numbers = [int(word) for word in words if word.strip().isdecimal()]
        texts = [word.strip().strip("\"'") for word in words if not word.strip().isdecimal()]
        if len(texts) != 1 or texts[0].lower() in _NAME_KEYS:
            continue
        if len(numbers) >= 3 and max(numbers[-3:]) <= 255:
            names.by_color[_hex(numbers[-3:])] = texts[0]
        elif len(numbers) == 1:
            names.by_value[numbers[0]] = texts[0]
        elif not numbers:
            names.in_order.append(texts[0])
    return names


def _of_header(folder: Path, mask: str) -> Names:
    """Category names of GDAL beside a raster, or the segments of an NRRD file of 3D Slicer."""
    names, sidecar = Names(), folder / f"{mask}.aux.xml"
    if sidecar.is_file():
        found = re.findall(r"<Category>(.*?)</Category>", sidecar.read_text(encoding="utf-8"))
        names.by_value = {value: name for value, name in enumerate(found) if name}
    elif mask.lower().endswith(".nrrd"):
        with (folder / mask).open("rb") as file:
            header = file.read(2**16).partition(b"\n\n")[0].decode("utf-8", "replace")
        titles = dict(re.findall(r"^Segment(\d+)_Name:=(.*?)\r?$", header, re.MULTILINE))
        values = dict(re.findall(r"^Segment(\d+)_LabelValue:=(\d+)", header, re.MULTILINE))
        names.by_value = {int(value): titles[number] for number, value in values.items() if number in titles}
    names.origin = sidecar.name if sidecar.is_file() else mask if names.by_value else ""
    return names
