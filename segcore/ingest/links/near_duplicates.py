"""Duplicates and near duplicates: candidates by perceptual hash, confirmed by their fine structure.

The hash alone would link pictures of one kind (all retinas are a bright disc, all dull forests are grey). Therefore
the thumbnails of a candidate pair must also correlate in fine structure, both as a whole and in their centre.
"""

from collections.abc import Collection, Iterator

import numpy as np
import pandas as pd

from segcore.ingest.links.perceptual_hash import SIDE

# Tuned on six real data sets: recompressed, brighter, shifted and resized copies of pictures of 250 pixels and more
# reach 0.75 or more at distance 10 or less; different retinas, the most similar pictures of these sets, stay below 0.45
# in the centre.
# largest number of different bits, of 64
MAX_DISTANCE = 10
# lowest correlation of fine structure over the whole picture
MIN_DETAIL = 0.75
# lowest correlation of fine structure in the middle half, without the rim of a field of view that all pictures share
MIN_CENTRE = 0.6
# standard deviation of fine structure, in grey levels, below which a picture counts as flat and is not compared
_FLAT = 1.0
_BLOCK = 512


def _detail(thumbs: np.ndarray) -> np.ndarray:
    """(n, SIDE, SIDE) float32 fine structure: each pixel minus the mean of the 5 x 5 pixels around it."""
    padded = np.pad(thumbs, ((0, 0), (2, 2), (2, 2)), mode="edge")
    rows = np.sum([padded[:, k : k + SIDE] for k in range(5)], axis=0)
    around = np.sum([rows[:, :, k : k + SIDE] for k in range(5)], axis=0) / 25
    return np.asarray(thumbs - around, dtype=np.float32)


def _unit_vectors(detail: np.ndarray) -> np.ndarray:
    """(n, pixels) vectors of mean 0 and length 1; NaN for flat pictures."""
    flat = detail.reshape(len(detail), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.where(length > _FLAT * np.sqrt(flat.shape[1]), flat / np.maximum(length, 1e-6), np.nan)


def _candidates(hashes: np.ndarray, among: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Index pairs (i, j) with similar hashes, i in `among`, in blocks of i; each pair once."""
    is_among = np.zeros(len(hashes), bool)
    is_among[among] = True
    for start in range(0, len(among), _BLOCK):
        rows = among[start : start + _BLOCK]
        i, j = np.nonzero(np.bitwise_count(hashes[rows, None] ^ hashes[None]) <= MAX_DISTANCE)
        i = rows[i]
        once = (i != j) & (~is_among[j] | (i < j))
        yield i[once], j[once]


def _duplicates(table: pd.DataFrame, new: np.ndarray) -> Iterator[tuple[int, int, str, str]]:
    twice = table["sha256"].duplicated(keep=False) & table["sha256"].notna()
    place = pd.Series(np.flatnonzero(twice))
    for digest, members in place.groupby(table["sha256"][twice].to_numpy()):
        for k, i in enumerate(members):
            for j in members.iloc[k + 1 :]:
                if new[i] or new[j]:
                    yield i, j, "duplicate", f"same content, sha256 {str(digest)[:12]}"


def near_duplicates(table: pd.DataFrame, new: Collection[str] | None = None) -> pd.DataFrame:
    """Pairs of items with equal content or nearly the same picture.

    Time grows with the square of the number of items, about a nanosecond per pair.

    Args:
        table: catalogue rows with id, sha256, phash, thumb; without phash or thumb only contents are compared.
        new: ids; only pairs with at least one of them are returned. None: all pairs.

    Returns:
        a, b (ids, a < b), kind ("duplicate" or "near-duplicate"), detail; sorted, each pair once.
    """
    # sorted, so that i < j means a < b
    table = table.sort_values("id", ignore_index=True)
    is_new = np.ones(len(table), bool) if new is None else table["id"].isin(list(new)).to_numpy()
    pairs = list(_duplicates(table, is_new))
    duplicates = {(i, j) for i, j, *_ in pairs}
    pictured = np.flatnonzero((table["phash"].notna() & table["thumb"].notna()).to_numpy())
    if len(pictured):
        hashes = np.array([int(h, 16) for h in table["phash"].iloc[pictured]], np.uint64)
        thumbs = np.stack([np.frombuffer(t, np.uint8) for t in table["thumb"].iloc[pictured]])
        detail = _detail(thumbs.reshape(-1, SIDE, SIDE).astype(np.float32))
        whole = _unit_vectors(detail)
        centre = _unit_vectors(detail[:, SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4])
        for i, j in _candidates(hashes, np.flatnonzero(is_new[pictured])):
            # in blocks, to limit memory use when thousands of pictures have similar hashes
            for at in range(0, len(i), 4_000):
                p, q = i[at : at + 4_000], j[at : at + 4_000]
                alike = np.einsum("nd,nd->n", whole[p], whole[q])
                middle = np.einsum("nd,nd->n", centre[p], centre[q])
                middle = np.where(np.isnan(centre[p, 0]) & np.isnan(centre[q, 0]), alike, middle)
                for k in np.flatnonzero((alike >= MIN_DETAIL) & (middle >= MIN_CENTRE)):
                    a, b = sorted((int(pictured[p[k]]), int(pictured[q[k]])))
                    if (a, b) not in duplicates:
                        bits = int(np.bitwise_count(hashes[p[k]] ^ hashes[q[k]]))
                        text = f"perceptual hashes differ in {bits} of 64 bits, detail correlates by {alike[k]:.2f}"
                        pairs.append((a, b, "near-duplicate", text))
    ids = table["id"].to_numpy()
    rows = [(ids[i], ids[j], kind, text) for i, j, kind, text in sorted(pairs)]
    return pd.DataFrame(rows, columns=["a", "b", "kind", "detail"])
