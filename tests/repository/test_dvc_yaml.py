"""dvc.yaml names every room that a stage's result depends on, and every parameter a user may change."""

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import grimp
import pytest
from ruamel.yaml import YAML

from segcore.cache import CODE
from segcore.params import Params, TrainSettings, load
from tasks import plan
from tasks.configure import configure
from tests.support import plans

ROOT = Path(__file__).parents[2]
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
ARCHITECTURES = sorted(p.stem for p in (ROOT / "segcore/models").glob("[a-z]*.py"))

CONTRACTS = {
    contract["name"].split()[0]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    if contract["name"].endswith("depends on no room that dvc.yaml does not name")
}
ROOMS = {f"segcore.{p.parent.name}" for p in ROOT.glob("segcore/*/__init__.py")} - {"segcore.params"}


def code(stage: str) -> list[str]:
    """Code files and folders under `deps` of a stage."""
    return [d for d in STAGES[stage]["deps"] if isinstance(d, str) and d.startswith(("segcore/", "tasks/"))]


@pytest.mark.parametrize("stage", STAGES)
def test_import_linter_checks_the_rooms_that_dvc_yaml_names(stage: str) -> None:
    """The contract's modules are those under deps; together with what they must not import they are all rooms."""
    architecture = "segcore/models/${item.architecture}.py"
    named = {d.removesuffix(".py").replace("/", ".") for d in code(stage) if d != architecture}
    named -= {"segcore.params.data", "tasks.templates"}  # defaults; no Python
    shared = {"segcore.models.base", "segcore.models.instance"}
    if shared <= named:
        named = named - shared | {"segcore.models"}
    contract = CONTRACTS[stage]
    assert named == set(contract["source_modules"])
    forbidden = {".".join(m.split(".")[:2]) for m in contract["forbidden_modules"]}
    rooms = {".".join(n.split(".")[:2]) for n in named if n.startswith("segcore")}
    assert rooms - {"segcore.constants", "segcore.downloads"} | forbidden == ROOMS


@pytest.mark.parametrize("stage", STAGES)
def test_code_that_dvc_yaml_names_is_there(stage: str) -> None:
    for name in code(stage):
        assert (ROOT / name.replace("${item.architecture}", "unet")).exists(), name


def test_plug_ins_that_are_loaded_by_name_are_in_a_folder_that_the_stage_names() -> None:
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in ROOT.glob("segcore/**/*.py")
    }
    # segcore/__init__.py imports the names that it offers, which no stage reads from there.
    assert {name for name, text in sources.items() if "import_module(" in text} == {
        "segcore/__init__.py",
        "segcore/plugins.py",
    }
    folders = {"segcore/io/annotations", "segcore/io/images", "segcore/io/layouts"}
    loading = {name for name, text in sources.items() if re.search(r"plugins\.load(_all)?\(", text)}
    # no stage exports
    assert not any("segcore/export" in code(stage) for stage in STAGES)
    loading -= {"segcore/export/_runtime.py"}
    assert loading == {f"{folder}/__init__.py" for folder in folders} | {"segcore/models/base/factory.py"}
    for name in loading:
        for package in re.findall(r"plugins\.load(?:_all)?\((\w+(?:\.__name__)?)", sources[name]):
            assert package == ("models.__name__" if name.endswith("factory.py") else "__name__")
    assert "segcore/io" in code("ingest")
    for stage in ("train", "evaluate"):
        shared = {"segcore/models/base", "segcore/models/instance"}
        assert shared | {"segcore/models/${item.architecture}.py"} <= set(code(stage))


@pytest.mark.parametrize("stage", ["ingest", "prepare", "evaluate"])
def test_the_caches_depend_on_the_code_that_dvc_yaml_names(stage: str) -> None:
    architecture = "segcore/models/${item.architecture}.py"
    named = {name for name in code(stage) if name.startswith("segcore/")} - {architecture}
    assert {f"segcore/{name}" for name in CODE[stage]} == named


