"""Texts of the data card: its verdict, tiles, and the rows of its tables."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segcore.class_colors import hex_color
from segcore.constants import IGNORE
from segcore.ingest.problems import KINDS
from segcore.io.layouts import Stray
from segcore.params.data import Data
from tasks.data_card.facts import (
    accepted,
    class_counts,
    counted,
    noted,
    pixel_counts,
    pixel_sizes,
    plural,
    shares,
    short_crs,
    sizes,
    some,
    spacings,
)
from tasks.formatting import amount

# problems listed in all; more would make the page too slow
MOST_ROWS = 10_000
# notes per kind
MOST_NOTES = 1_000
MOST_PAIRS = 2_000
MOST_GROUPS = 50


def verdict(table: pd.DataFrame, limit: float = 1.0) -> str:
    """Result of the check as a sentence; `limit` is data.max_quarantined."""
    total, good = len(table), len(accepted(table))
    bad = total - good
    if total == 0:
        return "There are no items."
    if bad == 0:
        return "The one item can be used." if total == 1 else f"All {total:,} items can be used."
    if good == 0:
        return "The one item cannot be used." if total == 1 else f"None of the {total:,} items can be used."
    text = f"{bad:,} of {total:,} items {'is' if bad == 1 else 'are'} quarantined"
    if bad / total > limit:
        return f"{text}, more than data.max_quarantined ({limit:g}) allows: the ingest stops."
    return f"{text}; the other {f'{good:,} are' if good > 1 else 'one is'} used."


def remarks(table: pd.DataFrame, links: pd.DataFrame, strays: Sequence[Stray]) -> list[tuple[str, str]]:
    """Further results: (section of the card, phrase)."""
    items = len({item for _, item, _ in noted(table)})
    phrases = []
    if items:
        phrases.append(("notes", f"{plural(items, 'item')} with notes"))
    if len(links):
        phrases.append(("pairs", f"{plural(len(links), 'linked pair')}"))
    masks = sum(kind == "mask-without-image" for kind, *_ in strays)
    if masks:
        phrases.append(("notes", f"{plural(masks, 'mask')} without an image"))
    if len(strays) > masks:
        phrases.append(("notes", f"{plural(len(strays) - masks, 'file')} with images that are left out"))
    return phrases


def _place_tile(good: pd.DataFrame, volumes: bool) -> tuple[str, str, str]:
    if volumes:
        usual = counted(spacings(good))
        several = f"{len(usual)} spacings" if len(usual) > 1 else "planes, rows, columns"
        return (usual[0][0] if usual else "–", "mm between voxels", several)
    systems = counted(good["crs"])
    if not systems:
        return ("none", "coordinate system", "not georeferenced")
    name = short_crs(systems[0][0])
    several = f"and {len(systems) - 1} more" if len(systems) > 1 else ""
    ground = counted(pixel_sizes(good))
    return (name, "coordinate system", several or (f"{ground[0][0]} per pixel" if len(ground) == 1 else ""))


def tiles(table: pd.DataFrame, data: Data) -> list[dict[str, str]]:
    """The numbers at the top of the card."""
    good = accepted(table)
    bad = table[table["status"] != "accepted"]
    kinds = f"{plural(bad['kind'].nunique(), 'kind')} of problem" if len(bad) else "no problems"
    names = ", ".join(data.classes[:3]) + (
        f" and {len(data.classes) - 3} more" if len(data.classes) > 3 else ""
    )
    found = [
        (f"{len(good):,}", "accepted", f"of {plural(len(table), 'item')}"),
        (f"{len(bad):,}", "quarantined", kinds),
    ]
    if len(good):
        planes = int(good["depth"].sum())
        volumes = planes > len(good)
        different = set(sizes(good))
        extent = next(iter(different)) if len(different) == 1 else f"{len(different):,} sizes"
        bands = some([int(b) for b in good["bands"]], 1)
        found += [
            (f"{good['group'].nunique():,}", "groups", "never divided between splits"),
            (
                amount(pixel_counts(good).sum()),
                "voxels" if volumes else "pixels",
                f"{planes:,} planes, {extent}" if volumes else extent,
            ),
            (bands, "band" if bands == "1" else "bands", some(good["dtype"], 1)),
            _place_tile(good, volumes),
        ]
    found.append((str(len(data.classes)), "classes", names))
    return [dict(zip(("value", "label", "note"), tile, strict=True)) for tile in found]


def class_rows(good: pd.DataFrame, data: Data) -> list[dict[str, Any]]:
    """One row per class: colour, label values, pixels, fraction, items that contain it; last the ignored pixels."""
    counts = class_counts(good, data.classes)
    total, items = counts.sum(axis=0), (counts > 0).sum(axis=0)
    ignored = good["ignored_pixels"].fillna(0).astype(np.int64)
    every = max(1, int(total.sum() + ignored.sum()))
    values: dict[int, list[str]] = {}
    for value, index in data.label_table.items():
        values.setdefault(index, []).append(str(value))
    rows = [
        {
            "name": name,
            "colour": hex_color(data.colors[i]),
            "values": ", ".join(values.get(i, [])),
            "pixels": int(total[i]),
            "share": total[i] / every,
            "items": int(items[i]),
        }
        for i, name in enumerate(data.classes)
    ]
    if ignored.sum():
        rest: dict[str, Any] = {
            "name": "ignored",
            "colour": None,
            "values": ", ".join(values.get(IGNORE, [])),
        }
        rest["pixels"] = int(ignored.sum())
        rows.append(rest | {"share": ignored.sum() / every, "items": int((ignored > 0).sum())})
    return rows


def meaning(kind: str) -> str:
    """Description of a kind of problem."""
    return KINDS[kind].meaning if kind in KINDS else ""


def advice(kind: str) -> str:
    """What to do about a note of this kind."""
    return KINDS[kind].advice if kind in KINDS else ""


def problem_blocks(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Quarantined items by kind, the most frequent first: meaning, remedies, and rows of path, reason, remedy, items.

    A remedy that is the same for all rows of a kind is given once; otherwise each row has its own. A problem of one
    file that several items share, such as their annotations, is one row.
    """
    bad = table[table["status"] != "accepted"].fillna({"kind": "", "reason": "", "remedy": ""})
    blocks = []
    for kind, count in counted(bad["kind"]):
        rows = bad[bad["kind"] == kind]
        common = rows["remedy"].iloc[0] if rows["remedy"].nunique() == 1 else None
        paths = [_named(row.image, row.label, row.reason, str(kind)) for row in rows.itertuples()]
        texts = zip(paths, rows["reason"].astype(str), rows["remedy"].astype(str), strict=True)
        numbers = Counter((path, reason, "" if common else remedy) for path, reason, remedy in texts)
        listed = [(*text, number) for text, number in numbers.items()]
        block = {"kind": kind, "meaning": meaning(kind), "remedy": common, "count": count}
        blocks.append(block | {"rows": listed})
    left = MOST_ROWS
    # rarest kinds first, so that these are listed in full
    for block in reversed(blocks):
        block["rows"] = block["rows"][:left]
        left -= len(block["rows"])
    return blocks


