"""dvc.yaml names every code file that a stage's result depends on, and every parameter a user may change."""

import ast
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from segcore.params import Params, TrainSettings, load
from tasks.configure import configure

ROOT = Path(__file__).parents[2]
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
ARCHITECTURES = sorted(p.stem for p in (ROOT / "segcore/models").glob("[a-z]*.py"))

# Files that a stage imports and that dvc.yaml need not name; their own imports are not followed either.
ALLOWED = {
    "segcore/params/data.py": "DVC has the values; its defaults matter to DEFAULTS_MATTER alone",
    "segcore/errors.py": "messages",
    "segcore/files.py": "how files are written, not what",
    "segcore/params/operations.py": "no stage reads these settings",
    "segcore/params/root.py": "DVC has the values; a test below sees that params.yaml spells them out",
    "segcore/ingest/problems.py": "messages",
    "tasks/__init__.py": "which process does the work",
    "tasks/console.py": "progress bars and exit codes",
    "tasks/data_card/card.py": "the data card, which is no output of DVC",
    "tasks/costs.py": "timings, which are no output of DVC",
    "tasks/measure.py": "timings, which are no output of DVC",
    "tasks/supervisor.py": "how a process ends",
    "tasks/reporting/champion.py": "a section of the page, which is no output of DVC",
    "tasks/tracking/pictures.py": "observes",
    "tasks/tracking/runs.py": "observes",
    "tasks/tracking/store.py": "observes",
    "tasks/versioning/stages.py": "observes",
    "tasks/forkserver/client.py": "which process does the work",
}
PATHS = dict.fromkeys(("tasks/ingest.py", "tasks/prepare.py", "tasks/train.py"), "paths, the command line")
SAMPLES = {"segcore/ingest/samples.py": "fetches weights, which are checked by their sha256"}
# `data` may leave out what has a default, so that these two depend on the defaults as well.
DEFAULTS_MATTER = ("ingest", "prepare")
ALLOWED_IN = {
    "prepare": {"tasks/ingest.py": "paths"},
    "train": PATHS | SAMPLES,
    "evaluate": PATHS
    | dict.fromkeys(
        ("segcore/ingest/samples.py", "segcore/models/base/pretrained.py"),
        "a bundle needs no pretrained weights",
    ),
}


@cache
def imports(file: str) -> frozenset[str]:
    """Files of segcore and tasks that `file` imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative imports are not followed by this test"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    found = set()
    for name in names:
        parts = name.split(".")
        if parts[0] in ("segcore", "tasks"):
            packages = ["/".join([*parts[:i], "__init__.py"]) for i in range(1, len(parts) + 1)]
            found |= {p for p in [*packages, "/".join(parts) + ".py"] if (ROOT / p).is_file()}
    return frozenset(f for f in found if (ROOT / f).read_text(encoding="utf-8").strip())


def closure(stage: str, architecture: str) -> set[str]:
    """Every file that the stage's module imports, directly or through others, up to the allowed ones."""
    stop = {**ALLOWED, **ALLOWED_IN.get(stage, {})}
    if stage in DEFAULTS_MATTER:
        del stop["segcore/params/data.py"]
    start = f"tasks/{stage}.py"
    seen: set[str] = set()
    todo = [start]
    while todo:
        file = todo.pop()
        if file in seen or (file in stop and file != start):
            continue
        seen.add(file)
        todo += imports(file)
        if file == "segcore/models/base/factory.py":  # imports the architecture by its name
            todo.append(f"segcore/models/{architecture}.py")
    return seen


def deps(stage: str, architecture: str) -> list[str]:
    names = [d for d in STAGES[stage]["deps"] if isinstance(d, str)]
    return [n.replace("${item.architecture}", architecture).replace("${item.seed}", "0") for n in names]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("stage", STAGES)
def test_dvc_yaml_names_the_code_of_each_stage(stage: str, architecture: str) -> None:
    named = deps(stage, architecture)
    missing = {
        f for f in closure(stage, architecture) if not any(f == n or f.startswith(n + "/") for n in named)
    }
    assert not missing, f"name these under deps of {stage} in dvc.yaml: {sorted(missing)}"


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_yaml_names_no_code_that_a_stage_does_not_use(stage: str) -> None:
    used = set().union(*(closure(stage, architecture) for architecture in ARCHITECTURES))
    code = [n for n in deps(stage, ARCHITECTURES[0]) if n.startswith(("segcore/", "tasks/"))]
    assert all((ROOT / name).exists() for name in code)
    files = [n for n in code if n.endswith(".py")]
    assert not set(files) - used, f"{stage} would rerun for nothing after a change of these"


def test_a_new_metric_retrains_nothing() -> None:
    for architecture in ARCHITECTURES:
        assert "segcore/metrics/pixel.py" not in deps("train", architecture)
        assert "segcore/metrics/pixel.py" in deps("evaluate", architecture)


def test_training_depends_on_its_own_settings_alone() -> None:
    assert STAGES["train"]["params"] == ["train.common", "train.${item.architecture}"]


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
    Repo.init(str(tmp_path), no_scm=True).close()
    monkeypatch.chdir(tmp_path)
    with Repo() as repo:
        found = [d for s in repo.index.stages for d in s.deps if isinstance(d, ParamsDependency)]
        for dependency in found:
            dependency.save()  # what DVC does before it records a stage
        assert len(found) >= len(STAGES)
