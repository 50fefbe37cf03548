"""A metric, a leaderboard column and a gate rule are each added in one place, and then appear everywhere."""

import dataclasses
import html
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from pydantic import Field

from docs import generate
from segcore import gate_rules, metrics
from segcore.comparison import leaderboard as board
from segcore.comparison.results import Comparison, read_comparison
from segcore.errors import DataError, ParamsError
from segcore.metrics import METRICS, Metric
from segcore.params import load, operations, root
from segcore.promotion.gate import Candidate, Costs, decide
from tasks import compare as compare_stage
from tasks import report as report_stage
from tasks.promotion.printed import record_text
from tasks.promotion.record import DecisionRecord, read_record, record_path, write_record
from tasks.reporting.inputs import read_inputs
from tasks.tracking import runs as tracking
from tasks.tracking.tracker import Tracker
from tests.support.fake_project import build_project, scene_patches
from tests.tasks.reporting.test_champion import _record
from tests.tasks.test_report import _params

ROOT = Path(__file__).parents[2]
OLD = ROOT / "tests/support/old"
TOY = Metric("toy", "toy error", lambda c: c["fp"] / (1.0 + c["pixels"]), "px", higher_is_better=False)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Metric:
    monkeypatch.setitem(METRICS, "toy", TOY)
    return TOY


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An MLflow store in the working folder, and run keys by stage as from DVC."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    keys = {"train@unet-0": "a" * 64}
    monkeypatch.setattr(tracking.stages, "run_key", lambda stage=None: keys[stage or "train@unet-0"])
    monkeypatch.setattr(tracking.stages, "run_keys", lambda: keys)
    yield
    signal.signal(signal.SIGTERM, before)


def built(folder: Path, metric: str = "iou", **over: object) -> tuple[Path, root.Params, object]:
    """A fake project, compared by `metric`."""
    prepared = scene_patches()
    values = _params(prepared).model_dump() | {"tracking": {"system_metrics": False}, **over}
    values["compare"]["metric"] = metric
    params = root.Params.model_validate(values)
    build_project(folder, prepared, params)
    return folder, params, prepared


