"""Models from MLflow's registry, by address: `models:/NAME@ALIAS` or `models:/NAME/VERSION`."""

import re
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from segcore.errors import ModelError
from segcore.files import atomic_folder, copy_files
from segcore.models.base.bundle import verified
from segcore.params import Params
from tasks.project import FETCHED
from tasks.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
_ADDRESS = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")


def fetch_model(client: "MlflowClient", address: str, target: Path) -> Path:
    """Download the bundle of a registered model version to a folder, unless the folder already has it.

    model.json is parsed and the weights are checked against the registered hash before anything is loaded.

    Args:
        client: client of the store, from `Tracker.open`.
        address: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        target: folder, replaced as a whole.

    Returns:
        `target`, with model.json and model.safetensors.

    Raises:
        ModelError: the model, version or alias does not exist, its bundle is missing or damaged, or the registry
            does not answer.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise ModelError(f"{address}: not a model address", "write models:/NAME@ALIAS or models:/NAME/3")
    name, alias, number = parts.groups()
    version = _version(client, address, name, alias, number)
    weights = version.tags.get("weights_sha256")
    with suppress(ModelError):
        if verified(target, weights):
            return target
    with TemporaryDirectory() as folder:
        bundle = _downloaded(client, version, address, Path(folder))
        verified(bundle, weights)
        with atomic_folder(target) as part:
            copy_files(bundle, part)
    return target


def find_bundle(p: Params, address: str, root: Path = Path()) -> Path:
    """Folder of the bundle at an address.

    Args:
        p: parameters; `data.name` and `tracking` are used.
        address: a folder, `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or `champion`, short for
            `models:/<data.name>@champion`.
        root: project folder; a registered model is downloaded to work/predict below it.

    Raises:
        ModelError: as `fetch_model`; a folder is not checked here.
        StageError: the store cannot be reached or used.
    """
    if address == CHAMPION:
        address = f"models:/{p.data.name}@{CHAMPION}"
    if not address.startswith("models:/"):
        return Path(address)
    folder = address.removeprefix("models:/").replace("/", "-").replace("@", "-")
    return fetch_model(Tracker.open(p).client, address, root / FETCHED / folder)


def _version(
    client: "MlflowClient", address: str, name: str, alias: str | None, number: str | None
) -> "ModelVersion":
    from mlflow.exceptions import MlflowException

    try:
        if alias is not None:
            return client.get_model_version_by_alias(name, alias)
        return client.get_model_version(name, str(number))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise ModelError(
                f"{address}: the registry does not answer ({error.message})",
                "start the server, correct tracking.uri, or name a bundle folder, such as models/unet-0",
            ) from error
        raise ModelError(
            f"{address}: {_missing(client, name, alias, number)}",
            "run `make retrain` or `make promote` first, or name a bundle folder, such as models/unet-0",
        ) from error


def _missing(client: "MlflowClient", name: str, alias: str | None, number: str | None) -> str:
    """The part of an address that does not exist, and the existing alternatives."""
    models = {model.name: model for model in client.search_registered_models()}
    if name not in models:
        return f"no registered model has that name; registered: {', '.join(sorted(models)) or 'none'}"
    if alias is not None:
        aliases = ", ".join(sorted(models[name].aliases)) or "none"
        return f"no version has the alias {alias!r}; existing aliases: {aliases}"
    numbers = sorted(int(v.version) for v in client.search_model_versions(f"name = '{name}'"))
    return f"there is no version {number}; existing versions: {', '.join(map(str, numbers)) or 'none'}"


def _downloaded(client: "MlflowClient", version: "ModelVersion", address: str, folder: Path) -> Path:
    """Download the version's files; returns the folder of its model.json."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        source = client.get_model_version_download_uri(version.name, version.version)
        files = download_artifacts(
            artifact_uri=source, dst_path=str(folder), tracking_uri=client.tracking_uri
        )
    except (MlflowException, OSError) as error:
        raise ModelError(
            f"{address}: version {version.version} cannot be downloaded ({error})",
            "check that this machine can read the store's files, or name a bundle folder",
        ) from error
    descriptions = sorted(Path(files).rglob("model.json"))
    if not descriptions:
        raise ModelError(
            f"{address}: version {version.version} has no model.json",
            "register a bundle that the stage train wrote, or name a bundle folder",
        )
    return descriptions[0].parent
