"""Promotion in a tiny real project: real trainings, a real MLflow registry, counts made better or worse by hand."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml

from segcore import params
from segcore.errors import DataError, ParamsError, StageError
from segcore.evaluation import evaluate
from segcore.files import sha256
from segcore.params import Params
from segcore.tables.slices import add_words
from tasks import evaluate as evaluation
from tasks import promote as stage
from tasks.evaluate import run_evaluation
from tasks.ingest import ingest
from tasks.prepare import prepare
from tasks.promotion import candidates, costs, decision
from tasks.promotion.context import PromotionContext
from tasks.promotion.history import now, read_history
from tasks.promotion.printed import record_text
from tasks.promotion.record import Approval, latest, records
from tasks.tracking import runs
from tasks.tracking.fetch import find_model
from tasks.tracking.registry import Registry
from tasks.tracking.tracker import Tracker
from tasks.train import train
from tests.support import bundles
from tests.support.tiny import make_pairs, values_for

ROOT = Path(__file__).parents[2]
COST = {"latency_ms": 10.0, "peak_memory_mb": 700.0}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data of 20 images, FCN and U-Net trained and evaluated with seeds 0 and 1, and a first champion."""
    folder = tmp_path_factory.mktemp("template")
    make_pairs(folder / "source", count=20)
    values = values_for("source", seeds=[0, 1], gate={"bootstrap": 200, "confidence": 0.6})
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setattr(costs, "measure", lambda folders, *_: [dict(COST) for _ in folders])
        patch.setattr(evaluation, "measure", lambda folders, *_: [dict(COST) for _ in folders])
        p = params.load()
        ingest(p.data)
        prepare(p, registry=Path("splits/tiny.csv"), work=Path("work"))
        for architecture in p.architectures:
            for seed in p.seeds:
                train(p, architecture, seed)
                run_evaluation(p, architecture, seed)
        stage.promote(p)
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the template as the current folder, with fixed costs instead of measurements."""
    folder = tmp_path / "project"
    shutil.copytree(template, folder)
    monkeypatch.chdir(folder)
    # MLflow keeps stores open by address, so each test needs its own
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    monkeypatch.setattr(costs, "measure", lambda folders, *_: [dict(COST) for _ in folders])
    return folder


def registry_of(p: Params) -> Registry:
    return Registry(Tracker.open(p))


def load() -> Params:
    return params.load("params.yaml")


def mark_batch(batch: str, fraction: float = 0.5) -> list[str]:
    """Mark the last test and training items of the prepared data as a batch; returns its test items."""
    items = pd.read_parquet("data/prepared/items.parquet")
    regions = pd.read_parquet("data/prepared/regions.parquet")
    marked = []
    for split in ("test", "train"):
        names = sorted(regions.loc[regions["split"] == split, "item"].unique())
        marked.append(names[-max(1, round(len(names) * fraction)) :])
    items.loc[items["item"].isin([*marked[0], *marked[1]]), "batch"] = batch
    items.to_parquet("data/prepared/items.parquet", index=False)
    return marked[0]


def rewrite(run: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change a run's evaluation table, as if another training had produced it."""
    path = Path("evaluations") / run / "counts.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)


def perfect(counts: pd.DataFrame) -> pd.DataFrame:
    return counts.assign(tp=counts["tp"] + counts["fn"], fp=0, fn=0)


def new_weights(run: str) -> None:
    """Replace a model by one of the same name with slightly different weights."""
    from safetensors.torch import load_file

    from segcore.files import save_tensors, sha256
    from segcore.models.base.description import serialized

    folder = Path("models") / run
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in sorted(weights) if key.endswith("weight"))
    weights[name] = weights[name] + 1e-3
    save_tensors(weights, folder / "model.safetensors")
    description = json.loads((folder / "model.json").read_text())
    description["weights_sha256"] = sha256(folder / "model.safetensors")
    (folder / "model.json").write_bytes(serialized(description))


def without_scores(run: str) -> None:
    """Make a model one of a training that failed: no validation score is a number."""
    from segcore.files import sha256
    from segcore.models.base.description import serialized

    folder = Path("models") / run
    pd.read_csv(folder / "history.csv").assign(val_iou=float("nan")).to_csv(
        folder / "history.csv", index=False
    )
    description = json.loads((folder / "model.json").read_text())
    description["files"]["history.csv"] = sha256(folder / "history.csv")
    (folder / "model.json").write_bytes(serialized(description))


