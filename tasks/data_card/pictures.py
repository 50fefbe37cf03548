"""Pictures and small charts of the data card: chosen items with masks, linked pairs side by side."""

import re
from collections.abc import Collection, Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segcore.params.data import Data
from tasks.data_card.facts import class_counts, counted, number, parsed, pixel_counts, shares, sizes
from tasks.data_card.item_pictures import BUDGET, MOST_PICTURES, ItemPictures, inlined, look_of

MOST_PAIRS = 6
# items in a column chart; if there are more, evenly chosen ones
MOST_COLUMNS = 160
MOST_BANDS = 24
MOST_SHAPES = 40


def foreground_shares(good: pd.DataFrame, data: Data) -> np.ndarray:
    """Foreground fraction of each item's labelled pixels, (items,) in [0, 1]."""
    return shares(class_counts(good, data.classes))[:, data.foreground].sum(axis=1)


def prominence(good: pd.DataFrame, data: Data) -> np.ndarray:
    """Sort key of items, (items,) in [0, 1]: fraction of foreground, or of the most common class without background."""
    if data.background is not None:
        return foreground_shares(good, data)
    part = shares(class_counts(good, data.classes))
    return part[:, int(part.sum(axis=0).argmax())]


def _spread(rest: Sequence[int], count: int, preferred: Collection[int]) -> list[int]:
    """`count` rows spread evenly over the ordered `rest`; near each place a preferred row is taken if there is one."""
    places = np.linspace(0, len(rest) - 1, min(len(rest), count)).round().astype(int)
    around = int(places[1] - places[0] - 1) // 2 if len(places) > 1 else 0
    rows = []
    for place in places:
        near = sorted(
            range(max(0, place - around), min(len(rest), place + around + 1)), key=lambda i: abs(i - place)
        )
        rows.append(rest[next((i for i in near if rest[i] in preferred), place)])
    return rows


def choose(
    good: pd.DataFrame, data: Data, most: int = MOST_PICTURES, known: Container[str] = ()
) -> list[tuple[int, str]]:
    """Items to show, from most foreground to least: (row, reason); the reason is "" for evenly spread ones.

    They include the items with most and least foreground, two without foreground, one per kind of note, the one with
    the smallest valid fraction, and the largest.

    Args:
        good: the accepted items.
        data: the section `data` of params.yaml.
        most: largest number of items.
        known: packed names of items with cached pictures, preferred among evenly spread ones.
    """
    part = prominence(good, data)
    order = np.argsort(-part, kind="stable")
    why: dict[int, str] = {}

    def take(rows: Sequence[int] | np.ndarray, reason: str) -> None:
        for row in rows:
            if len(why) < most:
                why.setdefault(int(row), reason)

    some, none = order[part[order] > 0], order[part[order] == 0]
    if data.background is not None and len(some) > 1 and part[some[0]] > part[some[-1]]:
        take(some[:1], "most foreground")
        take(some[-1:], "least foreground")
    if data.background is not None:
        take(none[:2], "no foreground")
    kinds = [{kind for kind, _ in parsed(text) or []} for text in good["notes"]]
    for kind in sorted(set().union(*kinds))[:6]:
        take([row for row in range(len(good)) if kind in kinds[row] and row not in why][:1], kind)
    valid = good["valid_share"].fillna(1).to_numpy(np.float64)
    if len(good) and valid.min() < 1:
        take([int(valid.argmin())], "least valid")
    pixels = pixel_counts(good)
    if len(good) and pixels.max() > pixels.min():
        take([int(pixels.argmax())], "largest")
    rest = [int(row) for row in order if int(row) not in why]
    shown = {row for row, name in enumerate(good["packed"]) if name in known} if known else set()
    take(_spread(rest, most - len(why), shown), "")
    return [(int(row), why[int(row)]) for row in order if int(row) in why]