def _named(image: str, label: Any, reason: str, kind: str) -> str:
    """Path of the file that a problem is about: the image, or its mask if the reason names that."""
    if not isinstance(label, str):
        return str(image)
    if reason.startswith(f"{_with_folder(label)}: "):
        return label
    is_of_mask = kind.startswith("label-") or kind == "jpeg-mask"
    if reason.startswith(f"{Path(label).name}:") and (is_of_mask or Path(image).name != Path(label).name):
        return label
    return str(image)


def _with_folder(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


def without_name(reason: str, path: str) -> str:
    """A reason without the file name at its beginning, for rows that show the path."""
    return reason.removeprefix(f"{_with_folder(path)}: ").removeprefix(f"{Path(path).name}: ")


def with_path(reason: str, path: str) -> str:
    """A reason with the whole path in place of the file name at its beginning, or before it."""
    for name in (_with_folder(path), Path(path).name):
        if reason.startswith(name):
            return path + reason[len(name) :]
    return f"{path}: {reason}"


def of_items(number: int) -> str:
    """Part of a row about a file that several items share: ` (5 items)`; empty for one item."""
    return f" ({plural(number, 'item')})" if number > 1 else ""


def look_alikes(links: pd.DataFrame) -> str:
    """Sentence about a set of which so many pairs look alike that this alone links none."""
    return (
        f"{links.attrs['alike_share']:.0%} of all pairs look alike, as pictures of one anatomy or scene do: only those "
        "that stand out are linked as near duplicates. If these only look alike too, leave near-duplicate out of "
        "split.links."
    )


def note_blocks(table: pd.DataFrame, strays: Sequence[Stray]) -> list[dict[str, Any]]:
    """Notes by kind, the most frequent first: number of items, advice, and rows of (items with the same text, text)."""
    by_kind: dict[str, list[tuple[str, str]]] = {}
    for kind, item, text in [*noted(table), *((kind, p.as_posix(), text) for kind, p, text in strays)]:
        by_kind.setdefault(kind, []).append((item, text))
    blocks = []
    for kind, notes in by_kind.items():
        texts: dict[str, list[str]] = {}
        for item, text in notes[:MOST_NOTES]:
            texts.setdefault(text, []).append(item)
        listed = [(items, text) for text, items in texts.items()]
        block = {"kind": kind, "meaning": meaning(kind), "advice": advice(kind), "rows": listed}
        items = len({item for item, _ in notes})
        blocks.append(block | {"count": items, "left": max(0, len(notes) - MOST_NOTES)})
    return sorted(blocks, key=lambda block: -block["count"])


def group_rows(good: pd.DataFrame, data: Data) -> list[dict[str, Any]]:
    """The groups with most pixels: items, pixels, fraction per class; empty if every item is its own group."""
    if good["group"].nunique() in (0, len(good)):
        return []
    facts = pd.DataFrame(class_counts(good, data.classes), index=good["group"].astype(str))
    facts = facts.assign(items=1, pixels=pixel_counts(good)).groupby(level=0).sum()
    facts = facts.sort_values("pixels", ascending=False, kind="stable").head(MOST_GROUPS)
    classes = facts[list(range(len(data.classes)))].to_numpy()
    return [
        {"group": group, "items": int(items), "pixels": pixels, "shares": part}
        for group, items, pixels, part in zip(
            facts.index, facts["items"], facts["pixels"], shares(classes).tolist(), strict=True
        )
    ]
