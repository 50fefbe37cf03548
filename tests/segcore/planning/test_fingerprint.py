"""The fingerprint: structures measured against shapes of known size, and what counts in it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segcore.constants import IGNORE
from segcore.errors import DataError
from segcore.planning.fingerprint import fingerprint, foreground_share
from tests.support.fake_catalogue import card_data, catalogue, pack


def strip(width: int) -> np.ndarray:
    """(200, 200) with one strip of water."""
    labels = np.zeros((200, 200), np.uint8)
    labels[:, 50 : 50 + width] = 1
    return labels


def disc(diameter: float) -> np.ndarray:
    """(200, 200) with one disc of roof."""
    rows, cols = np.indices((200, 200)) - 99.5
    return np.where(rows**2 + cols**2 < diameter**2 / 4, 2, 0).astype(np.uint8)


def row(store: Path, name: str, labels: np.ndarray, **over: Any) -> dict[str, Any]:
    """A catalogue row of a picture, or with labels (D, H, W) of a volume."""
    planes = labels if labels.ndim == 3 else labels[None]
    rng = np.random.default_rng(0)
    pixels = (planes[..., None] * 50 + rng.integers(10, 20, (*planes.shape, 1))).astype(np.uint8)
    step = max(1, -(-max(planes.shape[1:]) // min(max(max(planes.shape[1:]) // 8, 64), 512)))
    sample = pixels[:, ::step, ::step]
    tensors = {"sample": sample, "sample_valid": np.ones(sample.shape[:3], np.uint8)}
    packed = pack(store / f"{name}.safetensors", pixels, planes, extra=tensors)
    counts = np.bincount(planes.ravel(), minlength=256)
    values = {
        "id": name,
        "group": name,
        "batch": "0",
        "packed": packed.name,
        "height": planes.shape[1],
        "width": planes.shape[2],
        "depth": len(planes),
        "bands": 1,
        "dtype": "uint8",
        "pixels_per_class": json.dumps({c: int(counts[i]) for i, c in enumerate(card_data().classes)}),
        "affine": "null",
        "spacing": "null",
        "transform": "null",
        "status": "accepted",
    }
    return values | over


def facts_of(store: Path, rows: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    return fingerprint(catalogue(rows), store, card_data(), **options)


@pytest.mark.parametrize("width", [4, 10, 25, 60])
def test_the_width_of_a_strip(tmp_path: Path, width: int) -> None:
    found = facts_of(tmp_path, [row(tmp_path, "a", strip(width))])["structures"]["water"]
    assert found["width"] == pytest.approx(width, rel=0.05, abs=1)
    assert found["side"] == 200 and found["count"] == 1


@pytest.mark.parametrize("diameter", [20, 60])
def test_the_width_of_a_disc_is_two_thirds_of_its_diameter(tmp_path: Path, diameter: int) -> None:
    found = facts_of(tmp_path, [row(tmp_path, "a", disc(diameter))])["structures"]
    assert list(found) == ["roof"]
    assert found["roof"]["width"] == pytest.approx(diameter * 2 / 3, rel=0.1)
    assert found["roof"]["side"] == pytest.approx(diameter, abs=1)


def test_specks_hardly_count(tmp_path: Path) -> None:
    labels = disc(60)
    labels[::20, ::20] = np.where(labels[::20, ::20] == 0, 2, labels[::20, ::20])
    labels[5:8, 5:8] = 2
    assert facts_of(tmp_path, [row(tmp_path, "a", labels)])["structures"]["roof"]["side"] == pytest.approx(
        60, abs=1
    )


def test_ignored_pixels_are_no_edge_of_a_structure(tmp_path: Path) -> None:
    labels = strip(40)
    labels[:, 90:] = IGNORE
    plain = facts_of(tmp_path, [row(tmp_path, "a", strip(40))])["structures"]["water"]["width"]
    assert facts_of(tmp_path, [row(tmp_path, "b", labels)])["structures"]["water"]["width"] > 1.5 * plain


def test_a_class_that_fills_all_images_is_as_wide_as_they_are(tmp_path: Path) -> None:
    found = facts_of(tmp_path, [row(tmp_path, "a", np.ones((64, 48), np.uint8))])["structures"]["water"]
    assert found["width"] > 64


def test_sizes_shares_and_values(tmp_path: Path) -> None:
    rows = [row(tmp_path, "a", strip(50)), row(tmp_path, "b", disc(50)[:100])]
    facts = facts_of(tmp_path, rows)
    assert (facts["items"], facts["groups"], facts["pixels"]) == (2, 2, 60000)
    assert facts["height"] == [100, 150, 200] and facts["width"] == [200, 200, 200]
    assert facts["class_shares"]["water"] == pytest.approx(1 / 6, abs=1e-4)
    share = foreground_share(facts, card_data())
    assert share == pytest.approx(facts["class_shares"]["water"] + facts["class_shares"]["roof"])
    (low, middle, high) = facts["values"]["roof"][0]
    assert 110 <= low <= middle <= high < 120
    assert facts["volumes"] is False and facts["positioned"] is False


def test_batches_count_only_if_asked_for(tmp_path: Path) -> None:
    first, later = row(tmp_path, "a", strip(50)), row(tmp_path, "z", disc(20), batch="20260101-01")
    assert facts_of(tmp_path, [first, later]) == facts_of(tmp_path, [first])
    assert facts_of(tmp_path, [first, later], later=True)["items"] == 2
    # a project whose source is empty has nothing else
    assert facts_of(tmp_path, [later])["items"] == 1


def test_quarantined_items_do_not_count_and_the_order_does_not_matter(tmp_path: Path) -> None:
    rows = [row(tmp_path, name, strip(20 + i)) for i, name in enumerate("abcd")]
    bad = rows[0] | {"id": "e", "status": "quarantined", "packed": None}
    assert facts_of(tmp_path, [bad, *rows[::-1]]) == facts_of(tmp_path, rows)


def test_a_volume_is_measured_where_it_has_foreground(tmp_path: Path) -> None:
    planes = np.stack([np.zeros((64, 64)), *[strip(12)[:64, :64]] * 1, np.zeros((64, 64))]).astype(np.uint8)
    planes[1] = np.where(np.indices((64, 64))[1] < 12, 1, 0)
    affine = json.dumps(np.diag([1.0, 1, 3, 1]).ravel().tolist())
    spacing = json.dumps([3.0, 1.0, 1.0])
    facts = facts_of(tmp_path, [row(tmp_path, "v", planes, affine=affine, spacing=spacing)])
    assert facts["volumes"] is True and facts["planes"] == 3
    assert facts["pixel_sizes"]["mm: planes"] == [3, 3, 3]
    assert facts["structures"]["water"]["count"] == 1


def test_a_missing_packed_file_is_named(tmp_path: Path) -> None:
    broken = row(tmp_path, "a", strip(20))
    (tmp_path / broken["packed"]).unlink()
    with pytest.raises(DataError, match=broken["packed"]):
        facts_of(tmp_path, [broken])


def test_it_can_be_written_as_json(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, [row(tmp_path, "a", strip(20))])
    assert json.loads(json.dumps(facts)) == facts
