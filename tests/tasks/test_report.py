"""The report stage on a small synthetic project: three self-contained, deterministic files."""

import html
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from segcore.comparison.results import PairTest, read_comparison
from segcore.errors import StageError
from segcore.metrics import EMPTY_POLICY, METRICS, score_title
from segcore.params import Params
from tasks import report as stage
from tasks.costs import cost_file, mean_cost, merge_cost
from tasks.formatting import amount, chance, duration, points, unbroken
from tasks.reporting import rows
from tasks.reporting.inputs import gallery_cases, read_inputs
from tasks.reporting.rows import pair_text
from tasks.versioning.stages import data_version
from tests.support.fake_project import FakePrepared, build_project, scene_patches

COLORS = [[38, 50, 56], [255, 179, 0], [76, 175, 80], [33, 150, 243]]


def _params(prepared: FakePrepared) -> Params:
    count = len(prepared.classes)
    return Params.model_validate(
        {
            "architectures": ["fcn", "unet", "deeplab"],
            "seeds": [0],
            "data": {
                "name": "buildings",
                "source": "samples/buildings.yaml",
                "classes": prepared.classes,
                "colors": COLORS[:count],
                "label_values": {i: i for i in range(count)},
            },
            "split": {"fractions": {"train": 0.5, "validation": 0.25, "test": 0.25}},
            "prepare": {"window": 32, "stride": 16},
            "train": {
                "common": {"steps": 200, "batch": 8, "crop": 32, "validate_every": 25},
                "unet": {"learning_rate": 0.002},
            },
            "compare": {"bootstrap": 200, "permutations": 200},
        }
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params, FakePrepared]:
    root, prepared = tmp_path_factory.mktemp("project"), scene_patches()
    build_project(root, prepared, _params(prepared))
    stage.report(root, _params(prepared), prepared)
    return root, _params(prepared), prepared


@pytest.fixture(scope="module")
def page(project: tuple[Path, Params, FakePrepared]) -> str:
    return (project[0] / "reports" / "buildings" / "index.html").read_text(encoding="utf-8")


# of nine test regions, one is of bergen
WORDS = {"site": ["bergen", *["oslo", "<b>|"] * 4], "sensor": ["s1", "s2", "s2"]}


@pytest.fixture(scope="module")
def sliced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of a project whose data patterns have two words."""
    root, prepared = tmp_path_factory.mktemp("sliced"), scene_patches(3, blocks=6)
    build_project(root, prepared, _params(prepared), words=WORDS)
    return stage.report(root, _params(prepared), prepared)


class _Tags(HTMLParser):
    """Attributes of every tag, and whether tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "img", "input", "br", "path", "use", "line", "circle"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in {"path", "use", "line", "circle"}:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_page_makes_no_network_request(page: str) -> None:
    tags = _Tags()
    tags.feed(page)
    links = [
        a[k] or "" for _, a in tags.found for k in ("src", "href", "xlink:href", "action", "data") if k in a
    ]
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"@import|url\((?!#)", page)
    assert len(page) < 6_000_000


def test_page_is_well_formed_and_every_picture_has_an_alt_text(page: str) -> None:
    tags = _Tags()
    tags.feed(page)
    assert not tags.wrong and not tags.open
    pictures = [a for tag, a in tags.found if tag == "img" and a.get("src")]
    assert pictures and all(a.get("alt") for a in pictures)
    ids = [a["id"] for _, a in tags.found if "id" in a]
    assert len(ids) == len(set(ids))
    assert {link[1:] for _, a in tags.found if (link := a.get("href") or "").startswith("#")} <= set(ids)


