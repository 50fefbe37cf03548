"""The model card of a registered version: facts of files that exist, and no others."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from segcore.comparison.results import read_comparison
from segcore.files import sha256
from segcore.params import Params
from tasks.project import PREPARED, comparison_file, data_fingerprint
from tasks.promotion.model_card import CARD, _weights_licence, model_card
from tasks.tracking.registry import Registry
from tasks.versioning.stages import data_version
from tests.support.bundles import make_bundle, rewrite
from tests.support.fake_project import build_project, scene_patches
from tests.support.promotions import promoted, registry_of
from tests.support.tiny import params_for
from tests.tasks.test_report import WORDS, _params


@pytest.fixture
def project(tmp_path: Path) -> tuple[Path, Params]:
    """A compared project with slices and measured costs, in which models/unet-0 is a real bundle."""
    prepared = scene_patches(3, blocks=6)
    params = _params(prepared)
    build_project(tmp_path, prepared, params, words=WORDS)
    facts = {
        "seed": 0,
        "classes": ["background", "a|b", "water"],
        "training_images": {"images": 7, "regions": 38, "pixel_sizes": {"m": [0.3, 0.3, 0.5]}},
        "calibration": {"temperature": 1.25, "ece_before": 0.08, "ece_after": 0.02},
    }
    old = tmp_path / "models/unet-0"
    bundle = make_bundle(tmp_path / "new", **facts)
    for file in bundle.iterdir():
        file.replace(old / file.name)
    weights = json.loads((old / "model.json").read_text())["weights_sha256"]
    (cost,) = (tmp_path / "work/costs").glob("unet-0-*.json")
    cost.replace(cost.with_name(f"unet-0-{weights[:12]}.json"))
    return tmp_path, params


def test_a_card_has_scores_with_intervals_slices_and_costs(project: tuple[Path, Params]) -> None:
    root, params = project
    card = model_card(root / "models/unet-0", params, 3, root)
    comparison = read_comparison(root / comparison_file())
    row = next(row for row in comparison.models if row.architecture == "unet")
    one = row.scores[comparison.headline]
    assert f"| {100 * one.estimate:.1f} % | {100 * one.low:.1f} to {100 * one.high:.1f} |" in card
    assert "| site | test images | U-Net |" in card and "DeepLab" not in card.partition("## Limits")[0]
    assert "ground resolution 0.3 m (0.3 to 0.5)" in card and "temperature 1.25" in card
    assert "| 1 | a\\|b | #ffb300 | yes |" in card
    assert "| Training images | 7, in 38 regions |" in card
    assert "models:/buildings/3" in card and comparison.verdict.split(".")[0] in card
    assert "not measured" not in card.partition("## Costs")[2].partition("| Training")[0]
    weights = json.loads((root / "models/unet-0/model.json").read_text())["weights_sha256"]
    assert f"| sha256 of the weights | {weights} |" in card


def test_latency_is_printed_as_in_the_report_and_its_tile_is_told_from_that_of_training(
    project: tuple[Path, Params],
) -> None:
    root, params = project
    weights = json.loads((root / "models/unet-0/model.json").read_text())["weights_sha256"]
    path = root / f"work/costs/unet-0-{weights[:12]}.json"
    costs = {"latency_ms": 787.2, "ms_per_megapixel": 1588.3, "latency_tile": 704, "latency_batch": 1}
    path.write_text(json.dumps({**json.loads(path.read_text()), **costs}))
    card = model_card(root / "models/unet-0", params, 3, root)
    assert "| Latency | 1,588 ms per megapixel (tile of 704 px as in evaluation, batch 1, " in card
    assert "px in validation, and in predictions where no other is set |" in card


def test_names_of_classes_are_no_markdown(tmp_path: Path) -> None:
    names = ["__background__", "träe | *x* <b>", "a_b [c](d) `e`"]
    calibration = {"temperature": 1.25, "ece_before": 0.1869, "ece_after": 0.282}
    card = model_card(
        make_bundle(tmp_path / "unet-0", classes=names, calibration=calibration), params_for("source"), 1
    )
    for index, shown in enumerate((r"\_\_background\_\_", r"träe \| \*x\* &lt;b&gt;", r"a_b [c\](d) \`e\`")):
        assert f"| {index} | {shown} | #" in card
    assert "28.2 % after). The error became larger" in card.replace("28.20", "28.2")


def test_the_score_of_the_version_itself_comes_before_the_mean_of_seeds(project: tuple[Path, Params]) -> None:
    root, params = project
    content = json.loads((root / comparison_file()).read_text())
    row = next(row for row in content["leaderboard"] if row["architecture"] == "unet")
    own = row["scores"][content["headline"]]["estimate"]
    row["seeds"], row["scores"][content["headline"]]["estimate"] = 2, own + 0.007
    (root / comparison_file()).write_text(json.dumps(content))
    card = model_card(root / "models/unet-0", params, 3, root)
    scores = card.partition("## Scores")[2]
    assert "The mean of 2 seeds includes this version." in scores
    assert "| score | this version | mean of 2 seeds | 95 % interval of the mean of 2 seeds |" in scores
    assert f"| {100 * own:.1f} % | {100 * own + 0.7:.1f} % |" in scores
    assert "by slice of the test images, mean of 2 seeds:" in scores


def test_the_data_version_is_that_of_report_and_runs_while_the_data_are_those_of_the_training(
    project: tuple[Path, Params],
) -> None:
    root, params = project
    prepared = root / PREPARED
    prepared.mkdir(parents=True)
    for name in ("items.parquet", "regions.parquet", "windows.parquet", "statistics.json", "prepared.json"):
        (prepared / name).write_text(name)
    content = data_fingerprint(prepared)
    rewrite(root / "models/unet-0", lambda description: description.update(versions={"data": content}))
    card = model_card(root / "models/unet-0", params, 3, root)
    version = data_version(root)
    assert version and f"| Data version | md5 {version} (data/prepared in dvc.lock) |" in card
    assert f"| sha256 of the prepared data | {content} |" in card
    (prepared / "prepared.json").write_text("of other data")
    later = model_card(root / "models/unet-0", params, 3, root)
    assert "| Data version | not stated |" in later and content in later


def test_facts_of_other_weights_are_left_out(project: tuple[Path, Params], tmp_path: Path) -> None:
    root, params = project
    other = make_bundle(tmp_path / "other", seed=1)
    rewrite(other, lambda description: description.update(seed=0))
    card = model_card(other, params, 1, root)
    assert "Not evaluated in this project with these weights." in card
    assert "| Latency | not measured |" in card and "interval |" not in card


def test_what_an_old_bundle_does_not_state_is_named_and_not_invented(tmp_path: Path) -> None:
    weights = hashlib.sha256(b"weights").hexdigest()
    facts = {"format": 2, "architecture": "unet", "weights_sha256": weights}
    (tmp_path / "model.json").write_text(json.dumps(facts))
    card = model_card(tmp_path, params_for("source"), 1, tmp_path)
    stated = dict(line.strip("| ").split(" | ", 1) for line in card.splitlines() if line.startswith("| "))
    for fact in ("Encoder", "Pixel size", "Data version", "Training images", "Steps", "data", "Values"):
        assert stated[fact] == "not stated", fact
    assert "are not recorded" in card and "no calibration temperature" in card


def test_a_data_licence_is_that_of_the_samples_manifest(project: tuple[Path, Params]) -> None:
    root, params = project
    (root / "samples").mkdir()
    sample = Path(__file__).parents[3] / "samples/buildings.yaml"
    (root / "samples/buildings.yaml").write_bytes(sample.read_bytes())
    card = model_card(root / "models/unet-0", params, 1, root)
    assert "| data | package MIT; imagery and labels of the Inria Aerial Image Labeling Dataset |" in card


@pytest.mark.parametrize(
    ("settings", "licence"),
    [
        ({"encoder": "efficientnet_lite0", "weights": "imagenet"}, "Apache-2.0 (EfficientNet-Lite"),
        ({"encoder": "timm:resnet18", "weights": "imagenet"}, "not stated (weights of timm, resnet18)"),
        ({"encoder": "mobilenet_v2", "weights": "imagenet"}, "not stated (weights of torchvision"),
    ],
)
def test_the_licence_of_initial_weights_is_that_of_the_encoder(
    settings: dict[str, str], licence: str
) -> None:
    assert _weights_licence({"settings": settings}).startswith(licence)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with one version, which was promoted."""
    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        params = params_for("source")
        promoted(params, folder, 1, None)
        yield registry_of(params)


def test_a_registered_version_has_its_card_as_description_and_as_a_file(registry: Registry) -> None:
    (row,) = registry.history()
    description = registry.tracker.client.get_model_version(registry.name, "1").description
    assert description.startswith("# U-Net for tiny, version 1\n") and "models:/tiny/1" in description
    source = Path(registry.source(1))
    assert (source / CARD).read_text() == description
    assert sha256(source / "model.json") == row.description_sha256 and registry.is_stored(row)


def test_a_long_card_is_cut_before_a_section_in_the_description_alone(registry: Registry) -> None:
    card = "# Title\n\n" + "\n\n".join(f"## Part {number}\n\n{'x' * 900}" for number in range(9)) + "\n"
    registry.describe(1, card)
    description = registry.tracker.client.get_model_version(registry.name, "1").description
    assert 4000 < len(description) <= 5000
    assert description.endswith(
        "x\n\nThe other sections are in MODEL_CARD.md, among the files of this version.\n"
    )
    assert (Path(registry.source(1)) / CARD).read_text() == card
