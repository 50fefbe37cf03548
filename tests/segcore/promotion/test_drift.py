"""Drift between a batch and the training data: indices computed by hand, and data that really differ."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from segcore.data.prepared import PreparedData
from segcore.inference.calibration import Calibration
from segcore.promotion.drift import BINS, drift, expected_calibration_error, psi
from tasks.ingest import ingest
from tasks.prepare import prepare
from tests.support.tiny import make_pairs, params_for


def test_psi_by_hand() -> None:
    a, b = np.array([500_000, 500_000]), np.array([250_000, 750_000])
    assert psi(a, b) == pytest.approx(0.25 * np.log(2) + 0.25 * np.log(1.5), abs=1e-5)
    assert psi(a, a) == 0 and psi(a, 2 * a) == pytest.approx(0, abs=1e-9)
    assert psi(a, b) == pytest.approx(psi(b, a)) and np.isfinite(psi(np.array([10, 0]), np.array([0, 10])))


def test_pooled_calibration_error_is_that_of_all_pixels_together() -> None:
    rng = np.random.default_rng(0)
    parts, whole = [], Calibration()
    for _ in range(3):
        p = rng.random((1, 20, 20))
        probabilities, label = np.concatenate([p, 1 - p]), rng.integers(0, 2, (20, 20))
        part = Calibration()
        for calibration in (part, whole):
            calibration.update(probabilities, label)
        parts.append(part.result())
    assert expected_calibration_error(parts) == pytest.approx(whole.result()["ece"])
    assert expected_calibration_error([]) is None


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Twelve items of batch 0; a0 to a3 are brightened by half and assigned to batch 1."""
    root = tmp_path_factory.mktemp("drift")
    make_pairs(root / "source")
    for name in ("a0", "a1", "a2", "a3"):
        path = root / "source/images" / f"{name}.png"
        Image.fromarray((np.asarray(Image.open(path)) * [1.5, 1, 1]).clip(0, 255).astype(np.uint8)).save(path)
    p = params_for(root / "source")
    ingest(p.data, root / "ingested")
    folder = prepare(p, root / "ingested", root / "prepared")
    relabel(folder, ["a0", "a1", "a2", "a3"])
    return PreparedData(folder)


def relabel(folder: Path, items: list[str]) -> None:
    table = pd.read_parquet(folder / "items.parquet")
    table.loc[table["item"].isin(items), "batch"] = "1"
    table.to_parquet(folder / "items.parquet", index=False)


def test_a_brighter_band_is_found_and_the_others_are_not(data: PreparedData) -> None:
    champion = {"score": {"frozen": 0.7, "new": 0.6}, "ece": {"frozen": 0.02, "new": None}}
    found = drift(data, ["1"], champion)
    assert found is not None
    json.dumps(found, allow_nan=False)
    red, green, _ = found["bands"]
    assert red["level"] == "large" and red["outside"] > 0.05 and green["outside"] < 0.01
    assert green["psi"] < red["psi"] / 5 and green["ks"] < 0.1 < red["ks"]
    assert BINS / 2 < len(red["training"]) == len(red["new"]) <= BINS and sum(red["new"]) == pytest.approx(
        1, abs=1e-4
    )
    assert found["new"]["images"] == 4 and 0 < found["training"]["images"] <= 8
    verdicts = found["verdicts"]
    assert (
        len(verdicts) == 5
        and verdicts[0].startswith("Band 1: large shift")
        and "10.0 points lower" in verdicts[4]
    )


def test_figures_equal_those_of_all_pixels(data: PreparedData) -> None:
    """Small images are read completely, so every pixel counts."""
    from scipy.stats import ks_2samp

    found = drift(data, ["1"])
    batch = data.regions["item"].map(data.items["batch"]).astype(str)
    sides = [data.regions[(batch == "0") & (data.regions["split"] == "train")], data.regions[batch == "1"]]
    patches = [[data.read(i) for i in side["id"]] for side in sides]
    red = [np.concatenate([p.image[..., 0][p.valid] for p in side]).astype(float) for side in patches]
    assert found is not None and found["bands"][0]["range"] == [red[0].min(), red[0].max()]
    assert found["bands"][0]["ks"] == pytest.approx(ks_2samp(*red).statistic, abs=1e-6)
    square = [np.mean(np.concatenate([p.label.ravel() for p in side]) == 1) for side in patches]
    assert [found["classes"][k][1] for k in ("training", "new")] == pytest.approx(square, abs=1e-6)


def test_bins_of_integer_data_have_an_integer_width(data: PreparedData) -> None:
    found = drift(data, ["1"])
    assert found is not None
    for band in found["bands"]:
        width = (band["edges"][1] - band["edges"][0]) / len(band["training"])
        assert width == round(width) and band["edges"][0] == band["range"][0] - 0.5
        assert band["edges"][1] >= band["range"][1] + 0.5


def test_a_batch_without_pixels_has_no_drift(data: PreparedData) -> None:
    assert drift(data, ["nowhere"]) is None
