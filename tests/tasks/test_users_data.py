"""The whole comparison on real data sets of every kind, with few steps, if their folders are available.

SEGFLOW_DATA is their parent folder, as in examples/*.yaml.
"""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from segcore import params
from segcore.data.prepared import PreparedData
from tasks import compare, evaluate, report, train
from tasks.configure import configure
from tasks.ingest import ingest
from tasks.prepare import prepare

ROOT = Path(__file__).parents[2]
TINY = {"steps": 2, "batch": 2, "validate_every": 2, "warmup_steps": 1, "weights": "none"}
# quarantined items, counted by hand
EXPECTED = {"amazon": 1, "banepa": 0, "dubai": 0, "floods": 2, "hippocampus": 1, "nuclei": 0}


def small_budget(path: Path) -> params.Params:
    """params.yaml with one seed and two steps."""
    values = yaml.safe_load(path.read_text())
    values["seeds"], values["architectures"] = [0], ["fcn", "unet", "deeplab"]
    values["train"]["common"].update(TINY, crop=min(64, values["train"]["common"]["crop"]))
    values["prepare"].update(window=min(96, values["prepare"]["window"]), stride=64)
    # as few test images as possible
    if not values["data"].get("splits"):
        values["split"]["fractions"] = {"train": 0.94, "validation": 0.03, "test": 0.03}
    values["evaluate"].update(tile=256, overlap=16, kept_predictions=3)
    values["compare"].update(bootstrap=50, permutations=50)
    values["tracking"]["system_metrics"] = False
    path.write_text(yaml.safe_dump(values))
    return params.load(path)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_whole_comparison_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = os.environ.get("SEGFLOW_DATA")
    if not folder:
        pytest.skip("SEGFLOW_DATA does not name a folder of data sets")
    example = yaml.safe_load((ROOT / "examples" / f"{name}.yaml").read_text())
    if not Path(os.path.expandvars(example["data"]["source"])).is_dir():
        pytest.skip(f"SEGFLOW_DATA has no folder for the example {name}")
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    configure(name, tmp_path / "params.yaml", ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    p = small_budget(Path("params.yaml"))
    catalogue = pd.read_parquet(ingest(p.data, work=Path("work")))
    assert (catalogue["status"] == "quarantined").sum() == EXPECTED[name]
    assert catalogue.loc[catalogue["status"] == "quarantined", "remedy"].str.len().gt(0).all()
    prepare(p, registry=Path("splits.csv"), work=Path("work"))
    for architecture in p.architectures:
        train.train(p, architecture, 0)
        evaluate.run_evaluation(p, architecture, 0)
    compare.write(compare.build(Path(), p), Path("comparison"))
    report.report(Path(), p, PreparedData("data/prepared"))
    rows = json.loads(Path("comparison/comparison.json").read_text())["leaderboard"]
    assert {r["architecture"] for r in rows if r["kind"] == "model"} == set(p.architectures)
    assert Path(f"reports/{name}/index.html").stat().st_size > 50_000
    assert Path(f"reports/{name}/data.html").stat().st_size > 50_000
