"""The report of data with objects: leaderboard, charts, counts and the gallery of outlines."""

import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segcore.comparison.objects import lines
from segcore.comparison.results import Comparison, Score, read_comparison
from segcore.constants import IGNORE
from segcore.metrics import METRICS, OBJECT_POLICY
from segcore.params import Params
from segcore.plots import charts
from segcore.plots.object_gallery import STATUS_COLOURS
from tasks import report as stage
from tasks.reporting.inputs import read_inputs
from tasks.reporting.leaderboard import axis_of
from tasks.reporting.objects import object_cases, object_runs, objects_text
from tests.support.fake_project import FakePrepared, build_project, scene_patches
from tests.tasks.test_report import _params, _Tags

LIMIT = "Perfect mask, components"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params, FakePrepared]:
    root, prepared = tmp_path_factory.mktemp("project"), scene_patches(blocks=6, has_objects=True)
    build_project(root, prepared, _params(prepared))
    stage.report(root, _params(prepared), prepared)
    return root, _params(prepared), prepared


@pytest.fixture(scope="module")
def texts(project: tuple[Path, Params, FakePrepared]) -> dict[str, str]:
    return {
        file.name: file.read_text(encoding="utf-8")
        for file in (project[0] / "reports/buildings").iterdir()
        if file.is_file()
    }


def _comparison(root: Path) -> Comparison:
    return read_comparison(root / "comparison/comparison.json")


def _section(page: str, name: str) -> str:
    start = page.index(f'<section id="{name}">')
    return html.unescape(page[start : page.index("</section>", start)])


def _check(page: str) -> None:
    tags = _Tags()
    tags.feed(page)
    assert not tags.wrong and not tags.open
    ids = [a["id"] for _, a in tags.found if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a[k] or "" for _, a in tags.found for k in ("src", "href", "xlink:href") if k in a]
    assert all(link.startswith(("data:", "#")) for link in links)
    assert {link[1:] for _, a in tags.found if (link := a.get("href") or "").startswith("#")} <= set(ids)
    assert all(a.get("alt") for tag, a in tags.found if tag == "img" and a.get("src"))


def test_the_page_is_well_formed_and_has_the_sections(texts: dict[str, str]) -> None:
    page = texts["index.html"]
    _check(page)
    assert '<a href="#objects">' in page and "#objects-detail:checked" in page
    section = _section(page, "objects")
    assert section.count('<svg class="chart"') == 4
    for heading in (
        "Object scores",
        "F1 against IoU threshold",
        "Counts",
        "Found by size",
        "Operating score",
    ):
        assert f"<h3>{heading}</h3>" in section
    for caption in re.findall(r"<figcaption>(.*?)</figcaption>", section):
        assert re.search(r"pooled|Pooled|One dot per block", caption), caption


def test_the_policy_is_printed_under_the_figures_and_in_the_short_forms(texts: dict[str, str]) -> None:
    assert OBJECT_POLICY in _section(texts["index.html"], "objects")
    assert OBJECT_POLICY in texts["report.md"] and OBJECT_POLICY in texts["scores.md"]


def test_pixels_and_objects_are_columns_of_the_leaderboard(project, texts: dict[str, str]) -> None:
    pixels, objects = _section(texts["index.html"], "leaderboard").split('<table class="objects">')
    for row in _comparison(project[0]).models:
        of_pixels, of_objects = (
            next(line for line in table.split("<tr") if f"</i>{row.title}</th>" in line)
            for table in (pixels, objects)
        )
        assert f">{100 * row.scores['iou/dataset/foreground_mean'].estimate:.1f}<" in of_pixels
        for key in ("pq", "f1_50", "ap", "count_error"):
            score = row.scores[f"{key}/dataset/foreground_mean"]
            assert f">{100 * score.estimate:.1f}<" in of_objects, key
            assert f">{100 * score.low:.1f} to {100 * score.high:.1f}<" in of_objects, key


