"""Bundles as MLflow models: what `mlflow.pyfunc.load_model` and `mlflow models serve` need, beside the bundle's files.

The files of a model belong to a logged model of MLflow, which is an output of the training's run and the source of a
registered version. Its folder is the bundle with the file MLmodel, a copy of `segmentation_model.py`, and the package
segcore in `code/`: the model runs with the code that trained it, and also where this project is not.
"""

import json
import logging
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from segcore import errors
from segcore.data.prepared import neighbouring_planes
from segcore.models.base.bundle import load_description
from tasks.bundles import copy_bundle
from tasks.tracking.tracker import Run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

# what the rooms of segcore that prediction needs import
REQUIREMENTS = (
    "cronsim",
    "nibabel",
    "numpy",
    "pandas",
    "pillow",
    "platformdirs",
    "pyarrow",
    "pycocotools",
    "pydantic",
    "pydicom",
    "pyogrio",
    "pypi-simple",
    "pyyaml",
    "rasterio",
    "requests",
    "safetensors",
    "scikit-image",
    "scipy",
    "shapely",
    "simpleitk",
    "torch",
    "torchvision",
)
_CODE = Path(__file__).with_name("segmentation_model.py")
# side of the input example in pixels
_SIDE = 32


def log_model(run: Run, bundle: Path) -> "LoggedModel":
    """Store a bundle as the logged model of a run; one that an interrupted call left behind is completed.

    Args:
        run: of the training, or of a registration.
        bundle: folder of the bundle.

    Raises:
        ModelError: there is no bundle.
        StageError: the store does not answer.
    """
    from mlflow.entities import LoggedModelOutput

    client, description = run.client, load_description(bundle)
    model, made_by = model_of(client, run.id), client.get_run(run.id)
    if model is None:
        facts = {name: str(description.get(name)) for name in ("architecture", "seed", "title")}
        model = client.create_logged_model(
            made_by.info.experiment_id,
            name=f"{facts['architecture']}-{facts['seed']}",
            source_run_id=run.id,
            params=facts,
            tags={"weights_sha256": description["weights_sha256"]},
            model_type=description.get("kind", "semantic"),
        )
    if not (made_by.outputs and made_by.outputs.model_outputs):
        client.log_outputs(run.id, [LoggedModelOutput(model.model_id, step=0)])
    with TemporaryDirectory() as folder:
        write_model(Path(folder), bundle, model.model_id, run.id)
        client.log_model_artifacts(model.model_id, folder)
    return client.finalize_logged_model(model.model_id, "READY")


def model_of(client: "MlflowClient", run_id: str) -> "LoggedModel | None":
    """The logged model of a run; None if it has none, as those of earlier versions, which logged files to the run."""
    models = models_of(client, run_id)
    return models[0] if models else None


def models_of(client: "MlflowClient", run_id: str) -> list["LoggedModel"]:
    """All logged models of a run, latest first."""
    experiment = client.get_run(run_id).info.experiment_id
    return list(client.search_logged_models([experiment], f"source_run_id = '{run_id}'"))


def name_version(client: "MlflowClient", model_id: str, name: str, version: int) -> None:
    """Name a registered version in its logged model, as MLflow's server does, and the embedded store does not."""
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    named = json.loads(client.get_logged_model(model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    # a server writes the number without quotes
    if all((one["name"], str(one["version"])) != (name, str(version)) for one in named):
        named.append({"name": name, "version": str(version)})
        client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: json.dumps(named)})


def write_model(folder: Path, bundle: Path, model_id: str | None, run_id: str | None) -> None:
    """Write the files of an MLflow model, the bundle's among them, into an empty folder.

    Args:
        folder: for the files.
        bundle: folder of the bundle.
        model_id: of the logged model; None: it has none.
        run_id: of the run that made it; None: it is unknown.

    Raises:
        ModelError: there is no bundle.
    """
    from mlflow import pyfunc
    from mlflow.models import Model

    # at its usual level it logs a line per model
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)
    model = Model(model_id=model_id, run_id=run_id)
    pyfunc.save_model(
        folder,
        python_model=str(_CODE),
        code_paths=[str(Path(errors.__file__).parent)],
        signature=_signature(),
        input_example=_example(load_description(bundle)),
        pip_requirements=requirements(),
        mlflow_model=model,
    )
    copy_bundle(bundle, folder)
    flavor = model.flavors[pyfunc.FLAVOR_NAME]
    # the bundle is the folder itself; MLflow would copy it to artifacts/ in it
    flavor["artifacts"] = {"bundle": {"path": ".", "uri": "."}}
    # without the path of this clone
    flavor["model_code_path"] = _CODE.name
    model.model_size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    model.save(folder / "MLmodel")


def requirements() -> list[str]:
    """Packages that a model needs, with the versions of this environment; without suffixes such as +cpu."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS]


def _signature() -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    # Arrays of any shape and type, and paths: MLflow checks nothing of an array of objects, and the model checks all.
    inputs = Schema([TensorSpec(np.dtype(object), (-1,))])
    outputs = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1))])
    params = [ParamSpec("output", "string", "classes"), ParamSpec("accept", "string", [], (-1,))]
    return ModelSignature(inputs, outputs, ParamSchema(params))


def _example(description: dict[str, Any]) -> np.ndarray | None:
    """One image, or volume, with values from the lowest to the highest of the training images.

    None for a description that names no number of bands, of which no network can be built.
    """
    if "in_channels" not in description:
        return None
    read = description.get("input", {})
    planes = len(neighbouring_planes(0, read.get("neighbours", 0), 1))
    bands = max(read.get("bands") or [description["in_channels"] // planes])
    values = description.get("training_images", {}).get("values")
    low, high = (min(values["low"][0]), max(values["high"][1])) if values else (0, 255)
    shape = (1, *([planes] if planes > 1 else []), _SIDE, _SIDE, bands)
    return np.linspace(low, high, int(np.prod(shape))).reshape(shape).astype(read.get("dtype", "uint8"))
