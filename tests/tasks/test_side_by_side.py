"""Latencies of all architectures are measured in turn, once for the same models, settings and code."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from segcore.errors import StageError
from tasks import side_by_side
from tasks.costs import cost_file, measured_costs, merge_cost, read_cost
from tasks.side_by_side import measure_side_by_side

ARCHITECTURES = ["fcn", "unet"]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Names of the bundles of each measurement, which takes constant times."""
    calls: list[list[str]] = []

    def measure(
        folders: list[Path], tile: int, overlap: int, flips: bool, fresh: bool
    ) -> list[dict[str, Any]]:
        assert not fresh, "the report has loaded torch; memory is that of the evaluations"
        calls.append([folder.name for folder in folders])
        times = {
            "latency_ms": 10.0 * len(calls),
            "ms_per_megapixel": 40.0 * len(calls),
            "latency_low_ms": 9.0,
        }
        return [{**times, "latency_high_ms": 11.0, "peak_memory_mb": 999.0} for _ in folders]

    monkeypatch.setattr(side_by_side, "measure", measure)
    return calls


def project(
    root: Path, *architectures: str, tile: int = 64, overlap: int = 16, seeds: tuple[int, ...] = (0, 1)
) -> Any:
    for name in architectures:
        for seed in seeds:
            train(root, f"{name}-{seed}", "a" * 64)
    evaluate = SimpleNamespace(tile=tile, overlap=overlap, flips=False)
    return SimpleNamespace(
        architectures=list(architectures), ensembles={}, seeds=list(seeds), evaluate=evaluate
    )


def train(root: Path, name: str, weights: str) -> None:
    folder = root / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps({"weights_sha256": weights}))
    # as the training and the evaluation write them, each at its own moment
    alone = {"latency_ms": 500.0, "ms_per_megapixel": 2000.0, "peak_memory_mb": 100.0, "train_seconds": 9.0}
    merge_cost(root, name, alone)


def test_all_are_measured_in_one_go_whenever_one_is_new(tmp_path: Path, measured: list[list[str]]) -> None:
    p = project(tmp_path, *ARCHITECTURES)
    assert set(measure_side_by_side(p, tmp_path)) == {"fcn-0", "unet-0"}
    assert measure_side_by_side(p, tmp_path) == {} and measured == [["fcn-0", "unet-0"]]
    train(tmp_path, "unet-0", "b" * 64)
    measure_side_by_side(p, tmp_path)
    assert measured == [["fcn-0", "unet-0"]] * 2
    measure_side_by_side(project(tmp_path, *ARCHITECTURES, tile=128), tmp_path)
    assert len(measured) == 3, "another tile"
    assert measure_side_by_side(project(tmp_path, *ARCHITECTURES, "deeplab", tile=128), tmp_path)
    assert measured[-1] == ["fcn-0", "unet-0", "deeplab-0"]
    assert measure_side_by_side(p, tmp_path, again=True) and len(measured) == 5
    measure_side_by_side(project(tmp_path, *ARCHITECTURES, overlap=32), tmp_path)
    assert len(measured) == 6, "another overlap"


def test_costs_are_those_of_one_go_and_memory_is_that_of_one_model(
    tmp_path: Path, measured: list[list[str]]
) -> None:
    p = project(tmp_path, *ARCHITECTURES)
    before = measured_costs(tmp_path, ARCHITECTURES, p.seeds)
    assert all(cost["apart"] and cost["ms_per_megapixel"] == 2000 for cost in before.values())
    measure_side_by_side(p, tmp_path)
    for cost in measured_costs(tmp_path, ARCHITECTURES, p.seeds).values():
        assert (cost["ms_per_megapixel"], cost["latency_low_ms"], cost["latency_high_ms"]) == (40, 9, 11)
        assert (cost["peak_memory_mb"], cost["train_seconds"]) == (100, 9) and "apart" not in cost


def test_models_that_do_not_fit_into_memory_together_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    monkeypatch.setattr(side_by_side, "measure", measure)
    with pytest.raises(StageError, match=r"fcn-0, unet-0: .*CUDA out of memory(.|\n)*lower evaluate.tile"):
        measure_side_by_side(project(tmp_path, *ARCHITECTURES), tmp_path)


def test_times_of_different_goes_are_not_compared(tmp_path: Path, measured: list[list[str]]) -> None:
    measure_side_by_side(project(tmp_path, *ARCHITECTURES), tmp_path)
    train(tmp_path, "unet-0", "b" * 64)
    train(tmp_path, "deeplab-0", "c" * 64)
    costs = measured_costs(tmp_path, ["fcn", "unet", "deeplab"], [0])
    assert all(cost["apart"] and "latency_low_ms" not in cost for cost in costs.values())


def test_a_missing_bundle_and_costs_of_an_earlier_version(tmp_path: Path, measured: list[list[str]]) -> None:
    p = project(tmp_path, *ARCHITECTURES)
    (tmp_path / "models/unet-0/model.json").rename(tmp_path / "elsewhere.json")
    assert measure_side_by_side(p, tmp_path) == {} and not measured
    assert list(measured_costs(tmp_path, ["fcn"], [0])) == ["fcn"]
    old = read_cost(tmp_path, "fcn-0")
    assert old is not None and "side_by_side" not in old and cost_file(tmp_path, "fcn-0").exists()
    assert not measured_costs(tmp_path, ["fcn"], [0])["fcn"]["apart"], "one network is compared with nothing"