def by_metric(folder: Path, metric: str) -> Path:
    """A params.yaml that compares by a metric."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["compare"]["metric"] = metric
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_an_unknown_metric_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    known = "iou, dice, precision, recall, boundary_f1"
    with pytest.raises(ParamsError, match=rf"compare\.metric.*'toy'.*{known}"):
        load(by_metric(tmp_path, "toy"))
    with pytest.raises(ParamsError, match="pixel_accuracy"):
        load(by_metric(tmp_path, "pixel_accuracy"))


def test_a_metric_is_added_in_one_place(toy: Metric, tmp_path: Path) -> None:
    assert load(by_metric(tmp_path, "toy")).compare.metric == "toy"
    folder, params, prepared = built(tmp_path / "project", "toy")
    comparison = read_comparison(folder / "comparison/comparison.json")
    key = "toy/dataset/foreground_mean"
    estimates = [row.scores[key].estimate for row in comparison.models]
    assert estimates == sorted(estimates), "lower is better"
    assert "toy error" in comparison.verdict and " px" in comparison.verdict
    # the columns' headings and values, in terminal, Markdown and CSV
    shown = f"{estimates[0]:.4g}"
    text, markdown = board.leaderboard_text(comparison), board.leaderboard_markdown(comparison)
    assert "toy error dataset, foreground (px)" in markdown and shown in markdown
    assert "toy" in text and shown in text
    compare_stage.write(comparison, tmp_path / "written")
    table = pd.read_csv(tmp_path / "written/leaderboard.csv")
    assert table[key].tolist()[:3] == pytest.approx(estimates) and f"{key} low" in table
    # page and charts
    page = html.unescape((report_stage.report(folder, params, prepared) / "index.html").read_text())
    assert "Toy error, foreground mean (px, lower is better)" in page and "Down is better" in page
    charts = report_stage.all_charts(read_inputs(folder, params, prepared))
    labels = [label.get_text() for axes in charts["metrics"].axes for label in axes.get_yticklabels()]
    assert "Toy error\n(lower is better)" in labels
    assert [axes.get_xlabel() for axes in charts["metrics"].axes] == ["", "px"]
    # the documentation's table
    assert "| `toy` | Toy error | px | lower is better |" in generate.metrics_page()
    assert {"name": "toy", "title": "Toy error", "unit": "px", "direction": "lower is better"}.items() <= (
        metrics.table()[-1].items()
    )


def test_the_gate_decides_by_a_metric_that_is_better_when_lower(toy: Metric, tmp_path: Path) -> None:
    folder, _, _ = built(tmp_path / "project")
    tables = {
        name: pd.read_parquet(folder / f"evaluations/{name}-0/counts.parquet") for name in ("fcn", "unet")
    }
    better = tables["fcn"].assign(fp=0)
    old = Candidate("old", "Old", 0.8, tables["fcn"], tables["fcn"].iloc[:0], Costs(1, 1, 1))
    new = Candidate("new", "New", 0.8, better, better.iloc[:0], Costs(1, 1, 1))
    gate = operations.Gate(bootstrap=200, confidence=0.6)
    classes = ["background", "building"]
    decision = decide(old, [new], gate, "toy", [1], classes, 0)
    assert decision.outcome == "promoted" and decision.challengers[0].difference["frozen"].difference > 0
    assert " px" in decision.reason and "points" not in decision.reason
    assert decide(new, [old], gate, "toy", [1], classes, 0).outcome == "kept"


@pytest.mark.usefixtures("tracked")
def test_a_new_metric_reaches_the_run_of_an_evaluation_that_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, params, _ = built(tmp_path / "project", architectures=["unet"])
    monkeypatch.chdir(folder)
    # this folder is not a DVC project
    Path("dvc.lock").unlink()
    with tracking.training_run(Tracker.open(params), params, "unet", 0, "U-Net"):
        pass
    run_id = tracking.log_evaluation(Tracker.open(params), "unet", 0, {"iou/dataset/building": 0.5})
    monkeypatch.setitem(METRICS, "toy", TOY)
    _, params, _ = built(tmp_path / "again", "toy", architectures=["unet"])
    comparison = read_comparison(tmp_path / "again/comparison/comparison.json")
    made = tracking.log_comparison(Tracker.open(params), params, comparison)
    client = Tracker.open(params).client
    logged = client.get_run(run_id).data.metrics
    expected = next(row for row in comparison.leaderboard if row.architecture == "unet")
    assert logged["test/toy.dataset.foreground_mean"] == pytest.approx(
        expected.scores["toy/dataset/foreground_mean"].estimate, abs=1e-6
    )
    assert logged["test/iou.dataset.building"] == 0.5, "earlier values are kept"
    assert "leaderboard/toy.dataset.foreground_mean unet" in client.get_run(made).data.metrics
    table = json.loads(Path(client.download_artifacts(made, "leaderboard.json", str(tmp_path))).read_text())
    assert "toy/dataset/foreground_mean" in table["columns"]


@pytest.mark.usefixtures("tracked")
def test_a_column_is_added_in_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's table: tests/flows/test_leaderboard.py."""
    column = board.Column(
        "toy", "toy stride", "px", "sizes", lambda row, _: row.summary and row.summary["output_stride"] * 1000
    )
    monkeypatch.setattr(board, "COLUMNS", [*board.COLUMNS, column])
    folder, params, prepared = built(tmp_path / "project")
    monkeypatch.chdir(folder)
    # this folder is not a DVC project
    Path("dvc.lock").unlink()
    comparison = read_comparison(folder / "comparison/comparison.json")
    assert "16000" in board.leaderboard_text(comparison)
    assert "toy stride (px)" in board.leaderboard_markdown(comparison)
    compare_stage.write(comparison, tmp_path / "written")
    assert pd.read_csv(tmp_path / "written/leaderboard.csv")["toy"].tolist()[:2] == [2000, 16000]
    page = (report_stage.report(folder, params, prepared) / "index.html").read_text()
    assert "toy stride (px)" in page and "<td>16000</td>" in page
    made = tracking.log_comparison(Tracker.open(params), params, comparison)
    client = Tracker.open(params).client
    table = json.loads(Path(client.download_artifacts(made, "leaderboard.json", str(tmp_path))).read_text())
    assert 16000 in [row[table["columns"].index("toy")] for row in table["data"]]


def _toy_rule() -> gate_rules.Rule:
    def check(trial: gate_rules.Trial, most: float) -> list[gate_rules.Finding]:
        size = trial.costs.size_mb
        return [gate_rules.finding("toy", "toy budget", size, most, size is not None and size <= most)]

    parameter = gate_rules.Parameter("toy_budget", float, Field(default=99.0, gt=0, description="toys"))
    return gate_rules.Rule(
        "toy", "{}", "weight of the toys", "at most", {"toy budget": "kg"}, "limit", parameter, check
    )


