"""A page is current only for the comparison and the decisions that it shows."""

from pathlib import Path

from tasks import report as stage
from tasks.promotion.record import record_path, write_record
from tasks.reporting.age import is_current, trained_since
from tests.support.fake_project import build_project, scene_patches
from tests.tasks.reporting.test_champion import _record
from tests.tasks.test_report import _params


def test_a_page_is_older_than_a_later_decision_and_a_later_comparison(tmp_path: Path) -> None:
    prepared = scene_patches()
    params = _params(prepared)
    build_project(tmp_path, prepared, params)
    page = stage.report(tmp_path, params, prepared) / "index.html"
    assert is_current(page, tmp_path, "buildings")
    record = _record(tmp_path)
    write_record(record_path(tmp_path, "buildings", record.key), record)
    assert not is_current(page, tmp_path, "buildings")
    stage.report(tmp_path, params, prepared)
    assert is_current(page, tmp_path, "buildings")
    comparison = tmp_path / "comparison/comparison.json"
    comparison.write_text(comparison.read_text() + "\n")
    assert not is_current(page, tmp_path, "buildings")
    page.write_text("<html>of an earlier version</html>")
    assert not is_current(page, tmp_path, "buildings")
    assert not is_current(tmp_path / "absent.html", tmp_path, "buildings")


def test_a_decision_on_earlier_weights_is_named(tmp_path: Path) -> None:
    prepared = scene_patches()
    params = _params(prepared)
    build_project(tmp_path, prepared, params)
    record = _record(tmp_path)
    one = record.challengers[0]
    name = f"{one.architecture}-{one.seed}"
    assert trained_since(record, {name: one.weights_sha256, "other-0": "x"}) == ""
    text = trained_since(record, {name: "of another training"})
    assert text.startswith(f"Since this decision {one.title} (seed {one.seed}) was trained again")
    write_record(record_path(tmp_path, "buildings", record.key), record)
    page = (stage.report(tmp_path, params, prepared) / "index.html").read_text()
    assert "Decided 20" in page and "on batch b2" in page
    assert ("trained again" in page) == (one.weights_sha256 != "unet".ljust(64, "0"))