def test_the_limit_is_a_row_apart_without_rank_or_whisker(project, texts: dict[str, str]) -> None:
    table = _section(texts["index.html"], "leaderboard")
    (row,) = re.findall(r'<tr class="limit">.*?</tr>', table, re.DOTALL)
    assert LIMIT in row and "limit of components" in row and "<svg" not in row
    assert row in table.split('<table class="objects">')[1]
    # the axis does not reach to the 100 % of perfect masks
    shown = [row for row in _comparison(project[0]).leaderboard if row.kind != "limit"]
    axis = axis_of([row.scores["iou/dataset/foreground_mean"] for row in shown], METRICS["iou"])
    assert re.findall(r"<span>([\d.]+) %</span>", table) == [f"{100 * end:.1f}" for end in axis]


def test_counts_are_sentences_with_intervals_and_a_table(project, texts: dict[str, str]) -> None:
    comparison = _comparison(project[0])
    for sentence in lines(comparison)[:-1]:
        assert f"- {sentence}" in texts["report.md"] and f"- {sentence}" in texts["scores.md"]
    section = _section(texts["index.html"], "objects")
    assert lines(comparison)[0] in section.replace("\N{NON-BREAKING HYPHEN}", "-").replace(
        "\N{NO-BREAK SPACE}", " "
    )
    for count in comparison.objects.counts["unet"].values():
        assert (
            f">{count['predicted']:,.0f}<" in section
            and f"{count['low']:,.0f} to {count['high']:,.0f}" in section
        )


def test_the_splits_state_how_many_test_objects_count(project, texts: dict[str, str]) -> None:
    required = sum(count["true"] for count in _comparison(project[0]).objects.counts["unet"].values())
    note = "Scores and counts of the test images are of true objects with more than half of their area in a scored"
    assert f"{note} region ({required:,.0f}). Others may" in _section(texts["index.html"], "data")


def test_the_operating_score_has_figures_of_test_and_validation(project) -> None:
    comparison = _comparison(project[0])
    row = objects_text(comparison)["operating"][0]
    pooled = comparison.objects.pooled[comparison.models[0].architecture]
    assert row["score"] == "0.50"
    assert [cell["validation"] for cell in row["cells"]] == ["91.0", "84.0", "−5.0"]
    shown = [f"{100 * pooled[name]:.1f}" for name in ("precision", "recall")]
    assert [cell["test"] for cell in row["cells"]][:2] == shown


def test_an_operating_score_that_was_not_chosen_is_a_dash(project) -> None:
    comparison = _comparison(project[0])
    nothing = dict.fromkeys(("score", "precision", "recall", "count_bias"))
    objects = replace(comparison.objects, operating=dict.fromkeys(comparison.objects.operating, nothing))
    row = objects_text(replace(comparison, objects=objects))["operating"][0]
    assert row["score"] == "–" and {cell["validation"] for cell in row["cells"]} == {"–"}


def test_every_picture_counts_what_is_in_its_table(project) -> None:
    inputs = read_inputs(*project)
    runs = object_runs(inputs)
    cases = object_cases(inputs, runs)
    assert [case.kind for case in cases][:4] == ["best", "best", "typical", "typical"]
    for case in cases:
        label = project[2].read(case.item).label
        # numbers of the table, from 1 in the order of first pixels
        numbers = case.truth[case.truth > 0]
        assert list(dict.fromkeys(numbers)) == list(range(1, len(case.required) + 1))
        assert not (case.truth[label == IGNORE]).any()
        rows = runs["unet"].table.query(f"kind == 'truth' and item == '{case.item}'").set_index("truth")
        for number, row in rows.iterrows():
            inside = np.argwhere(case.truth == number)
            assert len(inside) == row["area"] and tuple(inside.min(0)) == (row["row"], row["col"])
        for name, outcome in case.outcomes.items():
            table = runs[name].table
            of_image = table[table["item"] == case.item]
            counts = outcome.counts(case.required)
            true = of_image[of_image["kind"] == "truth"]
            assert sum(counts.values()) - counts["false"] == (~true["out"].astype(bool)).sum()
            others = sum(counts.values()) - counts["found"]
            assert outcome.f1 == pytest.approx(2 * counts["found"] / (2 * counts["found"] + others))
            drawn = {int(n) for n in np.unique(outcome.numbers) if n}
            assert drawn == set(outcome.predictions)
            for number in drawn:
                row = of_image[of_image["prediction"].eq(number) & of_image["kind"].eq("prediction")].iloc[0]
                assert (outcome.numbers == number).sum() == row["area_full"]
                assert row["score"] >= 0.5


