"""Cross-validation from prepared data to the report: three folds of a data set with objects, trained for two steps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from segcore import params
from segcore.data.prepared import PreparedData, of_seed
from segcore.errors import DataError, ParamsError
from segcore.tables.objects import required_classes
from tasks import compare, evaluate
from tasks.ingest import ingest
from tasks.prepare import prepare
from tasks.promote import promote
from tasks.report import report
from tasks.tracking.tracker import Tracker
from tasks.train import train
from tests.support.tiny import make_pairs, values_for


def values(**over: Any) -> dict[str, Any]:
    own = {"seeds": [0, 1, 2], "architectures": ["unet"], "split": {"folds": 3, "links": []}}
    short = {"common": {"steps": 2, "validate_every": 1}}
    return values_for("source", data={"instances": "components"}, **{**own, "train": short, **over})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was trained, evaluated, compared and reported."""
    root = tmp_path_factory.mktemp("folds")
    make_pairs(root / "source", count=9)
    (root / "params.yaml").write_text(yaml.safe_dump(values()))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        patch.setattr(evaluate, "measure", lambda folders, *_: [{"peak_memory_mb": 700.0} for _ in folders])
        p = params.load()
        ingest(p.data)
        prepare(p, registry=Path("splits/tiny.csv"), work=Path("work"))
        for seed in p.seeds:
            train(p, "unet", seed)
            evaluate.run_evaluation(p, "unet", seed)
        compare.write(compare.build(root, p), root / "comparison")
        report(root, p, PreparedData(root / "data/prepared"))
    return root


@pytest.mark.slow
def test_each_image_is_tested_once_by_a_model_that_was_not_trained_on_it(project: Path) -> None:
    tested = []
    for seed in range(3):
        data = of_seed(project / "data/prepared", seed)
        model = json.loads((project / f"models/unet-{seed}/model.json").read_text())
        counts = pd.read_parquet(project / f"evaluations/unet-{seed}/counts.parquet")
        assert model["fold"] == data.fold == seed
        assert json.loads((project / f"evaluations/unet-{seed}/summary.json").read_text())["fold"] == seed
        assert set(data.windows["item"]).isdisjoint(counts["item"])
        tested += sorted(set(counts["item"]))
    assert sorted(tested) == [f"a{number}" for number in range(9)]


@pytest.mark.slow
def test_the_comparison_pools_the_folds(project: Path) -> None:
    comparison = json.loads((project / "comparison/comparison.json").read_text())
    counts = pd.concat(pd.read_parquet(file) for file in (project / "evaluations").glob("*/counts.parquet"))
    sums = counts[counts["class_index"] == 1][["tp", "fp", "fn"]].sum()
    scores = comparison["leaderboard"][0]["scores"]
    assert scores["iou/dataset/square"]["estimate"] == pytest.approx(sums["tp"] / sums.sum(), abs=1e-6)
    assert (comparison["folds"], comparison["test_images"], comparison["clusters"]) == (3, 9, 9)
    assert comparison["leaderboard"][0]["seeds"] == 1 and "3 folds" in comparison["verdict"]
    assert any("Bengio and Grandvalet" in note for note in comparison["notes"])


@pytest.mark.slow
def test_objects_count_by_the_operating_score_of_their_own_fold(project: Path) -> None:
    contestant = compare.read_model(project, "unet", [0, 1, 2], [f"a{number}" for number in range(9)], 3)
    least = contestant.object_tables[0][1]
    for seed in range(3):
        folder = project / f"evaluations/unet-{seed}"
        score = json.loads((folder / "summary.json").read_text())["objects"]["score"]
        items = set(pd.read_parquet(folder / "counts.parquet")["item"])
        assert isinstance(least, dict) and {least[item] for item in items} == {score}
    assert required_classes(contestant.objects[0], set(least)) == {1}


@pytest.mark.slow
def test_report_and_its_plots_are_of_all_folds(project: Path) -> None:
    page = (project / "reports/tiny/index.html").read_text()
    for text in ("each tested once, in 3 folds", "One training per fold of each architecture", "fold 2"):
        assert text in page, text
    calibration = pd.read_csv(project / "reports/tiny/plots/calibration.csv")
    parts = [json.loads(f.read_text()) for f in (project / "evaluations").glob("*/calibration.json")]
    assert calibration["pixels"].sum() == sum(np.sum(part["count"]) for part in parts) == 9 * 48 * 56


@pytest.mark.slow
def test_runs_of_the_tracker_name_their_fold(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    runs = Tracker.open(params.load()).find("tags.kind = 'training'")
    assert sorted((run.data.tags["fold"], run.data.params["fold"]) for run in runs) == [
        (str(fold), str(fold)) for fold in range(3)
    ]


@pytest.mark.slow
def test_a_model_of_another_fold_is_not_scored(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(evaluate, "of_seed", lambda folder, seed: of_seed(folder, seed + 1))
    with pytest.raises(DataError, match="trained on fold 0, but is to be scored on fold 1"):
        evaluate.run_evaluation(params.load(), "unet", 0)


@pytest.mark.slow
def test_a_promotion_needs_one_split(project: Path) -> None:
    with pytest.raises(ParamsError, match=r"split\.folds: 3: retraining and promotion"):
        promote(params.load(project / "params.yaml"), project)


@pytest.mark.parametrize(
    ("over", "text"),
    [
        ({"seeds": [0, 1, 3]}, r"set seeds: \[0, 1, 2\], or split\.folds: null"),
        ({"split": {"folds": 3, "given": {"test": ["a1"]}}}, "given is not possible"),
        ({"split": {"folds": 1}}, "split.folds"),
    ],
)
def test_settings_that_contradict_folds_are_refused(over: dict[str, Any], text: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values(**over)))
    with pytest.raises(ParamsError, match=text):
        params.load(tmp_path / "params.yaml")