def test_a_gate_rule_is_added_in_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, params, prepared = built(tmp_path / "project")
    record = _record(folder)
    monkeypatch.setattr(gate_rules, "RULES", (*gate_rules.RULES, _toy_rule()))
    monkeypatch.setattr(operations, "RULES", gate_rules.RULES)
    section = operations.gate_section()
    assert section.model_validate({"toy_budget": 5}).toy_budget == 5
    with pytest.raises(ValueError, match="toy_budget"):
        section.model_validate({"toy_budget": -1})
    with pytest.raises(ValueError, match="toy_budgets"):
        section.model_validate({"toy_budgets": 5})

    def candidate(name: str, size: float) -> Candidate:
        table = pd.read_parquet(folder / f"evaluations/{name}-0/counts.parquet")
        return Candidate(name, name.upper(), 0.8, table, table.iloc[:0], Costs(1, 1, size))

    classes = ["background", "building"]
    gate = section.model_validate({"toy_budget": 5, "bootstrap": 200, "confidence": 0.6})
    champion, challenger = candidate("fcn", 9), candidate("unet", 9)
    decision = decide(champion, [challenger], gate, "iou", [1], classes, 0)
    assert decision.outcome == "kept" and not decision.challengers[0].allowed
    assert "toy budget" in decision.reason and "weight of the toys: 9.0 kg" in decision.reason
    assert "at most 5.0 kg" in decision.reason
    loose = section.model_validate({"bootstrap": 200, "confidence": 0.6})
    assert decide(champion, [challenger], loose, "iou", [1], classes, 0).outcome == "promoted"

    decided = dataclasses.asdict(decision)
    for one in decided["challengers"]:
        one |= {"architecture": "unet", "seed": 0, "weights_sha256": "0" * 64}
    record = DecisionRecord.from_json(record.as_json() | decided)
    write_record(record_path(folder, "buildings", "b2"), record)
    (line,) = [line for line in record_text(record).splitlines() if line.lstrip().startswith("toy budget")]
    assert "9.0 kg" in line and "at most 5.0 kg" in line and line.endswith("no")
    page = html.unescape((report_stage.report(folder, params, prepared) / "index.html").read_text())
    assert "Toy budget" in page and "Weight of the toys" in page and "at most 5.0 kg" in page


def test_params_yaml_takes_the_parameter_of_an_added_rule(tmp_path: Path) -> None:
    """In a new process: the section is created when segcore.params is imported."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["gate"]["toy_budget"] = 5
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    code = (
        "from segcore import gate_rules; from pydantic import Field\n"
        "budget = gate_rules.Parameter('toy_budget', float, Field(default=99.0, gt=0))\n"
        "toy = gate_rules.Rule('toy', '{}', '{}', 'at most', '', 'limit', budget, lambda trial, most: [])\n"
        "gate_rules.RULES += (toy,)\n"
        "from segcore import params; print(params.load('params.yaml').gate.toy_budget)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "5.0\n", done.stderr
    with pytest.raises(ParamsError, match=r"unknown key 'gate\.toy_budget'; known keys there: .*margin"):
        load(tmp_path / "params.yaml")


def test_the_section_gate_has_the_keys_and_defaults_that_it_had() -> None:
    assert operations.Gate().model_dump_json(exclude={"approval", "approval_hours"}) == (
        '{"margin":0.0,"not_worse":0.01,"cheaper":0.8,"confidence":0.95,"bootstrap":2000,"floors":{},'
        '"ceilings":{"latency_ms":null,"memory_mb":null,"size_mb":null}}'
    ), "decisions are looked up by a hash of it"


def test_a_comparison_of_an_earlier_version_is_read_and_written_unchanged() -> None:
    content = json.loads((OLD / "comparison.json").read_text())
    comparison = Comparison.from_json(content)
    assert json.dumps(comparison.to_json()) == json.dumps(content)
    assert comparison.verdict in board.leaderboard_text(comparison)


def test_a_decision_of_an_earlier_version_is_read_and_shown(tmp_path: Path) -> None:
    folder, params, prepared = built(tmp_path / "project")
    path = record_path(folder, "buildings", "b2")
    path.parent.mkdir(parents=True)
    path.write_text((OLD / "decision.json").read_text())
    record = read_record(path)
    assert record is not None and record.reason in record_text(record)
    assert "at most 50.0 ms" in record_text(record) and "minimum score of building" in record_text(record)
    page = html.unescape((report_stage.report(folder, params, prepared) / "index.html").read_text())
    assert "Latency limit" in page and "+13.7" in page


def test_a_damaged_comparison_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    for text in ("{", "{}", "[]", '{"leaderboard": [], "tests": []}'):
        path.write_text(text)
        with pytest.raises(
            DataError, match=r"comparison\.json: cannot be read(.|\n)*run the step compare again"
        ):
            read_comparison(path)


def test_metrics_have_consistent_fields() -> None:
    counts = {name: np.zeros((2, 3)) for name in ("tp", "fp", "fn", "pixels")}
    counts |= {f"boundary_{n}": np.zeros((2, 3)) for n in ("predicted", "true")}
    counts |= {f"boundary_{n}_matched": np.zeros((2, 3)) for n in ("predicted", "true")}
    sums = defaultdict(lambda: np.zeros((2, 3)))
    for name, metric in METRICS.items():
        table = "objects" if metric.of_objects else "surfaces" if metric.of_surfaces else "counts"
        assert metric.name == name and metric.tables == (table,)
        values = metric.function(sums if metric.of_foreground else counts)
        assert values.shape == ((2, 3) if metric.per_class else (2,))
        assert (
            metric.per_class and metric.function.__doc__ if metric.of_foreground else metric.higher_is_better
        )
        assert dataclasses.replace(metric, higher_is_better=False).sign == -1