def test_figures_for_the_tracker_have_charts_and_outlines(project) -> None:
    figures = stage.figures(read_inputs(*project))
    assert {"object_scores", "object_f1", "object_counts", "object_sizes"} <= set(figures)
    assert any(name.startswith("objects_01_best") for name in figures)


def _report(folder: Path, prepared: FakePrepared, **settings: str) -> dict[str, str]:
    params = _params(prepared)
    compare = params.compare.model_copy(update=settings)
    params = params.model_copy(update={"compare": compare})
    build_project(folder, prepared, params)
    out = stage.report(folder, params, prepared)
    written = {file.name: file.read_text(encoding="utf-8") for file in out.iterdir() if file.is_file()}
    _check(written["index.html"])
    return written


def test_images_without_any_object(tmp_path: Path) -> None:
    prepared = scene_patches(has_objects=True)
    for name, numbers in prepared.instances.items():
        numbers[:] = 0
        label = prepared.patches[name].label
        label[label != IGNORE] = 0
    page = _report(tmp_path, prepared)["index.html"]
    assert "Found by size" not in page and "No test image with true objects" in page


def test_one_cluster(tmp_path: Path) -> None:
    prepared = scene_patches(has_objects=True)
    prepared.regions["cluster"] = "all"
    page = _report(tmp_path, prepared)["index.html"]
    section = _section(page, "objects")
    assert "counted by" in section


def test_without_validation_counts_a_count_has_no_interval(project) -> None:
    comparison = _comparison(project[0])
    without = {
        name: {of: count | {"low": None, "high": None} for of, count in by_class.items()}
        for name, by_class in comparison.objects.counts.items()
    }
    replaced = replace(comparison, objects=replace(comparison.objects, counts=without))
    shown, before = objects_text(replaced), objects_text(comparison)
    assert before["counts"]["has_intervals"] and "corrected by" in before["lead"]
    assert not shown["counts"]["has_intervals"] and "corrected by" not in str(shown)


def test_without_kept_predictions_there_is_no_gallery(project, tmp_path: Path) -> None:
    root, params, prepared = project
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    for file in copy.glob("evaluations/*/predictions/*"):
        file.unlink()
    page = (stage.report(copy, params, prepared) / "index.html").read_text()
    _check(page)
    assert "No test image with true objects has stored objects" in page


def test_several_classes_have_a_row_each_and_no_colour_that_could_be_a_status(tmp_path: Path) -> None:
    prepared = scene_patches(classes=4, has_objects=True)
    page = _report(tmp_path, prepared)["index.html"]
    section = _section(page, "objects")
    assert all(f'<th scope="row">{name}</th>' in section for name in ("building", "road", "water"))
    rings = {"#{:02x}{:02x}{:02x}".format(*rgb) for rgb in STATUS_COLOURS.values()}
    assert set(re.findall(r"--ring:(#[0-9a-f]{6})", page)) <= rings


@pytest.mark.parametrize("metric", ["pq", "count_error", "count_bias", "count_error_area"])
def test_a_ranking_by_objects_has_the_limit_on_its_axis(tmp_path: Path, metric: str) -> None:
    page = _report(tmp_path, scene_patches(has_objects=True), metric=metric)["index.html"]
    table = _section(page, "leaderboard")
    row, _ = re.findall(r'<tr class="limit">.*?</tr>', table, re.DOTALL)
    assert "<svg" in row and "Pixels, foreground (%)" in table
    assert f"Objects ({METRICS[metric].unit})" in table
    assert table.count("(objects/Mpx)") >= (3 if metric == "count_error_area" else 1)
    direction = {"pq": "Up", "count_bias": "Closer to 0"}.get(metric, "Down")
    assert f"{direction} is better, left" in page and "0.0 in errors of objects" in page
    for x in re.findall(r'(?:x1|x2|cx)="([-\d.]+)%"', table):
        assert -0.1 <= float(x) <= 100.1