@pytest.mark.parametrize(
    ("stage", "entries"),
    [
        ("ingest", ["ingest.catalog"]),
        ("prepare", ["splits.prepare"]),
        ("evaluate", ["evaluation.evaluate", "models.base.bundle"]),
        ("speed", ["prediction.speed", "models.base.bundle"]),
        ("pictures", ["plots.overlays", "plots.pictures"]),
    ],
)
def test_the_caches_depend_on_all_that_is_imported(stage: str, entries: list[str]) -> None:
    """Besides the ground floor, and parameters, whose values are among the facts of a cache."""
    graph = grimp.build_graph("segcore")
    for module in [m for m in graph.modules if m.startswith("segcore.params")]:
        graph.remove_module(module)
    modules = {f"segcore.{entry}" for entry in entries}
    modules |= set().union(*(graph.find_upstream_modules(module) for module in modules))
    rooms = tuple(f"segcore.{name.removesuffix('.py').replace('/', '.')}" for name in CODE[stage])
    beyond = {m for m in modules if not any(m == room or m.startswith(f"{room}.") for room in rooms)}
    ground = {f"segcore.{p.stem}" for p in (ROOT / "segcore").glob("*.py")} | {"segcore", "segcore.__init__"}
    packages = {".".join(room.split(".")[:-1]) for room in rooms}
    assert beyond - ground - packages == set()


def depends(stage: str, file: str) -> bool:
    assert (ROOT / file).exists(), file
    return any(file == name or file.startswith(f"{name}/") for name in code(stage))


def test_a_new_metric_predicts_nothing_anew() -> None:
    assert [s for s in STAGES if depends(s, "segcore/metrics/pixel.py")] == ["compare", "report"]


def test_an_architecture_retrains_itself_alone() -> None:
    # the stage ensemble trains nothing
    assert [s for s in STAGES if depends(s, "segcore/models/unet.py")] == ["ensemble"]
    assert "segcore/models/${item.architecture}.py" in code("train")


def test_a_writer_or_a_plot_re_evaluates_nothing() -> None:
    for file in ("prediction/writers/cog.py", "prediction/writers/polygons.py", "prediction/mosaic.py"):
        assert not any(depends(stage, f"segcore/{file}") for stage in STAGES)
    assert [s for s in STAGES if depends(s, "segcore/plots/charts.py")] == ["report"]


def test_training_depends_on_its_own_settings_alone() -> None:
    plan = {"plan/plan.json": ["sections.train.common"]}
    assert STAGES["train"]["params"] == ["train.common", "train.${item.architecture}", plan]


def spelled(model: Any, values: dict[str, Any]) -> set[str]:
    """Fields of a section that `values` leaves to the default in the code."""
    return {name for name in model.model_fields if name not in values}


def test_params_yaml_spells_out_every_default() -> None:
    """A default in the code would change results without DVC seeing it."""
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    for name in ("split", "prepare", "evaluate", "compare", "report"):
        assert not spelled(Params.model_fields[name].annotation, values[name]), name
    common = values["train"]["common"]
    assert spelled(TrainSettings, common) <= {"model"}  # keywords of one architecture
    assert not spelled(TrainSettings.model_fields["augment"].annotation, common["augment"])


@pytest.mark.parametrize("stage", STAGES)
def test_outputs_that_workers_share_are_cached(stage: str) -> None:
    cached = [o for o in STAGES[stage]["outs"] if isinstance(o, str)]
    assert cached == STAGES[stage]["outs"] or stage in ("prepare", "report")


def test_params_yaml_has_what_dvc_reads() -> None:
    params = load(ROOT / "params.yaml")
    assert set(params.architectures) <= set(params.train), (
        "DVC needs train.<name> of each architecture, {} at least"
    )


@pytest.mark.parametrize("example", sorted(p.stem for p in (ROOT / "examples").glob("*.yaml")))
def test_dvc_finds_and_hashes_every_parameter_with_each_example(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "source").mkdir()
    needs_folder = "$" in (ROOT / "examples" / f"{example}.yaml").read_text()
    configure(
        example,
        tmp_path / "params.yaml",
        ROOT / "examples",
        str(tmp_path / "source") if needs_folder else None,
    )
    p = load(tmp_path / "params.yaml")
    shares = dict.fromkeys(p.data.classes, 1 / len(p.data.classes))
    plan.write(p, plans.facts(class_shares=shares), tmp_path / "plan")
    Repo.init(str(tmp_path), no_scm=True).close()
    monkeypatch.chdir(tmp_path)
    with Repo() as repo:
        found = [d for s in repo.index.stages for d in s.deps if isinstance(d, ParamsDependency)]
        for dependency in found:
            dependency.save()  # what DVC does before it records a stage
        assert len(found) >= len(STAGES)
