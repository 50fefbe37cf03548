"""A delivery is compared with the source, with every batch, ingested or not, and with itself."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from PIL import Image

from segcore.errors import DataError, StageError
from tasks.accepted import read_accepted
from tasks.ingest import ingest, require_source
from tests.support.inbox import BOX, aged, batch, built, kinds, look, pair, project, put
from tests.support.tiny import blobs, params_for, values_for, write_tif


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_image_with_two_masks_in_one_delivery_is_refused_and_both_are_named(here):
    p = project(here)
    pair("p", 50)
    pair("q", 50, other_mask=True)
    pair("r", 51)
    found = look(p)
    assert found.accepted == 1 and kinds(found) == {
        "images/p.png": "relabelled",
        "images/q.png": "relabelled",
    }
    reasons = sorted(found.quarantined["reason"])
    assert "images/q.png" in reasons[0] and "images/p.png" in reasons[1]


def test_one_item_twice_in_one_delivery_is_accepted_once(here):
    p = project(here)
    for name in ("p", "q", "z"):
        pair(name, 50)
    found = look(p)
    assert found.accepted == 1 and found.known == ["q", "z"] and found.quarantined.empty


def test_a_batch_that_was_never_ingested_is_known(here):
    p = project(here)
    folder = batch(p, "20260101-aaaaaaaa", "2026-01-01T00:00:00+00:00", {"b0": 60, "b1": 61})
    pair("same", 60)
    pair("other", 61, other_mask=True)
    found = look(p)
    assert (
        found.batch is None and found.known == ["same"] and kinds(found) == {"images/other.png": "relabelled"}
    )
    (row,) = found.quarantined.to_dict("records")
    assert str(folder / "images/b1.png") in row["reason"]
    assert f"replace {folder / 'masks/b1.png'}" in row["remedy"] and f"`dvc add {folder}`" in row["remedy"]


def test_the_remedy_for_a_corrected_mask_of_the_source_works_when_it_is_followed(here):
    p = project(here)
    pair("corrected", 1, other_mask=True)
    (row,) = look(p).quarantined.to_dict("records")
    assert "dvc" not in row["remedy"] and "replace source/masks/a1.png" in row["remedy"]
    Path("source/masks/a1.png").write_bytes((BOX / "masks/corrected.png").read_bytes())
    found = look(p)
    assert found.known == ["corrected"] and found.quarantined.empty


@pytest.mark.parametrize(("other_mask", "known"), [(False, ["deeper__again"]), (True, [])])
def test_an_image_in_another_format_folder_and_compression_is_the_same_image(here, other_mask, known):
    p = project(here, images="images/**/*.*", masks="masks/{stem}.png", label_values={0: 0, 255: 1, 1: 1})
    image, mask = blobs(48, 56, seed=2)
    path = BOX / "images/deeper/again.tif"
    write_tif(path, np.moveaxis(image, -1, 0), compress="deflate", crs=None, transform=None)
    aged(path)
    put(BOX / "masks/again.png", 1 - mask if other_mask else mask)
    found = look(p)
    assert found.batch is None and found.known == known
    assert kinds(found) == ({"images/deeper/again.tif": "relabelled"} if other_mask else {})


def test_another_georeference_is_a_contradiction_and_a_lost_one_is_not(here):
    p = params_for("source", scene=True)
    image, mask = (np.moveaxis(blobs(64, 64, 0)[0], -1, 0), blobs(64, 64, 0)[1][None] * 255)
    moved = rasterio.Affine(0.5, 0, 600000, 0, -0.5, 5000000)
    for folder, options in (
        (Path("source"), {}),
        (BOX / "lost", {"crs": None, "transform": None}),
        (BOX / "moved", {"transform": moved}),
    ):
        for kind, pixels in (("images", image), ("masks", mask)):
            name = "a" if folder == Path("source") else folder.name
            write_tif((folder if name == "a" else BOX) / kind / f"{name}.tif", pixels, **options)
    found = look(p, now=10**10)
    assert found.known == ["lost"] and kinds(found) == {"images/moved.tif": "relabelled"}
    assert "another georeference" in found.quarantined["reason"].iloc[0]


def test_the_same_mask_in_another_encoding_is_the_same_mask(here):
    p = project(here, label_values={0: 0, 255: 1, 1: 1})
    image, mask = blobs(48, 56, seed=1)
    put(BOX / "images/x.png", image, compress_level=1)
    palette = Image.fromarray(mask, mode="P")
    palette.putpalette([0, 0, 0, 9, 9, 9])
    palette.save(BOX / "x.png")
    (BOX / "masks").mkdir()
    (BOX / "x.png").rename(BOX / "masks/x.png")
    found = look(p, now=10**10)
    assert found.known == ["x"] and found.quarantined.empty


def test_a_larger_delivery_of_another_type_does_not_outvote_the_source(here):
    p = project(here)
    for number in range(5):
        image, mask = blobs(48, 56, seed=70 + number)
        put(BOX / f"images/g{number}.png", image[..., 0])
        put(BOX / f"masks/g{number}.png", mask * 255)
    pair("fine", 80)
    found = look(p)
    assert found.accepted == 1 and set(kinds(found).values()) == {"band-count"} and len(kinds(found)) == 5
    assert "data.source has 3" in found.quarantined["reason"].iloc[0]


def test_at_the_ingest_the_source_decides_on_the_type_whatever_the_majority(here):
    p = project(here)
    folder = Path(p.data.batches) / p.data.name / "20260101-aaaaaaaa"
    for number in range(5):
        image, mask = blobs(48, 56, seed=70 + number)
        put(folder / f"images/g{number}.png", image[..., 0])
        put(folder / f"masks/g{number}.png", mask * 255)
    table = built(p)
    assert (table[table["batch"] == "0"]["status"] == "accepted").all()
    assert (table[table["batch"] != "0"]["kind"] == "band-count").all()


def test_with_an_empty_source_the_batch_that_came_first_decides_on_the_type(here):
    p = project(here)
    for path in Path("source").rglob("*.png"):
        path.unlink()
    batch(p, "20260101-zzzzzzzz", "2026-01-01T00:00:00+00:00", {"b0": 60})
    later = batch(p, "20260101-aaaaaaaa", "2026-01-01T00:00:01+00:00", {"c0": 61, "c1": 62})
    for path in (later / "images").iterdir():
        put(path, np.asarray(Image.open(path))[..., 0])
    table = built(p)
    assert dict(zip(table["id"].str[-2:], table["kind"], strict=True)) == {
        "b0": "",
        "c0": "band-count",
        "c1": "band-count",
    }
    pair("n", 90)
    assert look(p).accepted == 1


def test_all_data_may_come_by_the_inbox(here):
    p = project(here)
    for path in Path("source").rglob("*.png"):
        path.unlink()
    pair("n", 90)
    assert look(p).accepted == 1
    batch(p, "20260101-aaaaaaaa", "2026-01-01T00:00:00+00:00", {"b0": 60})
    ingest(p.data, work=Path("work"))


def test_a_source_that_was_not_empty_before_is_an_error_in_both_steps(here):
    p = project(here)
    batch(p, "20260101-aaaaaaaa", "2026-01-01T00:00:00+00:00", {"b0": 60})
    ingest(p.data, work=Path("work"))
    for path in Path("source").rglob("*.png"):
        path.unlink()
    pair("n", 90)
    for step in (lambda: look(p), lambda: ingest(p.data, work=Path("work"))):
        with pytest.raises(DataError, match=r"source: data.source is empty, but was not before[\s\S]*mount"):
            step()
    Path("data/ingested/catalog.parquet").unlink()
    Path("splits").mkdir()
    Path("splits/tiny.csv").write_text('# decided with {}\ngroup,split,reason\nb0,train,x\n"a,0",test,y\n')
    with pytest.raises(DataError, match=r"in no batch \(a,0\)"):
        require_source(built(p), p.data)
    Path("splits/tiny.csv").unlink()
    require_source(built(p), p.data)


def test_a_missing_source_stays_an_error(here):
    p = project(here)
    batch(p, "20260101-aaaaaaaa", "2026-01-01T00:00:00+00:00", {"b0": 60})
    Path("source").rename("elsewhere")
    pair("n", 90)
    with pytest.raises(DataError, match="no such folder"):
        look(p)


def test_a_batch_that_is_not_on_this_machine_is_named(here):
    p = project(here)
    folder = batch(p, "20260101-aaaaaaaa", "2026-01-01T00:00:00+00:00", {"b0": 60})
    folder.with_name(f"{folder.name}.dvc").write_text("outs: []")
    pair("same", 60)
    assert look(p).known == ["same"]
    folder.rename("elsewhere")
    with pytest.raises(StageError, match=r"20260101-aaaaaaaa are not on this machine[\s\S]*dvc pull"):
        look(p)


def test_what_receiving_has_read_the_ingest_reads_no_more(here):
    p = project(here)
    read_accepted(p.data, here / "scratch")
    stamps = {path.name: path.stat().st_mtime_ns for path in Path("work/ingest/tiny/items").iterdir()}
    ingest(p.data, work=Path("work"))
    assert stamps == {path.name: path.stat().st_mtime_ns for path in Path("work/ingest/tiny/items").iterdir()}
    assert len(stamps) == 3


def test_without_news_nothing_accepted_is_read(here):
    p = project(here)
    assert look(p).text() == "0 would be accepted" and not Path("work/ingest").exists()


def test_the_command_prints_what_would_be_accepted_and_changes_nothing(here):
    project(here)
    pair("n", 90)
    Path("params.yaml").write_text(yaml.safe_dump(values_for("source")))
    before = {path for path in here.rglob("*") if "work" not in path.parts}
    command = [sys.executable, "-m", "tasks", "receive", "--dry-run"]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(command, env={"PYTHONPATH": root, "PATH": ""}, capture_output=True, text=True)
    assert "1 would be accepted as batch" in done.stdout, done.stdout + done.stderr
    assert before == {path for path in here.rglob("*") if "work" not in path.parts}
    assert sorted(path.name for path in Path("work/receive/tiny").iterdir()) == ["lock"]