def test_axes_show_errors_of_100_per_cent_and_scores_that_are_all_0(project) -> None:
    error, bias = METRICS["count_error"], METRICS["count_bias"]
    assert axis_of([Score(0.98, 0.9, 1.0, None)], error)[1] > 1.0
    assert axis_of([Score(0.98, 0.9, 1.0, None)], METRICS["pq"])[1] == 1.0
    assert axis_of([Score(-0.2, -0.3, -0.1, None)], bias)[0] < -0.3
    comparison = _comparison(project[0])
    key = "count_error/dataset/foreground_mean"
    zeros = [replace(row, scores={key: Score(0.0, 0.0, 0.0, None)}) for row in comparison.leaderboard]
    nothing = replace(comparison, metric="count_error", headline=key, leaderboard=zeros)
    low, high = charts.accuracy_cost(nothing, {}).axes[0].get_ylim()
    assert low > -0.1 and high == 1
    assert charts.grouped_bars(nothing, {key: "Count error"}).axes[0].get_xlim() == (0, 1)


def test_truth_of_components_is_named(project, tmp_path: Path) -> None:
    root, params, prepared = project
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    path = copy / "comparison/comparison.json"
    content = json.loads(path.read_text())
    content["objects"]["truth"] = "components"
    content["leaderboard"] = [row for row in content["leaderboard"] if row["kind"] != "limit"]
    path.write_text(json.dumps(content))
    page = (stage.report(copy, params, prepared) / "index.html").read_text()
    assert "favours methods by components" in _section(page, "objects")
    assert 'class="limit"' not in page and "Dashed:" not in _section(page, "objects")


def test_reports_of_data_without_objects_have_nothing_of_them(tmp_path: Path) -> None:
    prepared = scene_patches()
    build_project(tmp_path, prepared, _params(prepared))
    folder = stage.report(tmp_path, _params(prepared), prepared)
    for name in ("index.html", "report.md", "scores.md"):
        # without pictures, and without the list of all parameters
        text = re.sub(
            r"data:image/[^\"]+|All parameters</summary>.*?</pre>",
            "",
            (folder / name).read_text(),
            flags=re.S,
        )
        assert not re.search(r"objects?\b|tr\.limit|rings|outline(?!: 2px)", text, re.IGNORECASE), name
    assert not (tmp_path / "evaluations/unet-0/objects.parquet").exists()
    assert objects_text(_comparison(tmp_path)) is None


def test_a_missing_object_table_is_named(project, tmp_path: Path) -> None:
    root, params, prepared = project
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    (copy / "evaluations/unet-0/objects.parquet").unlink()
    with pytest.raises(Exception, match=r"objects.parquet(.|\n)*dvc repro evaluate@unet-0"):
        stage.report(copy, params, prepared)


def test_the_data_section_counts_the_objects_of_each_split(project, texts: dict[str, str]) -> None:
    prepared = project[2]
    section = _section(texts["index.html"], "data")
    for split, regions in prepared.regions.groupby("split"):
        number = prepared.objects["region"].isin(regions["id"]).sum()
        (row,) = re.findall(rf"</span>{split}</th>.*?</tr>", section, re.DOTALL)
        assert f"<td>{number:,}</td>" in row
    assert prepared.objects["region"].isin(prepared.regions["id"]).any()


def test_objects_that_may_be_found_or_not_are_named_apart(project, tmp_path: Path) -> None:
    root, params, prepared = project
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    for file in copy.glob("evaluations/*/objects.parquet"):
        table = pd.read_parquet(file)
        table["out"] |= table["kind"].eq("truth") & table["truth"].eq(1)
        table.to_parquet(file, index=False)
    page = (stage.report(copy, params, prepared) / "index.html").read_text()
    inputs = read_inputs(copy, params, prepared)
    cases = object_cases(inputs, object_runs(inputs))
    for case in cases:
        true = len(case.required) - 1
        assert sum(case.required.values()) == true
        assert f"{case.item} · {true} true object{'s' * (true != 1)} and 1 that may be found or not ·" in page
        for outcome in case.outcomes.values():
            counts = outcome.counts(case.required)
            assert sum(counts.values()) - counts["false"] == true
            others = sum(counts.values()) - counts["found"]
            assert outcome.f1 == pytest.approx(2 * counts["found"] / max(2 * counts["found"] + others, 1))
    assert cases


def test_seeds_are_read_with_their_own_table(project) -> None:
    run = read_inputs(*project).first_runs["unet"]
    assert isinstance(run.objects, pd.DataFrame) and set(run.objects["kind"]) >= {
        "image",
        "truth",
        "prediction",
    }
