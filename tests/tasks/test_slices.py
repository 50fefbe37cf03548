"""The words of data.images reach the catalogue, the prepared data, the evaluation tables and the comparison."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from segcore.data import prepared
from segcore.data.prepared import PreparedData
from segcore.evaluation.evaluate import evaluate
from segcore.params import Params
from segcore.splits.prepare import planes
from segcore.tables.slices import known_texts, slices_of
from segcore.training.build import new_model
from tasks.compare import build
from tasks.ingest import ingest
from tasks.prepare import prepare
from tests.support.fake_catalogue import card_row, catalogue
from tests.support.tiny import make_pairs, params_for
from tests.support.trainings import small

SITES = ("oslo", "bergen")


def sort_by_site(folder: Path, sites: tuple[str, ...]) -> None:
    """Move images/a<i>.png to images/<site>/s<sensor>_a<i>.png."""
    for number, path in enumerate(sorted((folder / "images").glob("*.png"))):
        target = folder / "images" / sites[number % len(sites)] / f"s{number % 3}_{path.name}"
        target.parent.mkdir(exist_ok=True)
        path.rename(target)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    """Twenty images of two sites, a batch of four of a third site, prepared, and one evaluation per architecture."""
    root = tmp_path_factory.mktemp("words")
    sort_by_site(make_pairs(root / "source", count=20), SITES)
    batch = make_pairs(root / "data/batches/tiny/20260101-b1", count=24)
    for name in [f"a{i}.png" for i in range(20)]:
        (batch / "images" / name).unlink()
        (batch / "masks" / name).unlink()
    sort_by_site(batch, ("tromso",))
    p = params_for(
        root / "source",
        data={"images": "images/{site}/{sensor}_{stem}.png", "batches": str(root / "data/batches")},
        split={"links": []},
    )
    ingest(p.data, root / "data/ingested")
    data = PreparedData(prepare(p, root / "data/ingested", root / "data/prepared"))
    for seed, name in enumerate(p.architectures):
        folder = root / "evaluations" / f"{name}-0"
        folder.mkdir(parents=True)
        model = new_model("unet", small(), data, seed).eval()
        evaluate(model, data, p.evaluate, "fp32").counts.to_parquet(folder / "counts.parquet", index=False)
        summary = {"title": name, "parameters": 1, "macs": 1, "receptive_field": 1}
        (folder / "summary.json").write_text(json.dumps(summary))
    return root, p


def test_every_test_image_has_the_words_of_its_path_in_the_evaluation_table(project) -> None:
    root, _ = project
    data = PreparedData(root / "data/prepared")
    catalog = pd.read_parquet(root / "data/ingested/catalog.parquet").set_index("id")
    found = slices_of(pd.read_parquet(root / "evaluations/unet-0/counts.parquet"))
    assert list(found) == ["site", "sensor"] and set(found["site"]) == set(prepared.test_regions(data)["id"])
    for word, texts in found.items():
        for item, text in texts.items():
            site, name = catalog.at[item, "image"].split("/")[-2:]
            assert text == {"site": site, "sensor": name.partition("_")[0]}[word]


def test_items_of_a_batch_have_words_too(project) -> None:
    known = known_texts(PreparedData(project[0] / "data/prepared").items)
    assert known == {"site": ["bergen", "oslo", "tromso"], "sensor": ["s0", "s1", "s2"]}


def test_the_comparison_of_the_project_has_its_slices(project) -> None:
    root, p = project
    comparison = build(root, p)
    tests = prepared.test_regions(PreparedData(root / "data/prepared"))
    by_word = (
        pd.DataFrame([vars(one) for one in comparison.slices]).groupby("word", sort=False)["images"].sum()
    )
    assert by_word.to_dict() == {"site": len(tests), "sensor": len(tests)}


def test_an_evaluation_of_an_earlier_version_is_compared_without_slices(project, tmp_path: Path) -> None:
    root, p = project
    shutil.copytree(root, tmp_path / "earlier")
    for path in (tmp_path / "earlier/evaluations").glob("*/counts.parquet"):
        table = pd.read_parquet(path)
        table[[c for c in table if not c.startswith("slice.")]].to_parquet(path)
    old, new = build(tmp_path / "earlier", p).to_json(), build(root, p).to_json()
    assert "slices" not in old and new.pop("slices") and old == new


def test_prepared_data_without_words_are_those_of_earlier_versions(tmp_path: Path) -> None:
    rows = [card_row("a", tmp_path, axis=0), card_row("b", tmp_path, axis=0)]
    for table in (catalogue(rows), catalogue(rows).drop(columns="words")):
        assert "words" not in planes(table)


def test_all_planes_of_a_volume_have_its_words(tmp_path: Path) -> None:
    volume = card_row("v", tmp_path, axis=0, depth=3, words='{"site": "oslo"}')
    table = planes(catalogue([volume, card_row("w", tmp_path, axis=0)]))
    assert list(table["words"]) == ['{"site": "oslo"}'] * 3 + ["{}"]
