"""Duplicates and near duplicates: candidates by perceptual hash, confirmed by their fine structure.

The hash alone would link pictures of one kind (all retinas are a bright disc, all dull forests are grey). Therefore
the thumbnails of a candidate pair must also correlate in fine structure, both as a whole and in their centre.

Where this is common, as among X-rays or slices of one anatomy, or frames of one scene, it means little. There a pair
must also stand out: its distance (1 - correlation) must be far below the distances of both to their other neighbours.
Volumes, which show one anatomy almost always, are compared by content alone.
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
# pictures in which so many pairs look alike are of one anatomy or scene, if most pairs correlate by at least _TYPICAL
COMMON = 0.05
_TYPICAL = 0.3
# quantile of the correlations of all pairs which most pairs exceed
_MOST = 0.1
# a pair stands out if its distance is at most this fraction of those to the neighbours of this rank
_STANDS_OUT, _RANK = 0.3, 5
# fewer pictures have no distribution to compare with
_FEWEST = 8
# pairs by which a larger set is measured, and those that are compared at a time
_SAMPLE, _AT_ONCE = 20_000, 4_000


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


class Pictures:
    """Hashes and fine structure of a set of pictures, and how alike two of them must be.

    Attributes:
        hashes: (n,) perceptual hashes of 64 bits.
        alike_share: fraction of the pairs that are alike by the fixed thresholds.
        is_uniform: whether alike pairs are so common that a pair must stand out.
    """

    def __init__(self, hashes: np.ndarray, thumbs: np.ndarray, first: np.ndarray) -> None:
        """`thumbs` is (n, SIDE, SIDE); `first` has the positions of the pictures by which the set is measured."""
        self.hashes = hashes
        detail = _detail(thumbs.astype(np.float32))
        self._whole = _unit_vectors(detail)
        self._centre = _unit_vectors(detail[:, SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4])
        whole, centre, bits = self._sampled(first)
        alike = (bits <= MAX_DISTANCE) & (whole >= MIN_DETAIL) & (centre >= MIN_CENTRE)
        self.alike_share = float(alike.mean()) if len(alike) else 0.0
        is_typical = np.nanquantile(whole, _MOST) >= _TYPICAL if np.isfinite(whole).any() else False
        self.is_uniform = bool(len(first) >= _FEWEST and self.alike_share > COMMON and is_typical)
        # (n,) distances to the neighbour of that rank, as a whole and in the centre
        self._reach = self._reaches(first) if self.is_uniform else None

    def correlations(self, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Correlation of the fine structure of pictures `i` with pictures `j`, as a whole and in the centre."""
        whole = np.einsum("nd,nd->n", self._whole[i], self._whole[j])
        centre = np.einsum("nd,nd->n", self._centre[i], self._centre[j])
        flat = np.isnan(self._centre[i, 0]) & np.isnan(self._centre[j, 0])
        return whole, np.where(flat, whole, centre)

    def near(self, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in `i` and `j` of the pairs that are near duplicates, and their correlation; hashes are similar."""
        whole, centre = self.correlations(i, j)
        found = (whole >= MIN_DETAIL) & (centre >= MIN_CENTRE)
        if self._reach is not None:
            whole_reach, centre_reach = (np.minimum(reach[i], reach[j]) for reach in self._reach)
            found &= (1 - whole <= _STANDS_OUT * whole_reach) | (1 - centre <= _STANDS_OUT * centre_reach)
        return np.flatnonzero(found), whole

    def _reaches(self, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance of each picture to its neighbour of rank _RANK among the pictures `first`."""
        parts = []
        for vectors in (self._whole, self._centre):
            # flat pictures are no neighbours
            others = np.nan_to_num(vectors[first])
            reach = np.empty(len(vectors), np.float32)
            for at in range(0, len(vectors), _BLOCK):
                distances = 1 - vectors[at : at + _BLOCK] @ others.T
                rows, columns = np.nonzero(np.arange(at, at + len(distances))[:, None] == first[None])
                distances[rows, columns] = np.inf
                reach[at : at + _BLOCK] = np.partition(distances, _RANK - 1, axis=1)[:, _RANK - 1]
            parts.append(reach)
        return parts[0], parts[1]

    def _sampled(self, first: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Correlations as a whole and in the centre, and numbers of different bits, of an even sample of pairs."""
        n = len(first)
        if n * (n - 1) // 2 <= _SAMPLE:
            i, j = np.triu_indices(n, 1)
        else:
            i, j = np.random.default_rng(0).integers(0, n, (2, _SAMPLE))
            i, j = i[i != j], j[i != j]
        i, j = first[i], first[j]
        parts = [
            self.correlations(i[at : at + _AT_ONCE], j[at : at + _AT_ONCE])
            for at in range(0, max(1, len(i)), _AT_ONCE)
        ]
        whole, centre = (np.concatenate(part) for part in zip(*parts, strict=True))
        return whole, centre, np.bitwise_count(self.hashes[i] ^ self.hashes[j])


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
            Optional: depth, so that volumes are recognised, and batch: the set is measured by its first batch, so that
            later ones do not change the links of earlier items.
        new: ids; only pairs with at least one of them are returned. None: all pairs.

    Returns:
        a, b (ids, a < b), kind ("duplicate" or "near-duplicate"), detail; sorted, each pair once. The attribute
        `alike_share` is the fraction of pairs that look alike, if that is so common that only pairs that stand out are
        near duplicates.
    """
    order = [] if "batch" not in table else list(table["batch"])
    first_batch = order[0] if order else None
    # sorted, so that i < j means a < b
    table = table.sort_values("id", ignore_index=True)
    is_new = np.ones(len(table), bool) if new is None else table["id"].isin(list(new)).to_numpy()
    pairs = list(_duplicates(table, is_new))
    duplicates = {(i, j) for i, j, *_ in pairs}
    has_picture = table["phash"].notna() & table["thumb"].notna()
    if "depth" in table:
        has_picture &= ~(table["depth"].fillna(1) > 1)
    pictured = np.flatnonzero(has_picture.to_numpy())
    attributes = {}
    if len(pictured):
        hashes = np.array([int(h, 16) for h in table["phash"].iloc[pictured]], np.uint64)
        thumbs = np.stack([np.frombuffer(t, np.uint8) for t in table["thumb"].iloc[pictured]])
        is_first = np.ones(len(pictured), bool)
        if first_batch is not None:
            is_first = (table["batch"].iloc[pictured] == first_batch).to_numpy()
        pictures = Pictures(hashes, thumbs.reshape(-1, SIDE, SIDE), np.flatnonzero(is_first))
        if pictures.is_uniform:
            attributes["alike_share"] = pictures.alike_share
        pairs += [
            (a, b, "near-duplicate", text)
            for a, b, text in _near(pictures, pictured, is_new)
            if (a, b) not in duplicates
        ]
    ids = table["id"].to_numpy()
    rows = [(ids[i], ids[j], kind, text) for i, j, kind, text in sorted(pairs)]
    found = pd.DataFrame(rows, columns=["a", "b", "kind", "detail"])
    found.attrs |= attributes
    return found


def _near(pictures: Pictures, pictured: np.ndarray, is_new: np.ndarray) -> Iterator[tuple[int, int, str]]:
    """Near duplicates as positions in the table, the lower one first, and a text about each pair."""
    hashes = pictures.hashes
    for i, j in _candidates(hashes, np.flatnonzero(is_new[pictured])):
        # in blocks, to limit memory use when thousands of pictures have similar hashes
        for at in range(0, len(i), _AT_ONCE):
            p, q = i[at : at + _AT_ONCE], j[at : at + _AT_ONCE]
            found, alike = pictures.near(p, q)
            for k in found:
                a, b = sorted((int(pictured[p[k]]), int(pictured[q[k]])))
                bits = int(np.bitwise_count(hashes[p[k]] ^ hashes[q[k]]))
                yield (
                    a,
                    b,
                    f"perceptual hashes differ in {bits} of 64 bits, detail correlates by {alike[k]:.2f}",
                )
