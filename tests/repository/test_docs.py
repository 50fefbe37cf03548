"""README, docs and the project's own files agree with the code."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from docs import generate
from segcore.models.base.encoders import ENCODERS
from segcore.models.base.factory import defaults
from segcore.params import Params, TrainSettings
from segcore.params.architectures import instance_networks
from segcore.training.losses import NAMES as LOSSES
from tasks.__main__ import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
WRITTEN = [page for page in PAGES if not page.is_relative_to(generate.REFERENCE)]


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_field_of_params_yaml_has_a_description():
    fields = [
        (path, key, field) for path, model in generate.models() for key, field in model.model_fields.items()
    ]
    assert [f"{path}.{key}" for path, key, field in fields if not field.description] == []


def test_descriptions_name_every_encoder_and_loss():
    described = TrainSettings.model_fields
    assert all(f"`{name}`" in (described["encoder"].description or "") for name in ENCODERS)
    assert all(f"`{name}`" in (described["loss"].description or "") for name in LOSSES)


def test_the_guide_has_every_keyword_of_the_instance_networks_with_its_default():
    page = (ROOT / "docs/guide/objects.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", page, re.MULTILINE)
    names = {"mask_rcnn": "Mask R-CNN", "yolact": "YOLACT", "solo": "SOLO"}
    assert set(names) == set(instance_networks())
    for network, name in names.items():
        described = {key: default for key, of, default in rows if of == "all" or name in of.split(", ")}
        keywords = {key: str(value) for key, value in defaults(network).items()}
        # these two are keys of train.<network> themselves
        assert {key: text.lower() for key, text in keywords.items()} == described | {
            "encoder": keywords["encoder"],
            "weights": keywords["weights"],
        }


def test_the_reference_of_params_yaml_has_every_key_with_its_default():
    page = generate.params_page()
    _, *parts = re.split(r"^## (\S+)$", page, flags=re.MULTILINE)
    tables = dict(zip(parts[::2], parts[1::2], strict=True))
    assert set(tables) == {path or "Sections" for path, _ in generate.models()}
    for path, model in generate.models():
        rows = dict(re.findall(r"^\| `(\w+)` (\|.*)$", tables[path or "Sections"], re.MULTILINE))
        assert set(rows) == set(model.model_fields)
    rows = dict(re.findall(r"^\| `(\w+)` (\|.*)$", tables["train.common"], re.MULTILINE))
    assert rows["learning_rate"].startswith("| number, > 0 | `0.001` |") and "| required |" in rows["steps"]
    assert rows["ema"].startswith("| `auto` or number or null |")


def test_every_key_of_params_yaml_is_in_the_reference():
    page = generate.params_page()
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert set(values) <= set(Params.model_fields)
    for section in [v for k, v in values.items() if isinstance(v, dict) and k != "train"]:
        assert all(f"| `{key}` |" in page for key in section)


def test_the_site_lists_every_room_of_segcore():
    navigation = (ROOT / "mkdocs.yml").read_text()
    listed = set(re.findall(r"reference/api/(\S+\.md)", navigation))
    assert listed == set(generate.api_pages())


def test_the_reference_covers_every_public_module_once():
    text = "\n".join(generate.api_pages().values())
    named = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    assert len(named) == len(set(named)) and {"segcore.training.loop", "segcore.io.images.dicom"} <= set(
        named
    )
    assert not any("._" in name for name in named)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path):
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        generated = (page.parent / link).resolve().is_relative_to(generate.REFERENCE)
        assert link.startswith("http") or generated or (page.parent / link).exists(), link


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_commands_that_pages_name_exist(page: Path):
    text = page.read_text()
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= makefile_targets()
    assert set(re.findall(r"-m tasks ([a-z][a-z-]+)", text)) <= set(COMMANDS)
    for name in re.findall(r"requirements/[a-z]+\.lock", text):
        assert (ROOT / name).is_file()


def test_the_first_screen_of_readme_has_the_two_commands_the_picture_and_three_links():
    top = (ROOT / "README.md").read_text().partition("\n## ")[0]
    assert len(top.splitlines()) <= 20 and "make demo" in top and "make test" in top
    assert top.count("![") == 1 and len(re.findall(r"(?<!!)\[[^\]]+\]\(", top)) == 3


def test_make_without_arguments_lists_every_public_target():
    listed = subprocess.run(["make", "-s"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert {"demo", "test", "docs", "bench", "lint"} <= set(
        re.findall(r"^  make (\S+)", listed, re.MULTILINE)
    )


def test_a_benchmark_that_does_not_exist_is_refused_with_the_ones_that_do():
    command = ["make", "-s", "-o", "install", "bench", "WHAT=nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and "training" in done.stdout and "Remedy" in done.stdout
    known = re.search(r"^BENCHMARKS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert known and all((ROOT / f"benchmarks/{name}.py").is_file() for name in known[1].split())


def test_the_image_installs_the_lock_file_that_it_copies():
    recipe = (ROOT / "deploy/Dockerfile").read_text()
    (copied,) = re.findall(r"^COPY (requirements/\S+) /tmp/$", recipe, re.MULTILINE)
    assert (ROOT / copied).is_file() and f"--require-hashes -r /tmp/{Path(copied).name}\n" in recipe


def test_lock_files_agree_on_versions():
    pins = {
        path.name: dict(re.findall(r"^([a-z0-9._-]+)==(\S+) (?:\\|;)", path.read_text(), re.MULTILINE))
        for path in (ROOT / "requirements").glob("*.lock")
    }
    base = pins.pop("base.lock")
    differing = {
        (name, package)
        for name, found in pins.items()
        for package in found
        if base.get(package, found[package]) != found[package]
    }
    assert set(pins) == {"bench.lock", "cluster.lock", "dev.lock"} and differing == set()