def test_slices_are_tables_with_intervals_after_the_leaderboard(sliced: Path) -> None:
    page = (sliced / "index.html").read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(page)
    assert not tags.wrong and not tags.open and ("a", {"href": "#slices"}) in tags.found
    section = page[page.index('id="slices"') : page.index('id="cost"')]
    assert page.index('id="leaderboard"') < page.index('id="slices"')
    assert "By site" in section and "By sensor" in section and "&lt;b&gt;|" in section
    slices = read_comparison(sliced.parents[1] / "comparison/comparison.json").slices
    texts = html.unescape(section)
    for one in slices:
        for score in one.scores.values():
            assert f">{100 * score.estimate:.1f}<" in texts
            if one.clusters > 1:
                assert f"{100 * score.low:.1f} to {100 * score.high:.1f}" in texts
    assert {one.clusters for one in slices} > {1} and "no interval from one block" in section
    # one dot per architecture and slice
    assert section.count("<circle") == 3 * len(slices)


def test_slices_are_tables_in_the_short_form_and_cannot_break_them(sliced: Path) -> None:
    lines = (sliced / "report.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| site | test images | U-Net | DeepLabV3+ | FCN-8s |")
    rows = {line.split(" | ")[0]: line for line in lines[start + 2 : start + 5]}
    assert list(rows) == ["| &lt;b&gt;\\|", "| bergen", "| oslo"]
    assert all(row.replace("\\|", "").count("|") == 6 for row in rows.values())
    assert "Slices" not in (sliced / "scores.md").read_text(encoding="utf-8")


def test_a_page_of_data_without_words_has_no_section_on_slices(page: str, project) -> None:
    short = (project[0] / "reports" / "buildings" / "report.md").read_text(encoding="utf-8")
    assert 'id="slices"' not in page and "#slices" not in page and "Slices" not in page + short


def test_page_opens_with_the_verdict_and_shows_every_architecture(page: str, project) -> None:
    comparison = json.loads((project[0] / "comparison" / "comparison.json").read_text())
    first = page[page.index("<h1") : page.index('<div class="tiles">')]
    shown = html.unescape(re.sub(r"<[^>]*>", "", first)).split()
    assert " ".join(shown) == " ".join(unbroken(comparison["verdict"]).split())
    assert page.index("<h1") < page.index("<table>")
    for row in comparison["leaderboard"]:
        assert row["title"] in page
    assert "Second annotator" in page and "human, for comparison" in page


def test_whether_scores_were_still_rising_stands_in_the_verdict_and_beside_the_curves(
    page: str, project
) -> None:
    links = '<a href="#learning">Validation scores</a>'
    verdict = page[page.index('<p class="verdict">') : page.index('<div class="tiles">')]
    assert f"{links} were still rising in the last third of the 200 steps: " in verdict
    assert page.count(links) == 1
    learning = html.unescape(page[page.index('id="learning"') : page.index('id="trust"')])
    for title in ("U-Net", "DeepLabV3+", "FCN-8s"):
        pattern = rf"{re.escape(unbroken(title))} [+−]\d\.\d points, (still rising|levelled off)"
        assert re.search(pattern, learning), title
    for name in ("report.md", "scores.md"):
        text = (project[0] / "reports/buildings" / name).read_text(encoding="utf-8")
        assert text.splitlines()[2].count("Validation scores were still rising") == 1


def test_both_empty_policy_is_printed(page: str) -> None:
    assert html.escape(EMPTY_POLICY.rstrip(".")) in page


def test_means_with_and_without_background_are_printed_and_labelled(page: str) -> None:
    assert "IoU, mean of the foreground classes (pooled pixels)" in page
    assert "IoU, mean with background (pooled pixels)" in page


def test_every_figure_caption_names_its_aggregation(page: str) -> None:
    for caption in re.findall(r'<figure class="charts">.*?<figcaption>(.*?)</figcaption>', page, re.DOTALL):
        assert re.search(r"pooled|[Tt]est pixels", caption), caption
    assert "mean of the images&#39; own scores" in page or "mean of the images' own scores" in page
    assert "boundary pixels found within 2 px" in page


