"""The report of a comparison of semantic and instance networks."""

import html
import re
from pathlib import Path

import pytest

from segcore.params import Params
from segcore.plots import charts
from tasks import report as stage
from tasks.reporting.inputs import read_inputs
from tests.support.fake_project import BOTH_KINDS, INSTANCE, FakePrepared, build_project, scene_patches
from tests.tasks.reporting.test_objects import _check, _section
from tests.tasks.test_report import _params


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params, FakePrepared]:
    root, prepared = tmp_path_factory.mktemp("project"), scene_patches(blocks=6, has_objects=True)
    params = _params(prepared).model_copy(update={"architectures": list(BOTH_KINDS)})
    params.train["mask_rcnn"] = {"model": {"width": 64, "anchors": "auto"}}
    build_project(root, prepared, params, skill=BOTH_KINDS)
    stage.report(root, params, prepared)
    return root, params, prepared


@pytest.fixture(scope="module")
def page(project: tuple[Path, Params, FakePrepared]) -> str:
    text = (project[0] / "reports/buildings/index.html").read_text(encoding="utf-8")
    _check(text)
    return text


def test_both_tables_state_kind_and_origin_of_objects(page: str) -> None:
    for table in _section(page, "leaderboard").split('<table class="objects">')[:2]:
        kinds = dict(re.findall(r"</i>([^<]+)<small>((?:semantic|instance)[^<]*)</small>", table))
        own = "instance, own objects"
        assert kinds == {"U-Net": "semantic, components", "Mask R-CNN": own, "SOLOv2": own}
    assert "comparison of semantic and instance segmentation" in page


def test_short_forms_state_kind_and_origin_of_objects(project: tuple[Path, Params, FakePrepared]) -> None:
    for name in ("report.md", "scores.md"):
        text = (project[0] / "reports/buildings" / name).read_text()
        rows = {line.split(" | ")[1]: line for line in text.splitlines() if line.startswith("| ")}
        assert "| instance, own objects |" in rows["Mask R-CNN"], name
        assert "| semantic, components |" in rows["U-Net"], name


def test_each_validation_score_has_its_panel(project: tuple[Path, Params, FakePrepared], page: str) -> None:
    inputs = read_inputs(*project)
    figure = charts.learning_curves({run.name: run.history for run in inputs.runs}, inputs.titles)
    shown = {axes.get_title(loc="left"): [line.get_text() for line in _legend(axes)] for axes in figure.axes}
    assert shown == {
        "Validation IoU of the foreground (%)": ["U-Net"],
        "Validation PQ of the objects (%)": ["Mask R-CNN", "SOLOv2"],
        "Loss: validation (strong), training (pale)": [],
    }
    assert "PQ of all objects at the best score (instance networks)" in _section(page, "learning")


def _legend(axes) -> list:
    legend = axes.get_legend()
    return legend.get_texts() if legend else []


def test_settings_of_instance_networks_are_listed(page: str) -> None:
    section = _section(page, "reproduce")
    table = section[section.index("Settings of the instance networks") :]
    rows = {
        name: re.findall(r"<td>(.*?)</td>", cells)
        for name, cells in re.findall(r'<tr><th scope="row">(\w+)</th>(.*?)</tr>', table, re.DOTALL)
    }
    origin = '{}<small class="muted">{}</small>'.format
    assert rows["anchors"] == ["16, 32", "–"]
    assert rows["cells"] == ["–", "8, 16"]
    assert rows["width"] == [origin("64", "set"), "64"] and "encoder" not in rows and "foreground" not in rows
    assert re.findall(r"<td>(IoU|PQ)</td>", section) == ["IoU", "PQ", "PQ"]


def test_few_steps_are_named_beside_the_verdict(
    project: tuple[Path, Params, FakePrepared], page: str
) -> None:
    sentence = "200 steps show the procedure, not what the instance networks reach."
    assert sentence in page[: page.index('<div class="tiles">')] and page.count(sentence) == 1
    for name in ("report.md", "scores.md"):
        text = (project[0] / "reports/buildings" / name).read_text()
        assert sentence in text.splitlines()[2], name


def test_the_first_sentence_of_the_verdict_is_the_heading(page: str) -> None:
    heading, rest = re.search(
        r"<h1[^>]*>(.*?)</h1>\s*<p class=\"verdict\">(.*?)</p>", page, re.DOTALL
    ).groups()
    assert ". " not in heading and heading.endswith(".")
    assert "between semantic and instance networks" in rest or "hese data need" in rest


def test_the_numbers_behind_costs_and_confidences_are_stated(page: str) -> None:
    assert "for a 256 × 256 crop, Mask R-CNN with 200 proposals." in _section(page, "leaderboard")
    assert "the confidence of a pixel is the score of its object" in _section(page, "trust")


def test_outlines_are_of_every_kind(page: str) -> None:
    texts = html.unescape(_section(page, "outlines"))
    for title in ("U-Net", "Mask R-CNN", "SOLOv2"):
        assert re.search(rf'alt="[^"]*: {re.escape(title)}, F1 [\d.]+ %: \d+ found', texts), title


def test_instance_networks_alone_have_nothing_of_semantic_ones(tmp_path: Path) -> None:
    prepared = scene_patches(has_objects=True)
    alone = {name: BOTH_KINDS[name] for name in INSTANCE}
    params = _params(prepared).model_copy(update={"architectures": list(alone)})
    build_project(tmp_path, prepared, params, skill=alone)
    text = (stage.report(tmp_path, params, prepared) / "index.html").read_text(encoding="utf-8")
    _check(text)
    assert "comparison of instance segmentation" in text
    assert "IoU" not in _section(text, "learning") and "semantic networks" not in text
    assert "set evaluate.objects" not in text and "Selected by" in text


def test_semantic_networks_alone_have_nothing_of_instance_networks(tmp_path: Path) -> None:
    prepared = scene_patches(has_objects=True)
    build_project(tmp_path, prepared, _params(prepared))
    text = (stage.report(tmp_path, _params(prepared), prepared) / "index.html").read_text(encoding="utf-8")
    plain = re.sub(r"All parameters</summary>.*?</pre>", "", text, flags=re.DOTALL)
    assert "comparison of semantic segmentation" in plain
    assert not re.search(r"instance network|Selected by|\bPQ of all", plain)
