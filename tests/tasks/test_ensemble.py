"""The mean over trained networks: made without training, compared, judged by the gate, and predicted with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import segcore
from segcore import params
from segcore.data.prepared import PreparedData
from segcore.errors import ParamsError
from segcore.models.base.bundle import load_description
from segcore.params import Params
from tasks import compare, ensemble, evaluate, promote, report
from tasks.costs import merge_cost, read_cost
from tasks.ingest import ingest
from tasks.prepare import prepare
from tasks.promotion import candidates, costs
from tasks.promotion.context import PromotionContext
from tasks.promotion.model_card import model_card
from tasks.tracking import runs
from tasks.tracking.tracker import Tracker
from tasks.train import train
from tests.support.tiny import make_pairs, params_for, values_for

COST = {"latency_ms": 10.0, "peak_memory_mb": 700.0}
MEMBERS = ["unet-0", "unet-1"]
ENSEMBLE = "ensemble-unet"
KEY = "iou/dataset/foreground_mean"


def fixed(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make `folder` the current one, with a store of its own and fixed costs."""
    patch.chdir(folder)
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    patch.setattr(costs, "measure", lambda folders, *_: [dict(COST) for _ in folders])
    patch.setattr(evaluate, "measure", lambda *_: [{"peak_memory_mb": 700.0}])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net with two seeds of four steps each, their evaluations, and their ensemble."""
    folder = tmp_path_factory.mktemp("project")
    make_pairs(folder / "source", count=12)
    values = values_for("source", architectures=["unet"], seeds=[0, 1], evaluate={"ensemble": True})
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patch:
        fixed(patch, folder)
        p = params.load()
        ingest(p.data)
        prepare(p, registry=Path("splits/tiny.csv"), work=Path("work"))
        for seed in p.seeds:
            train(p, "unet", seed)
            evaluate.run_evaluation(p, "unet", seed)
            merge_cost(Path(), f"unet-{seed}", {"train_seconds": 10.0 + seed})
        ensemble.make_ensembles(p)
    return folder


@pytest.fixture
def p(project: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    fixed(monkeypatch, project)
    return params.load()


def test_it_costs_what_all_its_networks_cost_and_has_a_run(p: Params) -> None:
    def summary(folder: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(Path(folder, "summary.json").read_text())
        return found

    found = summary(f"ensembles/evaluations/{ENSEMBLE}")
    assert found["members"] == MEMBERS and [path.name for path in Path("ensembles/models").iterdir()] == [
        ENSEMBLE
    ]
    for cost in ("parameters", "macs", "steps"):
        assert found[cost] == sum(summary(f"evaluations/{member}")[cost] for member in MEMBERS)
    measured = read_cost(Path(), ENSEMBLE)
    assert measured is not None and measured["train_seconds"] == 21.0
    assert load_description(Path("ensembles/models") / ENSEMBLE)["calibration"]["temperature"] > 0
    run = runs.run_of(Tracker.open(p), ENSEMBLE)
    assert run is not None and "test/iou.dataset.square" in run.data.metrics
    assert run.data.tags["stage"] == f"ensemble@{ENSEMBLE}"


def test_it_predicts_the_mean_of_the_probabilities(p: Params) -> None:
    data = PreparedData(Path("data/prepared"))
    kept = Path(f"ensembles/evaluations/{ENSEMBLE}/predictions")
    region = min(path.stem for path in kept.iterdir())
    pixels, total = data.read(region).image, 0.0
    for name in MEMBERS:
        temperature = load_description(f"models/{name}")["calibration"]["temperature"]
        powers = segcore.load(f"models/{name}").predict(pixels).probabilities ** (1 / temperature)
        total = total + powers / powers.sum(0)
    whole = segcore.load(f"ensembles/models/{ENSEMBLE}").predict(pixels)
    np.testing.assert_allclose(whole.probabilities, total / len(MEMBERS), atol=1e-4)
    assert (whole.classes == whole.probabilities.argmax(0)).all()


def test_it_is_ranked_beside_the_networks_and_named_as_what_it_is(p: Params) -> None:
    comparison = compare.build(Path(), p)
    rows = {row.architecture: row for row in comparison.models}
    assert {name: row.seeds for name, row in rows.items()} == {"unet": 2, ENSEMBLE: 1}
    assert len(comparison.tests) == 1 and 0 < comparison.tests[0].p <= 1
    assert all(row.scores[KEY].low is not None for row in rows.values())
    assert any("Ensembles average the probabilities" in note for note in comparison.notes)
    assert not comparison.differences
    assert ("is an ensemble: it predicts with 2" in comparison.verdict) == (
        comparison.models[0].architecture == ENSEMBLE
    )


def test_the_report_has_it_but_no_learning_curve_of_it(p: Params) -> None:
    compare.write(compare.build(Path(), p), Path("comparison"))
    folder = report.report(Path(), p, PreparedData(Path("data/prepared")))
    assert "U-Net ensemble" in (folder / "index.html").read_text()
    assert set(pd.read_csv(folder / "plots/learning.csv")["network"]) == {"U-Net"}
    assert set(pd.read_csv(folder / "plots/confusion.csv")["network"]) == {"U-Net", "U-Net ensemble"}


def test_it_is_one_more_candidate_and_can_be_champion(p: Params) -> None:
    context = PromotionContext.open(p)
    found = candidates.challengers(context)
    assert [one.folder.name for one in found] in (["unet-0", ENSEMBLE], ["unet-1", ENSEMBLE])
    record = promote.promote(p)
    assert ENSEMBLE in {one.name for one in record.challengers}
    run = runs.run_of(context.registry.tracker, ENSEMBLE)
    assert run is not None
    own = found[-1]
    version = context.registry.register(own.folder, run.info.run_id, {})
    champion = candidates.champion(context, version)
    assert (champion.weights, champion.title) == (own.weights, "U-Net ensemble")
    keys = ["item", "class_index"]
    pd.testing.assert_frame_equal(*(m.counts.set_index(keys).sort_index() for m in (champion, own)))
    card = model_card(champion.folder, p, version)
    assert "mean of the probabilities of unet-0, unet-1" in card


def test_without_the_setting_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    p = params_for("source", seeds=[0, 1])
    assert p.ensembles == {} and ensemble.make_ensembles(p) == []
    assert [path.name for path in tmp_path.rglob("*")] == ["ensembles", "members.json"]
    assert json.loads((tmp_path / "ensembles/members.json").read_text()) == {}


def test_instance_networks_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    over = {"architectures": ["unet", "fcn", "mask_rcnn"], "data": {"instances": True}}
    p = params_for("source", **over, evaluate={"ensemble": True})
    assert p.ensembles == {"ensemble": [("unet", 0), ("fcn", 0)]}
    with pytest.raises(ParamsError, match="there is one semantic architecture with one seed"):
        loaded(architectures=["unet"])
    with pytest.raises(ParamsError, match="averages semantic networks, and architectures has none"):
        loaded(architectures=["mask_rcnn"], data={"instances": True}, seeds=[0, 1])


def test_folds_are_refused() -> None:
    with pytest.raises(ParamsError, match="not possible with split"):
        loaded(seeds=[0, 1], split={"folds": 2})


def loaded(**over: Any) -> Params:
    from segcore.params.root import _validated

    return _validated(Params, values_for("source", **over, evaluate={"ensemble": True}), "params.yaml")