def _headline(part: Sequence[float], data: Data) -> tuple[str, float]:
    """Class and fraction shown for an item: all foreground as one (""), or its most common class without background."""
    if data.background is not None:
        return "", sum(part[i] for i in data.foreground)
    most = int(np.argmax(part))
    return data.classes[most], part[most]


def distinct_parts(names: Sequence[str]) -> list[str]:
    """Names without common words: those at the beginning or end, or at one position if all have as many words."""
    words = [re.split(r"(?<=[._-])", name) for name in names]
    if len(names) > 1 and len({len(w) for w in words}) == 1:
        differ = [len(set(column)) > 1 for column in zip(*words, strict=True)]
        if any(differ):
            words = [[word for word, kept in zip(w, differ, strict=True) if kept] for w in words]
    for end in (0, -1):
        while len(names) > 1 and all(len(w) > 1 for w in words) and len({w[end] for w in words}) == 1:
            for w in words:
                w.pop(end)
    return ["".join(w).rstrip("._-") or name for w, name in zip(words, names, strict=True)]


def gallery(good: pd.DataFrame, data: Data, pictures: ItemPictures) -> list[dict[str, Any]]:
    """Chosen items with their pictures, plain and with masks."""
    chosen = choose(good, data, known=pictures.cache)
    picked = good.iloc[[row for row, _ in chosen]]
    part = shares(class_counts(picked, data.classes)).tolist()
    drawn = pictures.draw(picked)
    cells = [
        {
            "id": item.id,
            "group": item.group if item.group != item.id else None,
            "why": why,
            "shares": fractions,
            "most": _headline(fractions, data),
            "objects": None if pd.isna(item.objects) else int(item.objects),
            **cell,
        }
        for item, (_, why), fractions, cell in zip(picked.itertuples(), chosen, part, drawn, strict=True)
    ]
    names = distinct_parts(list(picked["id"]))
    return [
        cell | {"short": name, "size": size}
        for cell, name, size in zip(cells, names, sizes(picked), strict=True)
    ]


def note_pictures(
    good: pd.DataFrame, blocks: Sequence[dict[str, Any]], pictures: ItemPictures
) -> list[dict[str, Any]]:
    """The first item of each kind of note, its masks drawn over it, with the text of the note.

    Args:
        good: the accepted items.
        blocks: of `rows.note_blocks`; kinds that no accepted item has are left out.
        pictures: of the items.
    """
    rows = {str(item): row for row, item in enumerate(good["id"])}
    firsts = [(b["kind"], b["count"], b["rows"][0][0][0], b["rows"][0][1]) for b in blocks]
    firsts = [first for first in firsts if first[2] in rows]
    drawn = pictures.draw(good.iloc[[rows[item] for _, _, item, _ in firsts]])
    return [
        {"kind": kind, "count": count, "id": item, "text": text, **cell}
        for (kind, count, item, text), cell in zip(firsts, drawn, strict=True)
    ]


def pictured_pairs(links: pd.DataFrame, most: int = MOST_PAIRS) -> pd.DataFrame:
    """Up to `most` pairs, taken from every kind in turn."""
    turn = links.groupby("kind", sort=False).cumcount()
    return links.assign(turn=turn).sort_values("turn", kind="stable").head(most)


def pair_pictures(
    good: pd.DataFrame, links: pd.DataFrame, data: Data, store: Path, budget: float = BUDGET / 4
) -> list[dict[str, Any]]:
    """Linked pairs with a picture of both items, masks drawn over them."""
    by_id = {row.id: row for row in good.itertuples()}
    accepted = links[links["a"].isin(set(by_id)) & links["b"].isin(set(by_id))]
    pairs = []
    for pair in pictured_pairs(accepted).itertuples():
        drawn = [look_of(by_id[item], data, store).masked for item in (pair.a, pair.b)]
        pictures = inlined(drawn, budget / MOST_PAIRS)
        names = ((pair.a, pictures[0]), (pair.b, pictures[1]))
        pairs.append({"kind": pair.kind, "detail": pair.detail, "items": names})
    return pairs