@pytest.mark.parametrize("significant", [True, False])
def test_a_lead_that_is_not_shown_is_not_printed_as_one(project, significant: bool) -> None:
    comparison = read_comparison(project[0] / "comparison" / "comparison.json")
    tests = [replace(test, significant=significant) for test in comparison.tests]
    comparison = replace(comparison, tests=tests)
    tile = rows._lead_tile(comparison)
    assert tile["label"].startswith("ahead of " if significant else "between ")
    assert tile["value"].startswith("+") == significant


def test_what_is_corrected_for_all_pairs_is_named(project, page: str) -> None:
    """Otherwise an interval that excludes 0 contradicts the words "not shown"."""
    comparison = read_comparison(project[0] / "comparison" / "comparison.json")
    sentence = rows.scores_view(comparison)["corrected"]
    assert "p (Holm)" in sentence and "intervals are not" in sentence
    assert sentence in page[page.index('<section id="tests">') :]
    assert sentence in (project[0] / "reports/buildings/report.md").read_text()
    assert rows.scores_view(replace(comparison, tests=comparison.tests[:1]))["corrected"] == ""
    tests = [replace(test, significant=True) for test in comparison.tests]
    assert "p after Holm" in rows._lead_tile(replace(comparison, tests=tests))["note"]


def test_parts_of_divided_scenes_are_not_called_images(page: str) -> None:
    splits = page.partition("<h3>Splits</h3>")[2].partition("</thead>")[0]
    assert "<th>Regions</th><th>Blocks</th>" in splits and "Images" not in splits


def test_several_lines_of_one_colour_are_explained(project, page: str, tmp_path: Path) -> None:
    root, params, prepared = project
    words = "One line per seed; those of a network have one colour."
    assert words not in page
    copy = Path(shutil.copytree(root, tmp_path / "seeds"))
    path = copy / "comparison/comparison.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seeds": [0, 1]}))
    for run in [*copy.glob("models/*-0"), *copy.glob("evaluations/*-0")]:
        shutil.copytree(run, run.with_name(run.name.replace("-0", "-1")))
    assert words in (stage.report(copy, params, prepared) / "index.html").read_text()


def test_settings_that_differ_are_printed(page: str) -> None:
    assert "Settings that differ" in page and "learning_rate" in page and "0.002" in page


def test_no_difference_shown_is_a_verdict() -> None:
    test = PairTest("unet", "fcn", -0.012, -0.03, 0.01, 0.4, 0.4, significant=False)
    words = pair_text(test, {}, METRICS["iou"])
    assert words == "No difference shown between fcn and unet: a gap of 1.2 points can be chance."
    shown = replace(test, significant=True)
    assert pair_text(shown, {}, METRICS["iou"]) == "fcn is better than unet by 1.2 points."
    lower_is_better = replace(METRICS["iou"], higher_is_better=False)
    assert pair_text(shown, {}, lower_is_better) == "unet is better than fcn by 1.2 points."


def test_speed_is_printed_with_warm_up_batch_precision_and_device(page: str) -> None:
    assert re.search(r"after warm-up passes, device synchronised.*batch 1, fp32 on cpu, 2 threads", page)


def test_a_page_of_one_architecture_has_no_empty_table(project, tmp_path: Path) -> None:
    root, params, prepared = project
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    path = copy / "comparison" / "comparison.json"
    content = json.loads(path.read_text())
    content["leaderboard"] = [row for row in content["leaderboard"] if row["architecture"] == "unet"]
    path.write_text(json.dumps(content | {"tests": [], "differences": {}}))
    folder = stage.report(copy, params.model_copy(update={"architectures": ["unet"]}), prepared)
    page, short = ((folder / name).read_text() for name in ("index.html", "report.md"))
    assert "<tbody></tbody>" not in re.sub(r"\s", "", page) and "#tests" not in page
    assert "Settings that differ" not in page and " compared" not in page and "## Differences" not in short