def contents(*names: str) -> dict[Path, bytes]:
    """Bytes of files, and of all files in folders."""
    files = [f for name in names for f in [Path(name), *Path(name).rglob("*")] if f.is_file()]
    return {file: file.read_bytes() for file in files}


def best_runs() -> dict[str, str]:
    """The run with the best validation score of each architecture."""
    scores = {f.parent.name: pd.read_csv(f)["val_iou"].max() for f in Path("models").glob("*/history.csv")}
    return {
        a: max((r for r in sorted(scores) if r.startswith(a)), key=lambda r: scores[r])
        for a in ("fcn", "unet")
    }


def aliases() -> dict[str, int]:
    return {alias: row.version for row in registry_of(load()).history() for alias in row.aliases}


def test_first_champion_is_the_best_by_validation_and_a_repeated_call_changes_nothing(project: Path) -> None:
    record = latest(project, "tiny")
    assert record and record.outcome == "first" and aliases() == {"champion": 1}
    assert {c.name for c in record.challengers} == set(best_runs().values())
    assert record.winner in best_runs().values() and record.champion is None and record.acted
    (path,) = [f for f in Path("decisions/tiny").glob("*.json") if f.name != "history.json"]
    assert json.loads(path.read_text()) == record.as_json() and path.stem == record.key
    assert stage.promote(load()) == record
    (row,) = read_history(project, "tiny")
    assert row.aliases == ["champion"] and row.promoted == record.decided
    assert row.decision == record.reason and row.scores["validation"] > 0


def test_the_command_tells_scores_registry_and_commit_and_tells_a_champion_once(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["git", "init", "-q", "-b", "trunk"], check=True)
    record = latest(project, "tiny")
    assert record is not None and record.winner is not None
    text, best = record_text(record), record.challenger(record.winner)
    assert "on the validation split, and IoU on the frozen test set:" in text
    assert f"{best.title} (seed {best.seed}): {100 * best.validation:.1f} %, " in text
    monkeypatch.setattr("sys.argv", ["promote"])
    stage.main()
    printed = capsys.readouterr().out
    assert "becomes the first champion" not in printed
    assert (
        f"{best.title} (seed {best.seed}) is champion already" in printed and "nothing was changed" in printed
    )
    assert f"Registry, tiny: version 1 ({best.title}, seed {best.seed}) is champion." in printed
    assert "git: committed to trunk: Decision of tiny on batch" in printed
    stage.main()
    assert "git: committed" not in capsys.readouterr().out
    better_challenger()
    stage.main()
    printed = capsys.readouterr().out
    assert "Promoted " in printed and "already" not in printed and "is previous" in printed
    assert "git: committed" in printed