def stacked_columns(values: np.ndarray, colours: Sequence[str]) -> dict[str, Any]:
    """Stacked columns of fractions (items, series) as one SVG path per series, in a box of 1 x 100 per item."""
    wide = 0.86 if len(values) <= 60 else 1.02
    ends = 100 - np.cumsum(values, axis=1) * 100
    starts = np.hstack([np.full((len(values), 1), 100.0), ends[:, :-1]])
    paths = []
    for series, colour in enumerate(colours):
        drawn = [(i, starts[i, series], ends[i, series]) for i in range(len(values)) if values[i, series] > 0]
        path = "".join(f"M{i} {low:.2f}h{wide}V{high:.2f}h-{wide}z" for i, low, high in drawn)
        paths.append((colour, path))
    return {"wide": len(values), "paths": paths}


def evenly(order: np.ndarray) -> np.ndarray:
    """All of the rows, or MOST_COLUMNS evenly spaced ones."""
    if len(order) <= MOST_COLUMNS:
        return order
    return order[np.linspace(0, len(order) - 1, MOST_COLUMNS).round().astype(int)]


def class_columns(good: pd.DataFrame, data: Data, colours: Sequence[str]) -> dict[str, Any] | None:
    """Every item (or MOST_COLUMNS of them) as a column of its class fractions, ordered by `prominence`.

    Background is the empty part of a column; the scale ends at `top`, the largest fraction of foreground.
    """
    if len(good) < 2:
        return None
    order = evenly(np.argsort(-prominence(good, data), kind="stable"))
    part = shares(class_counts(good, data.classes))[order][:, data.foreground]
    top = max(float(part.sum(axis=1).max()), 1e-9)
    return stacked_columns(part / top, [colours[i] for i in data.foreground]) | {"top": top}


def valid_columns(good: pd.DataFrame) -> dict[str, Any] | None:
    """Valid fraction of every item (or MOST_COLUMNS of them), largest first; None if all are nearly 1."""
    valid = good["valid_share"].fillna(1).to_numpy(np.float64)
    # above 0.98 a column looks full
    if len(good) < 2 or valid.min() > 0.98:
        return None
    return stacked_columns(valid[evenly(np.argsort(-valid, kind="stable"))][:, None], ["var(--2f76b5)"])


def shape_frames(good: pd.DataFrame) -> list[dict[str, Any]]:
    """The distinct sizes as frames in a box of 100, the largest first, with the number of items."""
    pairs = counted(zip(good["width"].astype(int), good["height"].astype(int), strict=True))
    if len(pairs) < 2:
        return []
    longest = max(max(shape) for shape, _ in pairs)
    frames = [
        {"wide": w / longest * 100, "tall": h / longest * 100, "size": f"{w} × {h}", "count": count}
        for (w, h), count in pairs[:MOST_SHAPES]
    ]
    return sorted(frames, key=lambda frame: -frame["wide"] * frame["tall"])


def band_rows(good: pd.DataFrame, data: Data) -> list[dict[str, Any]]:
    """Range of each band over all items, and of the typical item (medians of lowest and highest value)."""
    if not len(good):
        return []
    low = np.array([parsed(text) for text in good["band_min"]], np.float64)
    high = np.array([parsed(text) for text in good["band_max"]], np.float64)
    first, last = (0.0, 255.0) if set(good["dtype"]) == {"uint8"} else (low.min(), high.max())
    span = max(last - first, 1e-12)
    rows = []
    for band in range(min(low.shape[1], MOST_BANDS)):
        ends = [low[:, band].min(), np.median(low[:, band]), np.median(high[:, band]), high[:, band].max()]
        rows.append(
            {
                "band": data.bands[band] if data.bands else band + 1,
                "at": [float((end - first) / span * 100) for end in ends],
                "text": [number(float(end)) for end in ends],
            }
        )
    return rows
