"""Several annotators: networks learn their mean, and are scored against the majority and each."""

import html
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from segcore import params
from segcore.comparison.annotators import MAJORITY
from segcore.comparison.leaderboard import leaderboard_text
from segcore.comparison.results import Comparison
from segcore.constants import IGNORE
from segcore.data.annotators import majority
from segcore.data.prepared import PreparedData
from segcore.errors import ParamsError
from segcore.params.root import _validated
from segcore.training.sampler import Sampler
from tasks import compare, evaluate, report
from tasks import promote as promotion
from tasks.ingest import ingest
from tasks.prepare import prepare
from tasks.promotion import costs
from tasks.reporting.inputs import read_inputs
from tasks.train import train
from tests.support.tiny import ANNOTATED as DATA
from tests.support.tiny import make_annotated, params_for, values_for

NAMES = ["ann", "bob", "cyd"]
COST = {"peak_memory_mb": 700.0}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net trained for four steps on images whose three masks differ by noise, and its comparison."""
    folder = tmp_path_factory.mktemp("project")
    make_annotated(folder / "source", count=20)
    gate = {"bootstrap": 200, "confidence": 0.6}
    values = values_for("source", architectures=["unet"], data=DATA, gate=gate)
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setattr(evaluate, "measure", lambda *_: [dict(COST)])
        p = params.load()
        ingest(p.data)
        prepare(p, registry=Path("splits/tiny.csv"), work=Path("work"))
        train(p, "unet", 0)
        evaluate.run_evaluation(p, "unet", 0)
        compare.write(compare.build(Path(), p), Path("comparison"))
    return folder


def test_the_label_is_the_majority_and_training_sees_the_mean(project: Path) -> None:
    p, data = params.load(project / "params.yaml"), PreparedData(project / "data/prepared")
    assert data.annotators == NAMES
    region = str(data.regions["id"].iloc[0])
    each = [data.read_baseline(name, region) for name in NAMES]
    assert (data.read(region).label == majority(each, 2)).all()
    files = [np.array(Image.open(project / f"source/masks/{n}/{region}.png")) // 255 for n in NAMES]
    assert all((a == b).all() for a, b in zip(each, files, strict=True))
    settings = p.for_architecture("unet")
    batch = Sampler(data, settings, p.prepare.window, 0).batch(0)
    label = batch["label"]
    assert label.shape == (2, 2, 32, 32) and label.dtype == torch.float32
    sums = label.sum(1)
    assert ((sums - 1).abs() < 1e-6).logical_or(sums == 0).all()
    assert {0.0, 0.333, 0.667, 1.0} == {round(v, 3) for v in label.unique().tolist()}


def _iou(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    return float(sum((x & y).sum() for x, y in pairs) / sum((x | y).sum() for x, y in pairs))


def test_networks_are_scored_against_each_beside_the_agreement(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    table = pd.read_parquet("evaluations/unet-0/annotators.parquet")
    assert set(table["annotator"]) == set(NAMES)
    comparison = compare.build(Path(), params.load())
    found = comparison.annotators
    assert found is not None and found.metric == "iou"
    data = PreparedData(Path("data/prepared"))
    ids = data.regions.loc[data.regions["split"] == "test", "id"]
    masks = {name: [data.read_baseline(name, i) == 1 for i in ids] for name in NAMES}
    ious = {
        (a, b): _iou(list(zip(masks[a], masks[b], strict=True)))
        for a, b in (("ann", "bob"), ("ann", "cyd"), ("bob", "cyd"))
    }
    agreed = found.agreement
    assert agreed.estimate == pytest.approx(np.mean(list(ious.values())))
    assert agreed.low is not None and agreed.high is not None and agreed.low < agreed.estimate < agreed.high
    assert found.others["ann"].estimate == pytest.approx((ious["ann", "bob"] + ious["ann", "cyd"]) / 2)
    truth = [data.read(i).label == 1 for i in ids]
    best = found.scores["bob"][MAJORITY].estimate
    assert best == pytest.approx(_iou(list(zip(truth, masks["bob"], strict=True))))
    # a labelling between the annotators agrees more with each than they do with one another
    assert found.mean[MAJORITY].estimate > agreed.estimate
    each = [found.scores[name]["unet"].estimate for name in NAMES]
    assert found.mean["unet"].estimate == pytest.approx(np.mean(each))
    assert [row.architecture for row in comparison.leaderboard if row.kind == "human"] == NAMES
    assert Comparison.from_json(comparison.to_json()).to_json() == comparison.to_json()
    text = leaderboard_text(comparison)
    assert f"mean IoU of all 3 pairs: {100 * agreed.estimate:.1f} % (95 % interval" in text
    assert "U-Net against each annotator, IoU: ann " in text


def test_the_report_has_a_row_for_each_annotator(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    p = params.load()
    inputs = read_inputs(Path(), p, PreparedData(Path("data/prepared")))
    page, found = report.report_html(inputs, Path()), inputs.comparison.annotators
    assert found is not None
    section = html.unescape(page[page.index('<section id="annotators">') :].partition("</section>")[0])
    rows = [row.partition("</th>") for row in section.split('<tr><th scope="row"')[1:]]
    names = [name.partition(">")[2] for name, _, _ in rows]
    assert names == [*NAMES, "Mean of all annotators", "Majority of all annotators"]
    values = [found.scores["bob"]["unet"], found.scores["bob"][MAJORITY], found.others["bob"]]
    assert all(f"<td>{100 * one.estimate:.1f}<small" in rows[1][2] for one in values)
    # dots of the network, of the majority and of the others; the majority is not scored against itself
    assert [row.count("<circle") for _, _, row in rows] == [3, 3, 3, 3, 1]
    lines = "Agreement of the annotators (ann, bob and cyd)"
    assert lines in report.report_markdown(inputs) and lines in report.scores_markdown(inputs.comparison)
    alone = replace(inputs, comparison=replace(inputs.comparison, annotators=None))
    assert "#annotators" not in report.report_html(alone, Path())


def test_the_data_card_says_how_often_they_agree(project: Path) -> None:
    catalog = pd.read_parquet(project / "data/ingested/catalog.parquet")
    files = [
        np.stack([np.array(Image.open(project / f"source/masks/{name}/{item}.png")) // 255 for name in NAMES])
        for item in catalog["id"]
    ]
    each = np.concatenate([masks.reshape(3, -1) for masks in files], axis=1)
    same = (each == each[0]).all(0)
    square = (each[:, same] == 1).all(0).sum() / (each == 1).any(0).sum()
    page = html.unescape((project / "data/reports/tiny/data.html").read_text())
    section = page[page.index('<section id="annotators">') :].partition("</section>")[0]
    assert f"All 3 annotators chose the same class on {100 * same.mean():.1f} %" in section
    assert f"<td>{100 * square:.1f}</td>" in section and all(f"<th>{name}<small" in section for name in NAMES)
    assert f"<td>{100 * (each[1] == (each.sum(0) > 1)).mean():.1f}</td>" in section
    assert "images/*.png with masks/ann/{stem}.png, masks/bob/{stem}.png" in page


def test_a_model_replaces_the_champion_by_scores_against_the_majority(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    monkeypatch.setattr(evaluate, "measure", lambda *_: [dict(COST)])
    monkeypatch.setattr(costs, "measure", lambda folders, *_: [{**COST, "latency_ms": 10.0} for _ in folders])
    assert promotion.promote(params.load(), batches=[]).outcome == "first"
    p = params.load().model_copy(update={"seeds": [1]})
    train(p, "unet", 1)
    evaluate.run_evaluation(p, "unet", 1)
    table = Path("evaluations/unet-1/counts.parquet")
    counts = pd.read_parquet(table)
    counts.assign(tp=counts["tp"] + counts["fn"], fp=0, fn=0).to_parquet(table, index=False)
    decided = promotion.promote(p, batches=[])
    assert (decided.outcome, decided.winner) == ("promoted", "unet-1")
    assert decided.champion is not None
    # that of the champion's evaluation, which is against the majority
    key = "iou/dataset/foreground_mean"
    (row,) = compare.build(Path(), params.load()).models
    assert decided.champion.scores["frozen"] == pytest.approx(row.scores[key].estimate, abs=1e-6)


def _quarantined(folder: Path) -> dict[str, tuple[str, str, str]]:
    """Kind, reason and remedy of each quarantined item of a source."""
    ingest(params_for(folder / "source", data=DATA).data, folder / "ingested")
    table = pd.read_parquet(folder / "ingested/catalog.parquet")
    bad = table[table["status"] == "quarantined"]
    assert (table["status"] == "accepted").sum() == len(table) - len(bad) > 0
    return {row.id: (row.kind, row.reason, row.remedy) for row in bad.itertuples()}


def test_errors_about_a_mask_name_the_annotator_and_the_rest_goes_on(tmp_path: Path) -> None:
    masks = make_annotated(tmp_path / "source") / "masks"
    (masks / "bob/a0.png").unlink()
    Image.fromarray(np.zeros((40, 56), np.uint8)).save(masks / "cyd/a1.png")
    Image.fromarray(np.full((48, 56), 7, np.uint8)).save(masks / "cyd/a2.png")
    Image.fromarray(np.full((48, 56), 7, np.uint8)).save(masks / "ann/a3.png")
    (masks / "bob/a4.png").write_bytes(b"")
    (masks / "bob/a5.png").write_bytes((masks / "bob/a5.png").read_bytes()[:60])
    found = _quarantined(tmp_path)
    assert {item: (kind, reason) for item, (kind, reason, _) in found.items()} == {
        "a0": ("missing-mask", "a0.png: has no mask of bob, masks/bob/a0.png is missing"),
        "a1": (
            "size-mismatch",
            "a1.png and its mask masks/cyd/a1.png: sizes differ in height x width, image 48 x 56, mask 40 x 56",
        ),
        "a2": (
            "label-values",
            "masks/cyd/a2.png: label values outside the declared classes: 7 (2688) pixels",
        ),
        "a3": (
            "label-values",
            "masks/ann/a3.png: label values outside the declared classes: 7 (2688) pixels",
        ),
        "a4": ("empty-file", "masks/bob/a4.png: is empty (0 bytes)"),
        "a5": ("unreadable", found["a5"][1]),
    }
    assert found["a5"][1].startswith("masks/bob/a5.png: ")
    assert all(remedy for *_, remedy in found.values())


def test_a_class_that_one_annotator_alone_chose_is_found(tmp_path: Path) -> None:
    masks = make_annotated(tmp_path / "source") / "masks"
    for name in ("ann", "cyd"):
        for path in (masks / name).iterdir():
            Image.fromarray(np.zeros((48, 56), np.uint8)).save(path)
    assert _quarantined(tmp_path) == {}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"annotators": NAMES}, "masks needs {annotator}"),
        ({**DATA, "annotators": ["ann"]}, "name at least two"),
        ({**DATA, "annotators": [f"a{i}" for i in range(50)]}, "50 of them with 2 classes are too many"),
        ({**DATA, "baselines": {"x": "x/{stem}.png"}}, "not possible beside baselines"),
        ({**DATA, "instances": "components"}, "not possible with objects"),
    ],
)
def test_what_cannot_be_is_refused(data: dict[str, object], expected: str) -> None:
    with pytest.raises(ParamsError, match=expected):
        _validated(params.Params, values_for("source", data=data), "params.yaml")


def test_ignored_pixels_have_no_class() -> None:
    labels = [np.full((2, 2), IGNORE, np.uint8)] * 2
    assert (majority(labels, 3) == IGNORE).all()