def test_no_network_is_the_fastest_where_the_rounds_do_not_show_it(project, tmp_path: Path) -> None:
    root, params, prepared = project

    def page(low: float, high: float, moment: str = "1") -> str:
        copy = tmp_path / f"{low}-{high}-{moment}"
        shutil.copytree(root, copy)
        for name, median in (("fcn", 40.0), ("unet", 50.0), ("deeplab", 60.0)):
            ends = {"latency_low_ms": low * median, "latency_high_ms": high * median, "latency_rounds": 9}
            key = moment if name == "fcn" else "1"
            side = {"key": key, "latency_ms": median, "ms_per_megapixel": 4 * median, **ends}
            side |= {"latency_tile": 512, "latency_batch": 1, "precision": "fp32", "device": "CPU"}
            merge_cost(copy, f"{name}-0", {"side_by_side": side})
        return (stage.report(copy, params, prepared) / "index.html").read_text()

    shown = page(0.95, 1.04)
    assert (
        "the fastest here" in shown and "160.0<small" in shown.replace("\n", "") and "152.0 to 166.4" in shown
    )
    assert "median and middle half of 9 rounds" in shown
    for other, why in (
        (page(0.8, 1.1), "no order shown: rounds disagree by 30"),
        (page(0.95, 1.04, "2"), "no order shown: measured at different moments"),
    ):
        assert why in other.replace("\N{NON-BREAKING HYPHEN}", "-") and "the fastest here" not in other


def test_unmeasured_costs_are_labelled(tmp_path: Path) -> None:
    prepared = scene_patches()
    build_project(tmp_path, prepared, _params(prepared), measured=False)
    folder = stage.report(tmp_path, _params(prepared), prepared)
    assert "not measured on this machine" in (folder / "index.html").read_text()
    assert "not measured on this machine" in (folder / "report.md").read_text()


def test_a_model_trained_elsewhere_has_no_training_time(project, tmp_path: Path) -> None:
    root, params, prepared = project
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    cost_file(copy, "fcn-0").write_text(json.dumps({"train_seconds": 90.0}))
    cost_file(copy, "unet-0").unlink()
    page = (stage.report(copy, params, prepared) / "index.html").read_text()
    assert "U-Net: not measured on this machine" in page and "1.5 min" in page


def test_scores_are_the_same_on_a_machine_without_measurements(project, tmp_path: Path) -> None:
    root, params, prepared = project
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    shutil.rmtree(copy / "work")
    folder = stage.report(copy, params, prepared)
    assert (folder / "scores.md").read_bytes() == (root / "reports" / "buildings" / "scores.md").read_bytes()


def test_report_markdown_is_brief_and_complete(project) -> None:
    text = (project[0] / "reports" / "buildings" / "report.md").read_text()
    assert len(text.encode()) < 30_000 and "data:image" not in text
    assert "0123abc.dir" in text and "one seed only" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table[:6]}) == 1


def test_no_name_or_path_of_the_machine_is_in_the_report(project) -> None:
    import platform

    files = [path for path in (project[0] / "reports" / "buildings").rglob("*") if path.is_file()]
    assert any(file.parent.name == "plots" for file in files)
    for file in files:
        text = re.sub(r"data:image/[^\"]+", "", file.read_text())
        assert str(project[0]) not in text and str(Path.cwd()) not in text
        assert not platform.node() or not re.search(rf"\b{re.escape(platform.node())}\b", text)


def test_several_classes_show_classes_and_errors(tmp_path: Path) -> None:
    prepared = scene_patches(classes=3)
    build_project(tmp_path, prepared, _params(prepared))
    page = (stage.report(tmp_path, _params(prepared), prepared) / "index.html").read_text()
    assert "wrong class" in page and "road" in page


def test_missing_stage_is_named_with_its_remedy(project, tmp_path: Path) -> None:
    root, params, prepared = project
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    (copy / "evaluations" / "unet-0" / "calibration.json").unlink()
    with pytest.raises(StageError, match=r"calibration.json(.|\n)*dvc repro evaluate@unet-0"):
        read_inputs(copy, params, prepared)


