"""Report section on champion and challengers, from real decisions of the gate; without MLflow."""

import html
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from segcore.errors import DataError
from segcore.params import Params
from segcore.params.operations import Gate
from segcore.promotion.drift import SOURCE, psi
from segcore.promotion.gate import Candidate, Costs, decide
from tasks import report as stage
from tasks.promotion.history import FORMAT, RegisteredVersion, write_history
from tasks.promotion.record import DecisionRecord, record_path, write_record
from tasks.reporting.champion import retrain_view, when
from tests.support.fake_project import TITLES, FakePrepared, build_project, scene_patches
from tests.tasks.test_report import _params, _Tags

ROOT = Path(__file__).parents[3]


def _drift() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    training, new = (np.histogram(rng.normal(m, 20, 9000), 64, (0, 255))[0] for m in (100, 130))
    found = psi(training, new)
    band = {
        "band": 1,
        "range": [0.0, 255.0],
        "edges": [0.0, 255.0],
        "training": list(training / 9000),
        "new": list(new / 9000),
    }
    return {
        "training": {"images": 12, "read": 12, "values": 9000},
        "new": {"images": 4, "read": 4, "values": 9000},
        "bands": [band | {"outside": 0.0, "psi": found, "ks": 0.4, "level": "large"}],
        "classes": {
            "names": ["background", "building"],
            "training": [0.9, 0.1],
            "new": [0.7, 0.3],
            "psi": 0.3,
        },
        "thresholds": {"psi": [0.1, 0.25], "source": SOURCE},
        "verdicts": ["Band 1: large shift, PSI 2.10 (above 0.25), Kolmogorov-Smirnov distance 0.40."],
    }


def _record(root: Path, champion: str | None = "fcn", **over: Any) -> DecisionRecord:
    """A decision among the evaluations of a fake project."""

    def candidate(name: str) -> Candidate:
        counts = pd.read_parquet(root / "evaluations" / f"{name}-0" / "counts.parquet")
        return Candidate(f"{name}-0", TITLES[name], 0.8, counts, counts.iloc[:0], Costs(30, 800, 12.5))

    rivals = [candidate(name) for name in TITLES if name != champion]
    gate = Gate(bootstrap=200, confidence=0.6, floors={"building": 0.2}, ceilings={"latency_ms": 50})
    current = candidate(champion) if champion else None
    decision = asdict(decide(current, rivals, gate, "iou", [1], ["background", "building"], 0, looks=3))
    for one in decision["challengers"]:
        one |= {"architecture": one["name"][:-2], "seed": 0, "weights_sha256": "0" * 64}
    meta = {"format": FORMAT, "dataset": "buildings", "key": "b2", "batches": ["b2"], "inputs": "1" * 64}
    times = {"decided": "2026-01-02T10:00:00Z", "acted": "2026-01-02T10:00:05Z"}
    content = {**meta, **times, "champion_version": 1, "versions": {}, **decision, "drift": _drift(), **over}
    return DecisionRecord.from_json(content)


def _history() -> list[RegisteredVersion]:
    row = {"architecture": "unet", "title": "U-Net", "seed": 0, "scores": {"frozen": 0.75}, "restored": None}
    newer = {
        "version": 2,
        "aliases": ["champion"],
        "promoted": "2026-01-02T10:00:00Z",
        "decision": "It was better.",
    }
    older = {"version": 1, "aliases": ["previous"], "promoted": None, "decision": None}
    return [RegisteredVersion(**(row | newer)), RegisteredVersion(**(row | older))]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params, FakePrepared]:
    root, prepared = tmp_path_factory.mktemp("project"), scene_patches()
    params = _params(prepared)
    build_project(root, prepared, params)
    return root, params, prepared


@pytest.fixture
def root(project: tuple[Path, Params, FakePrepared], tmp_path: Path) -> Path:
    return Path(shutil.copytree(project[0], tmp_path / "project"))


def _page(root: Path, project: tuple[Path, Params, FakePrepared]) -> str:
    folder = stage.report(root, project[1], project[2])
    return (folder / "index.html").read_text(encoding="utf-8")


def test_without_a_decision_there_is_no_section(root: Path, project) -> None:
    assert retrain_view(root, "buildings") is None
    page = _page(root, project)
    assert 'id="champion"' not in page and 'href="#champion"' not in page


