"""Cached inputs of the gate are recomputed when the code that they depend on changes."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from segcore.evaluation import evaluate as evaluation
from segcore.metrics.scores import scores
from segcore.models.base.bundle import load_description, save_bundle
from segcore.models.base.factory import build_model
from tasks.project import data_fingerprint
from tasks.promotion import candidates, costs, decision
from tasks.promotion.context import PromotionContext
from tasks.tracking.registry import Registry
from tasks.tracking.tracker import Tracker
from tests.support.changed_code import Code
from tests.support.instance_batches import network
from tests.support.object_scene import object_scene


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Code:
    return Code(tmp_path / "code", monkeypatch)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """An untrained U-Net."""
    torch.manual_seed(0)
    model = build_model("unet", 3, 2, encoder="plain", width=2)
    model.set_normalization([80, 80, 80], [30, 30, 30])
    facts = {"classes": ["background", "square"], "parameters": {"precision": "fp32"}}
    folder = tmp_path / "1"
    folder.mkdir()
    save_bundle(folder, model, "unet", facts | {"seed": 0, "title": "U-Net"})
    return folder


def _context(p: Any, data: Any, root: Path = Path()) -> PromotionContext:
    """A context without a store: these tests read no run and no version."""
    unused: Any = None
    registry = Registry(Tracker(unused, "", p.data.name))
    return PromotionContext(root, p, data, data_fingerprint(data.folder), registry)


# an earlier list of files had only the last of these, so that results of old and new code were compared
@pytest.mark.parametrize(
    "name",
    [
        *("models/unet.py", "models/base/model.py", "models/base/bundle.py", "inference/tta.py"),
        *("data/packed.py", "data/raster.py", "data/volumes.py", "io/images/geotiff.py"),
        "evaluation/evaluate.py",
    ],
)
def test_the_champion_is_evaluated_again_when_code_changes_that_its_scores_depend_on(
    name: str, prepared_scene: Any, bundle: Path, code: Code, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, data = prepared_scene
    real, done = evaluation.evaluate, []

    def counted(*arguments: Any, **keywords: Any) -> Any:
        done.append(1)
        return real(*arguments, **keywords)

    monkeypatch.setattr(evaluation, "evaluate", counted)
    description = load_description(bundle)
    context = _context(p, data)
    first, objects, *_ = candidates._evaluated(context, bundle, description)
    assert objects is None
    candidates._evaluated(context, bundle, description)
    assert len(done) == 1
    # code that its scores do not depend on
    code.change("models/fcn.py")
    code.change("plots/charts.py")
    candidates._evaluated(context, bundle, description)
    assert len(done) == 1
    code.change(name)
    again, *_ = candidates._evaluated(context, bundle, description)
    assert len(done) == 2 and again.equals(first)
    assert len(list((bundle / "evaluation").iterdir())) == 1


def test_the_objects_of_the_champion_are_cached_beside_its_counts(tmp_path: Path, bundle: Path) -> None:
    p, data, _ = object_scene(tmp_path / "objects")
    description = load_description(bundle)
    context = _context(p, data)
    counts, objects, *_ = candidates._evaluated(context, bundle, description)
    assert objects is not None and set(objects.loc[objects["kind"] == "image", "item"]) == set(counts["item"])
    assert (objects["kind"] == "truth").any()
    again = candidates._evaluated(context, bundle, description)[1]
    pd.testing.assert_frame_equal(objects, again)
    without = p.model_copy(update={"evaluate": p.evaluate.model_copy(update={"objects": "none"})})
    assert candidates._evaluated(_context(without, data), bundle, description)[1] is None


def test_a_decision_states_where_objects_count_from_a_default_score(tmp_path: Path, bundle: Path) -> None:
    p, data, _ = object_scene(tmp_path / "objects")
    description = load_description(bundle)
    counts, objects, *_ = candidates._evaluated(_context(p, data), bundle, description)
    chosen = description | {"objects": {"components": {"score": 0.3}}}
    reasons = {}
    for metric, model in (("pq", description), ("pq", chosen), ("iou", description)):
        context = _context(
            p.model_copy(update={"compare": p.compare.model_copy(update={"metric": metric})}), data
        )
        one = candidates.Model(bundle, model, counts, 0.5, {}, objects)
        record = decision.new_decision(context, [one], None, [], "inputs", "key")
        reasons[metric, model is chosen] = record.reason
    assert (
        "For U-Net, no operating score was chosen (the model is of an earlier version" in reasons["pq", False]
    )
    assert all("operating score" not in reasons[key] for key in (("pq", True), ("iou", False)))


def test_costs_are_measured_again_when_the_code_that_predicts_changes(
    bundle: Path, prepared_scene: Any, tmp_path: Path, code: Code, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, data = prepared_scene
    measured = []

    def measure(folders: list[Path], tile: int, overlap: int, flips: bool) -> list[dict[str, float]]:
        measured.append(tile)
        return [{"latency_ms": 1.0, "peak_memory_mb": 2.0} for _ in folders]

    monkeypatch.setattr(costs, "measure", measure)
    model = candidates.Model(bundle, load_description(bundle), None, 0.0, {})  # type: ignore[arg-type]
    for changed in (None, None, "inference/tiling.py", "models/unet.py", "plots/charts.py"):
        if changed:
            code.change(changed)
        assert costs.costs(_context(p, data, tmp_path), [model])[0].latency_ms == 1.0
    assert len(measured) == 3


def test_a_champion_with_an_architecture_that_no_longer_exists_is_an_error(
    prepared_scene: Any, bundle: Path
) -> None:
    from segcore.errors import ModelError

    p, data = prepared_scene
    description = {**load_description(bundle), "architecture": "segnet"}
    with pytest.raises(ModelError, match="'segnet' is unknown"):
        candidates._evaluated(_context(p, data), bundle, description)


def test_models_of_the_same_network_are_measured_once_and_cost_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def measure(folders: list[Path], tile: int, overlap: int, flips: bool) -> list[dict[str, float]]:
        measured.extend(folder.name for folder in folders)
        return [{"latency_ms": float(len(folder.name)), "peak_memory_mb": 1.0} for folder in folders]

    monkeypatch.setattr(costs, "measure", measure)
    models = []
    for name, settings in (("champion", {"width": 4}), ("same", {"width": 4}), ("wider", {"width": 8})):
        folder = tmp_path / name
        folder.mkdir()
        for file in ("model.json", "model.safetensors"):
            (folder / file).touch()
        facts = {"architecture": "unet", "settings": settings, "in_channels": 3, "num_classes": 2}
        description = facts | {"weights_sha256": name}
        models.append(candidates.Model(folder, description, pd.DataFrame(), 0.5, {}))
    evaluate = SimpleNamespace(tile=64, overlap=16, flips=False)
    context = SimpleNamespace(params=SimpleNamespace(evaluate=evaluate), root=tmp_path)
    champion, same, wider = costs.costs(context, models)
    assert champion == same != wider and set(measured) == {"champion", "wider"}


def _model(name: str, validation: float, **description: Any) -> candidates.Model:
    return candidates.Model(Path(name), description, pd.DataFrame(), validation, {})


def test_networks_of_both_kinds_are_compared_by_f1_of_objects() -> None:
    found = {"components": {"f1": 0.4}, "watershed": {"f1": 0.5}}
    semantic = _model("unet-0", 0.8, objects=found)
    instance = _model("solo-0", 0.3, kind="instance", objects={"network": {"f1": 0.6}})
    assert candidates.comparable([semantic, semantic], "components") == [semantic, semantic]
    assert candidates.comparable([instance], "components") == [instance]
    for method, f1 in (("components", 0.4), ("watershed", 0.5), ("none", 0.4)):
        judged = candidates.comparable([semantic, instance], method)
        assert [model.validation for model in judged] == [f1, 0.6]
        assert [model.measure for model in judged] == ["F1 of objects"] * 2
    assert (semantic.measure, instance.measure) == ("IoU", "PQ")
    unmeasured = _model("unet-0", 0.8)
    assert math.isnan(candidates.comparable([unmeasured, instance], "components")[0].validation)


@pytest.mark.parametrize("score", ["iou", "pq"])
def test_the_validation_score_is_that_of_the_kind_of_network(
    tmp_path: Path, bundle: Path, score: str
) -> None:
    table = pd.DataFrame({"step": [1, 2], f"val_{score}": [0.2, 0.1]})
    table.to_csv(bundle / "history.csv", index=False)
    assert candidates.validation_score(bundle) == 0.2


@pytest.fixture
def both(tmp_path: Path) -> dict[str, Path]:
    """A semantic and an instance network that were not trained, but find most pixels to be of an object."""
    torch.manual_seed(0)
    unet: Any = build_model("unet", 3, 2, encoder="plain", width=2)
    solo: Any = network(("solo", {}), num_classes=2, foreground=(1,))
    with torch.no_grad():
        unet.score.bias[1] += 1
        solo.category[-1].bias += 4
    facts = {"classes": ["background", "square"], "parameters": {"precision": "fp32"}, "seed": 0}
    network_facts = {"kind": "instance", "tile": 64, "objects": {"network": {"score": 0.2, "counts": {}}}}
    folders = {}
    for name, model, own in (("unet", unet, {}), ("solo", solo, network_facts)):
        folders[model.kind] = tmp_path / name
        folders[model.kind].mkdir()
        save_bundle(folders[model.kind], model, name, facts | own)
    return folders


@pytest.mark.parametrize("kind", ["semantic", "instance"])
def test_champion_and_challenger_may_be_networks_of_either_kind(
    tmp_path: Path, both: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, data, _ = object_scene(tmp_path / "objects")
    context = _context(p, data, tmp_path)
    models = {}
    for name, folder in both.items():
        description = load_description(folder)
        counts, objects, _, curves = candidates._evaluated(context, folder, description)
        assert objects is not None and set(counts["item"]) == set(objects["item"])
        models[name] = candidates.Model(folder, description, counts, 0.5, curves, objects)
    champion = models.pop(kind)
    (challenger,) = models.values()
    cost = {"latency_ms": 1.0, "peak_memory_mb": 1.0}
    monkeypatch.setattr(candidates, "champion", lambda *_: champion)
    monkeypatch.setattr(costs, "measure", lambda folders, *_: [dict(cost) for _ in folders])
    holder: Any = SimpleNamespace(version=1, run_id="run")
    for metric in ("pq", "f1_50", "iou"):
        compare = p.compare.model_copy(update={"metric": metric})
        context = _context(p.model_copy(update={"compare": compare}), data, tmp_path)
        record = decision.new_decision(context, [challenger], holder, [], "inputs", "key")
        assert record.champion is not None
        for figures, model in ((record.champion, champion), (record.challengers[0], challenger)):
            operating, _ = candidates.operating_score(context, model)
            found = scores(model.counts, data.foreground, model.objects, operating)
            expected = found[f"{metric}/dataset/foreground_mean"]
            assert figures.scores["frozen"] == pytest.approx(expected, abs=1e-6)
            assert metric != "iou" or expected > 0.05


def test_a_champion_that_finds_objects_is_scored_by_pixels_where_no_objects_are_asked_for(
    tmp_path: Path, both: dict[str, Path]
) -> None:
    p, data, _ = object_scene(tmp_path / "objects")
    plain = p.model_copy(update={"evaluate": p.evaluate.model_copy(update={"objects": "none"})})
    folder = both["instance"]
    description = load_description(folder)
    with_objects = candidates._evaluated(_context(p, data), folder, description)
    counts, objects, *_ = candidates._evaluated(_context(plain, data), folder, description)
    assert objects is None and counts.equals(with_objects[0])