def test_figures_contain_every_chart_and_the_gallery(project) -> None:
    inputs = read_inputs(*project)
    figures = stage.figures(inputs)
    assert {"accuracy_cost", "learning", "calibration", "confusion"} <= set(figures)
    assert sum(name.startswith("gallery_") for name in figures) == len(gallery_cases(inputs)) > 0


def test_annotators_are_next_to_the_architectures_in_the_gallery(project) -> None:
    case = gallery_cases(read_inputs(*project))[0]
    assert list(case.predictions) == [*read_inputs(*project).titles, "human"]
    assert 0 < case.iou["human"] <= 1


def test_costs_are_averaged_over_measured_seeds() -> None:
    costs = [{"train_seconds": 10.0, "device": "cpu"}, None, {"train_seconds": 30.0, "device": "cpu"}]
    assert mean_cost(costs) == {"train_seconds": 20.0, "device": "cpu"}
    assert mean_cost([{"train_seconds": 1.0}, {"latency_ms": 4.0}]) == {
        "train_seconds": 1.0,
        "latency_ms": 4.0,
    }
    assert mean_cost([None]) is None


def test_numbers_are_written_for_people() -> None:
    assert [amount(v) for v in (6_600_000, 950, None)] == ["6.6 M", "950", "–"]
    assert [duration(v) for v in (12, 250, 9000)] == ["12 s", "4.2 min", "2.5 h"]
    assert [chance(v) for v in (0.0004, 0.21)] == ["<\N{NO-BREAK SPACE}0.001", "0.210"]
    assert [points(v) for v in (0.031, -0.004)] == ["+3.1", "−0.4"]
    assert unbroken("U-Net 61.2 %, p < 0.1") == "U\u2011Net 61.2\u00a0%, p\u00a0<\u00a00.1"
    assert score_title("dice/image/building") == "Dice (F1), building (mean of images)"


def test_data_hash_before_the_first_repro_is_unknown(tmp_path: Path) -> None:
    assert data_version(tmp_path) is None


def test_help_names_what_the_stage_writes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["report", "--help"])
    with pytest.raises(SystemExit, match="0"):
        stage.main()
    assert "scores.md" in capsys.readouterr().out


def test_calibration_is_shown_before_and_after_the_temperature_of_networks_that_have_one(
    project, tmp_path: Path
) -> None:
    root, params, prepared = project
    before = {name: (root / "reports/buildings" / name).read_text() for name in ("index.html", "report.md")}
    assert "temperature" not in before["index.html"] and "Calibration" not in before["report.md"]
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    for name, temperature, ece in (("unet-0", 1.834, 0.011), ("fcn-0", 0.05, 0.02)):
        file = copy / "evaluations" / name / "calibration.json"
        curve = json.loads(file.read_text())
        after = {**curve, "accuracy": curve["confidence"], "ece": ece, "temperature": temperature}
        file.write_text(json.dumps({**curve, "ece": 0.0632, "after_temperature": after}))
    folder = stage.report(copy, params, prepared)
    page, text = (folder / "index.html").read_text(), (folder / "report.md").read_text()
    assert "ECE 6.3 → 1.1 %" in page and "after temperature" in page
    row = re.search(r'<tr><th scope="row">U-Net</th><td class="words">overconf.*?</tr>', page, re.DOTALL)
    assert row and all(f"<td>{cell}</td>" in row[0] for cell in ("1.83", "6.3", "1.1"))
    assert "not confident enough on validation data" in page
    limit = "the lowest that is allowed, so confidence may still be too low"
    assert page.count(limit) == 1 and f"temperature 0.05 ({limit}); expected" in text
    # an older bundle
    assert not re.search(r"Calibration of DeepLab", text)
    assert (
        "Calibration of U-Net: overconfident on validation data, temperature 1.83; expected calibration error of "
        "test pixels 6.3 %, after temperature scaling 1.1 %." in text
    )
    # scores.md is the same on every machine, and of the comparison alone
    assert (folder / "scores.md").read_text() == (root / "reports/buildings/scores.md").read_text()