def test_a_champion_of_an_earlier_version_that_was_trained_again_is_renewed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, registry = load(), registry_of(load())
    champion = registry.champion()
    assert champion is not None and champion.run_id is not None
    folder, source = (
        project / "models" / latest(project, "tiny").winner,
        Path(registry.source(champion.version)),
    )
    assert json.loads((folder / "model.json").read_text())["weights_sha256"] == champion.weights_sha256
    # an earlier version stored the bundle alone, without a description
    for path in source.iterdir():
        if path.name not in ("model.json", "model.safetensors", "history.csv"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    registry.tracker.client.update_model_version(p.data.name, str(champion.version), description="")
    calibration = {"temperature": 1.75, "ece_before": 0.08, "ece_after": 0.02}
    bundles.rewrite(folder, lambda description: description.update(calibration=calibration))
    before = contents("decisions")
    stage.promote(p, dry_run=True)
    assert contents("decisions") == before and registry.champion() == champion

    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    for name in ("tag", "describe"):
        with monkeypatch.context() as patch:
            patch.setattr(Registry, name, die)
            with pytest.raises(Killed):
                stage.promote(p)
    decided = stage.promote(p)
    assert decided == stage.promote(p) and registry_of(p).champion() == replace(
        champion, description_sha256=sha256(folder / "model.json")
    )
    registry_of(p).require_agreement(project)
    assert "temperature 1.75" in (source / "MODEL_CARD.md").read_text()
    bundle = find_model(p, f"models:/{p.data.name}@champion", project).bundle
    assert bundle.description["calibration"] == calibration
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    assert mlflow.pyfunc.load_model(f"models:/{p.data.name}@champion").metadata.signature is not None
    (copy,) = [path for path in (project / "decisions").rglob("*.json") if "renewed" in path.name]
    assert json.loads(copy.read_text())["change"] == "renewed"


def better_challenger(batch: str | None = None) -> str:
    """Make the best run of the other architecture a perfect challenger; the champion's run is unchanged."""
    champion = registry_of(load()).champion()
    assert champion
    run = best_runs()["unet" if champion.architecture == "fcn" else "fcn"]
    new_weights(run)
    rewrite(run, perfect)
    return run


def test_dry_run_writes_nothing_and_the_next_call_decides_the_same(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = mark_batch("b2")
    run = better_challenger()
    before = contents("decisions", "mlflow.db")
    planned = stage.promote(load(), batches=["b2"], dry_run=True)
    assert (planned.outcome, planned.winner, planned.acted) == ("promoted", run, None)
    assert aliases() == {"champion": 1} and planned.basis.new["regions"] == len(items)
    assert (
        planned.basis.frozen["regions"] + len(items)
        == len(pd.read_parquet(f"evaluations/{run}/counts.parquet")) / 2
    )
    assert contents("decisions", "mlflow.db") == before
    monkeypatch.setattr(evaluate, "evaluate", lambda *a, **k: pytest.fail("evaluated twice"))
    done = stage.promote(load(), batches=["b2"])
    assert done.acted and replace(done, acted=None, versions={}, decided=planned.decided) == planned
    assert aliases() == {"champion": 2, "previous": 1} and done.versions == {"champion": 2}
    assert latest(project, "tiny") == done and done.reason in record_text(done)
    assert done.drift["champion"]["ece"].keys() == {"frozen", "new"}
    assert stage.rollback(load()) == (1, 2) and aliases() == {"champion": 1, "previous": 2}
    assert stage.promote(load(), batches=["b2"]) == done and aliases()["champion"] == 1, (
        "a rollback is not undone"
    )


def test_the_champions_evaluation_equals_that_of_its_training_and_is_cached(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = latest(project, "tiny").winner
    mark_batch("b2")
    context = PromotionContext.open(load(), project)
    champion = candidates.champion(context, 1)
    trained = pd.read_parquet(f"evaluations/{first}/counts.parquet").sort_values(["item", "class_index"])
    again = champion.counts.sort_values(["item", "class_index"])
    pd.testing.assert_frame_equal(
        again.reset_index(drop=True), trained.reset_index(drop=True), check_dtype=False
    )
    curve = json.loads(Path(f"evaluations/{first}/calibration.json").read_text())
    assert candidates.calibration_errors(champion, [])["frozen"] == pytest.approx(curve["ece"])
    assert set(champion.calibrations) == {"0", "b2"}
    monkeypatch.setattr(evaluate, "evaluate", lambda *a, **k: pytest.fail("evaluated twice"))
    assert candidates.champion(context, 1).weights == champion.weights


def test_a_challenger_that_is_not_better_gets_its_alias_and_runs_are_tagged(project: Path) -> None:
    mark_batch("b2")
    champion = registry_of(load()).champion()
    other = best_runs()["unet" if champion.architecture == "fcn" else "fcn"]
    rewrite(
        other,
        lambda counts: counts.assign(tp=0, fp=counts["fp"] + counts["tp"], fn=counts["fn"] + counts["tp"]),
    )
    with runs.training_run(Tracker.open(load()), load(), *other.rsplit("-", 1), "another") as run:
        pass
    record = stage.promote(load(), batches=["b2"])
    assert record.outcome == "kept" and record.best == other and aliases() == {"champion": 1, "challenger": 2}
    tags = Tracker.open(load()).client.get_run(run.id).data.tags
    assert tags["gate.outcome"] == "kept" and tags["gate.reason"] == record.reason


class Killed(BaseException):
    """Simulates SIGKILL."""


@pytest.mark.parametrize("where", ["register", "promote", "champion_set", "write_json", "write_history"])
def test_after_a_kill_anywhere_a_repeated_call_acts_once(
    where: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark_batch("b2")
    run = better_challenger()

    def die(*arguments: Any, **keywords: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(costs, "measure", lambda folders, *_: [dict(COST) for _ in folders])
        if where in ("register", "promote"):
            patch.setattr(Registry, where, die)
        elif where == "champion_set":
            real = Registry.promote
            patch.setattr(Registry, "promote", lambda *a: (real(*a), die()))
        else:
            patch.setattr(stage, where, die)
        with pytest.raises(Killed):
            stage.promote(load(), batches=["b2"])
    assert registry_of(load()).champion() is not None
    monkeypatch.setattr(decision, "decide", lambda *a, **k: pytest.fail("decided twice"))
    record = stage.promote(load(), batches=["b2"])
    assert record.winner == run and record.acted
    assert aliases() == {"champion": 2, "previous": 1} and len(registry_of(load()).history()) == 2


def test_looks_at_the_test_set_are_counted_by_the_decisions_that_were_acted_upon(project: Path) -> None:
    first = latest(project, "tiny")
    assert first.basis.looks is None, "the first champion is chosen by its validation score"
    mark_batch("b2")
    better_challenger()
    assert stage.promote(load(), batches=["b2"], dry_run=True).basis.looks == 1
    assert stage.promote(load(), batches=["b2"]).basis.looks == 1
    # the demoted model is the challenger now
    second = stage.promote(load(), batches=[])
    assert second.basis.looks == 2 and "decision 2 against a champion on this test set" in record_text(second)
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["gate"]["margin"] = 0.01
    Path("params.yaml").write_text(yaml.safe_dump(values))
    assert stage.promote(load(), batches=[]).basis.looks == 3


def test_a_failed_training_is_not_chosen_and_is_recorded_as_left_out(project: Path) -> None:
    best = best_runs()
    without_scores(best["unet"])
    sound = "unet-1" if best["unet"] == "unet-0" else "unet-0"
    context = PromotionContext.open(load(), project)
    assert {m.folder.name for m in candidates.challengers(context)} == {best["fcn"], sound}
    without_scores(sound)
    new_weights("unet-0")
    record = stage.promote(load(), batches=[])
    assert "U-Net" in record.reason and "its validation score is not a number" in record.reason
    assert record.winner is None


def test_other_settings_give_a_new_decision_and_the_old_one_is_kept(project: Path) -> None:
    mark_batch("b2")
    old = stage.promote(load(), batches=["b2"])
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["gate"]["floors"] = {"square": 1.0}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    new = stage.promote(load(), batches=["b2"])
    assert new.inputs != old.inputs and new.basis.gate["floors"] == {"square": 1.0}
    kept = json.loads(Path(f"decisions/tiny/b2.{old.inputs[:8]}.json").read_text())
    assert kept == old.as_json()


def test_a_minimum_score_of_a_slice_blocks_a_challenger(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = pd.read_parquet("data/prepared/items.parquet")
    regions = pd.read_parquet("data/prepared/regions.parquet")
    first = sorted(regions.loc[regions["split"] == "test", "item"])[0]
    site_of = {item: "bergen" if item == first else "oslo" for item in items["item"]}
    items["words"] = [json.dumps({"site": site_of[item]}) for item in items["item"]]
    items.to_parquet("data/prepared/items.parquet", index=False)
    for run in best_runs().values():
        new_weights(run)
        # perfect on every site but one
        rewrite(run, lambda counts: perfect(counts).where(counts["item"] != first, counts))
        rewrite(run, lambda counts: add_words(counts, regions, items))
    values = yaml.safe_load(Path("params.yaml").read_text())
    outcomes = {}
    for key in ("square site=oslo", "site=bergen"):
        values["gate"]["floors"] = {key: 1.0}
        Path("params.yaml").write_text(yaml.safe_dump(values))
        record = stage.promote(load(), dry_run=True)
        outcomes[key] = [r.passed for c in record.challengers for r in c.rules if r.rule == key]
    assert outcomes == {"square site=oslo": [True, True], "site=bergen": [False, False]}
    assert record.outcome == "kept" and "minimum score of site=bergen" in record_text(record)
    monkeypatch.setattr(
        candidates, "champion", lambda *_: pytest.fail("measured before the settings were checked")
    )
    for key in ("site=tromso", "year=2020", "squares"):
        values["gate"]["floors"] = {key: 0.5}
        Path("params.yaml").write_text(yaml.safe_dump(values))
        with pytest.raises(ParamsError, match=rf"gate.floors: '{key}'"):
            stage.promote(load())


def ask_a_person() -> Params:
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["gate"]["approval"] = "person"
    Path("params.yaml").write_text(yaml.safe_dump(values))
    return load()


def answer(what: Any, by: str | None = "anna") -> Approval:
    return Approval(answer=what, by=by, when=now(), comment="looked at it")


def test_a_decision_that_needs_approval_waits_for_it_and_is_then_carried_out(project: Path) -> None:
    mark_batch("b2")
    better_challenger()
    p = ask_a_person()
    for _ in range(2):
        waiting = stage.promote(p, batches=["b2"])
        assert (waiting.outcome, waiting.acted, waiting.approval) == ("promoted", None, None)
        assert aliases() == {"champion": 1}
    done = stage.promote(p, batches=["b2"], approval=answer("approved"))
    assert done.acted and aliases() == {"champion": 2, "previous": 1} and done.decided == waiting.decided
    assert done.approval and done.approval.by == "anna" and "Approved by anna" in done.reason
    assert stage.promote(p, batches=["b2"]) == done


@pytest.mark.parametrize(
    ("what", "by", "words"),
    [("refused", "anna", "anna refused"), ("timed out", None, "nobody answered in time")],
)
def test_without_approval_the_champion_stays(what: str, by: str | None, words: str, project: Path) -> None:
    mark_batch("b2")
    run = better_challenger()
    p = ask_a_person()
    stage.promote(p, batches=["b2"])
    done = stage.promote(p, batches=["b2"], approval=answer(what, by))
    assert (done.outcome, done.winner, done.best) == ("kept", None, run) and words in done.reason
    assert aliases() == {"champion": 1, "challenger": 2}
    assert stage.promote(p, batches=["b2"], approval=answer("approved")) == done, "the answer is final"


def test_an_approval_is_only_for_the_decision_that_the_person_saw(project: Path) -> None:
    mark_batch("b2")
    run = better_challenger()
    p = ask_a_person()
    stage.promote(p, batches=["b2"])
    new_weights(run)
    other = stage.promote(p, batches=["b2"], approval=answer("approved"))
    assert other.acted is None and other.approval is None and aliases() == {"champion": 1}


def test_the_kind_of_approval_does_not_make_an_old_decision_invalid(project: Path) -> None:
    record = latest(project, "tiny")
    assert stage.promote(ask_a_person()) == record, "a first champion replaces nothing"


def test_a_group_of_an_earlier_test_set_must_not_be_trained_on(project: Path) -> None:
    regions = pd.read_parquet("data/prepared/regions.parquet")
    groups = set(regions.loc[regions["split"] == "test", "group"])
    listed = Path("decisions/tiny/test_groups.txt").read_text().splitlines()
    assert {json.loads(line) for line in listed} == groups
    moved = sorted(groups)[0]
    regions.loc[regions["group"] == moved, "split"] = "train"
    regions.to_parquet("data/prepared/regions.parquet", index=False)
    with pytest.raises(StageError, match=rf"{moved} \(train\)"):
        stage.promote(load(), batches=[])
    Path("decisions/tiny/test_groups.txt").write_text("x1")
    with pytest.raises(DataError, match="not a readable list of test groups"):
        stage.promote(load(), batches=[])


def test_a_first_champion_without_limits_of_latency_and_memory_is_not_measured(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: Any) -> Any:
        raise AssertionError("measured")

    monkeypatch.setattr(decision, "costs", measured)
    context = PromotionContext.open(load(), project)
    models = candidates.challengers(context)
    record = decision.new_decision(context, models, None, [], "0", "x")
    assert record.outcome == "first"
    assert all(one.costs.latency_ms is None and one.costs.size_mb for one in record.challengers)
    values = yaml.safe_load(Path("params.yaml").read_text())
    for limit in ("latency_ms", "memory_mb"):
        values["gate"]["ceilings"] = {limit: 5000}
        Path("params.yaml").write_text(yaml.safe_dump(values))
        with pytest.raises(AssertionError, match="measured"):
            decision.new_decision(PromotionContext.open(load(), project), models, None, [], "0", "x")


def test_a_registry_that_was_lost_gets_no_first_champion(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents("decisions")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/new-mlflow.db")
    for dry_run in (True, False):
        with pytest.raises(
            StageError, match="has no version of this model, but decisions/tiny records 1 version"
        ):
            stage.promote(load(), dry_run=dry_run)
    with pytest.raises(StageError, match="has no version of this model"):
        stage.rollback(load())
    assert contents("decisions") == before and aliases() == {}


ODD = {
    "cut short": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "a list": lambda text: "[]",
    "a number": lambda text: "3",
    "not UTF-8": lambda text: "\xff",
    "NaN": lambda text: re.sub(r'"validation": [0-9.]+', '"validation": NaN', text),
    "unknown format": lambda text: text.replace('"format": 1', '"format": 9'),
    "a key is missing": lambda text: text.replace('"outcome"', '"outcom"'),
    "acted is a number": lambda text: text.replace('"acted": "', '"acted": 5, "x": "'),
    "challengers is null": lambda text: json.dumps(json.loads(text) | {"challengers": None}),
    "versions is a list": lambda text: json.dumps(json.loads(text) | {"versions": [1]}),
    "batches is a number": lambda text: json.dumps(json.loads(text) | {"batches": 5}),
    "another winner": lambda text: json.dumps(json.loads(text) | {"winner": "resnet-9"}),
}


@pytest.mark.parametrize("what", ODD)
def test_a_decision_with_odd_content_is_an_error_with_file_and_remedy(
    what: str, template: Path, tmp_path: Path
) -> None:
    (source,) = [f for f in (template / "decisions/tiny").glob("*.json") if f.name != "history.json"]
    path = tmp_path / "decisions/tiny/b1.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(ODD[what](source.read_text()).encode("latin-1"))
    with pytest.raises(DataError, match=r"b1\.json: not a readable decision") as caught:
        records(tmp_path, "tiny")
    assert "git" in caught.value.remedy


def test_models_that_cannot_be_judged_are_errors_with_a_remedy(project: Path) -> None:
    with pytest.raises(StageError, match="there is no such batch"):
        stage.promote(load(), batches=["nowhere"])
    with pytest.raises(StageError, match="no previous champion"):
        stage.rollback(load())
    run = best_runs()["unet"]
    rewrite(run, lambda counts: counts[counts["item"] != counts["item"].iloc[0]])
    with pytest.raises(DataError, match="have no prediction"):
        stage.promote(load())
    shutil.rmtree(Path("evaluations") / run)
    with pytest.raises(StageError, match=rf"dvc repro evaluate@{run}"):
        stage.promote(load())


def test_a_champion_with_other_classes_is_refused(project: Path) -> None:
    meta = json.loads(Path("data/prepared/prepared.json").read_text())
    Path("data/prepared/prepared.json").write_text(json.dumps(meta | {"classes": ["background", "circle"]}))
    with pytest.raises(StageError, match=r"classes.*differ from those of the data"):
        candidates.champion(PromotionContext.open(load(), project), 1)


@pytest.mark.slow
def test_command_line_measures_in_fresh_processes_and_exits_0_though_nothing_is_promoted(
    project: Path,
) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "tasks",
                *(arguments if "registry" in arguments else ("promote", *arguments)),
            ],
            env=environment,
            capture_output=True,
            text=True,
        )

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout

    mark_batch("b2")
    git("init", "-q")
    git("-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "start", "--allow-empty")
    shutil.rmtree("work/gate-costs", ignore_errors=True)
    again = command("--batch", "b2", "--dry-run")
    assert again.returncode == 0 and "Kept " in again.stdout and "--dry-run" in again.stdout, again.stderr
    (measured,) = Path("work/gate-costs").glob("*/costs.json")
    costs = json.loads(measured.read_text())
    assert len(costs) == 2 and all(c["latency_ms"] > 0 and c["peak_memory_mb"] > 50 for c in costs)
    assert git("log", "--format=%s") == "start\n", "a dry run commits nothing"
    for _ in range(2):
        assert "Kept " in command("--batch", "b2").stdout
        assert git("log", "--format=%s").splitlines() == ["Decision of tiny on batch b2", "start"]
    assert {"decisions/tiny/b2.json", "decisions/tiny/history.json"} <= set(git("ls-files").split())
    assert "agree" in command("registry").stdout
    refused = command("--rollback")
    assert refused.returncode == 1 and "Remedy:" in refused.stderr and "Traceback" not in refused.stderr