def test_section_shows_sentence_rules_drift_and_history(root: Path, project) -> None:
    record = _record(root)
    write_record(record_path(root, "buildings", "b2"), record)
    write_history(root, "buildings", _history())
    page = _page(root, project)
    section = page[page.index('<section id="champion">') : page.index('<section id="data">')]
    shown = html.unescape(section).replace("\N{NON-BREAKING HYPHEN}", "-").replace("\N{NO-BREAK SPACE}", " ")
    assert record.reason in shown and "Minimum score of building" in shown and "Latency limit" in shown
    assert "at least 20.0 %" in shown and "at most 50.0 ms" in shown and "Bonferroni" in shown
    for one in record.challengers:
        assert one.title in shown
        assert f"{100 * one.difference['frozen'].low:+.1f}".replace("-", "−") in shown
    assert section.count("<svg") >= 4 and SOURCE in shown and "Band 1: large shift" in shown
    assert "an improvement must exceed about" in shown and "swaps of whole clusters" in shown
    assert "decision 3 against a champion on this test set" in shown
    assert "pooled over 12 images or planes" in shown and "of the new batch" in shown
    assert not re.search(r"built-in|None|nan|object at", shown)
    assert "2026-01-02 10:00 UTC" in shown and "It was better." in shown and ">previous<" in section
    tags = _Tags()
    tags.feed(page)
    assert not tags.wrong
    for caption in re.findall(r'<figure class="charts.*?<figcaption>(.*?)</figcaption>', section, re.DOTALL):
        assert "pooled" in caption


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"champion": None, "drift": None, "batches": []}, "becomes the first champion"),
        ({"acted": None}, "not carried out yet"),
    ],
)
def test_section_of_other_outcomes(over: dict[str, Any], words: str, root: Path, project) -> None:
    champion = over.pop("champion", "fcn")
    write_record(record_path(root, "buildings", "b2"), _record(root, champion, **over))
    assert words in _page(root, project)


def test_costs_that_were_not_measured_for_a_first_champion_are_explained(root: Path, project) -> None:
    record = _record(root, None, drift=None, batches=[])
    words = "Latency and memory are not measured for a first champion"
    write_record(record_path(root, "buildings", "b2"), record)
    assert words not in _page(root, project)
    unmeasured = [replace(one, costs=Costs(size_mb=12.5)) for one in record.challengers]
    write_record(record_path(root, "buildings", "b2"), replace(record, challengers=unmeasured))
    assert words in _page(root, project)


def test_the_latest_decision_is_shown_and_a_damaged_one_is_an_error(root: Path) -> None:
    for key, moment in (("b1", "2026-01-03T00:00:00Z"), ("b2", "2026-01-02T00:00:00Z")):
        write_record(record_path(root, "buildings", key), _record(root, key=key, decided=moment))
    view = retrain_view(root, "buildings")
    assert view and view["record"].key == "b1" and view["history"] == []
    record_path(root, "buildings", "b1").write_text('{"format": 1')
    with pytest.raises(DataError, match=r"b1\.json: not a readable decision"):
        retrain_view(root, "buildings")
    assert when(None) == "–"


def test_keys_that_are_not_file_names_are_refused(root: Path) -> None:
    for key in ("../x", "history", "", "a/b"):
        with pytest.raises(DataError, match="not usable as the file name"):
            record_path(root, "buildings", key)


def test_the_report_imports_no_mlflow() -> None:
    code = "import sys, tasks.report; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_record_survives_as_json(root: Path) -> None:
    record = _record(root)
    assert DecisionRecord.from_json(json.loads(json.dumps(record.as_json(), allow_nan=False))) == record


def test_a_rollback_after_the_decision_is_named(root: Path) -> None:
    record = _record(root)
    write_record(record_path(root, "buildings", "b2"), record)
    for restored, shown in ((None, False), ("2000-01-01T00:00:00Z", False), ("2999-01-01T00:00:00Z", True)):
        row = RegisteredVersion(
            version=1, architecture="unet", title="U-Net", aliases=("champion",), restored=restored
        )
        write_history(root, "buildings", [row])
        view = retrain_view(root, "buildings")
        assert view and bool(view["since"]) == shown
    assert view["since"] == "A rollback of 2999-01-01 00:00 UTC made version 1 champion again."
