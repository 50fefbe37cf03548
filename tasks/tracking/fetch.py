"""Models out of MLflow's registry, by their address: `models:/NAME@ALIAS` or `models:/NAME/VERSION`."""

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
    """The bundle of a registered model version in a folder; a complete one that is there already is not fetched again.

    Nothing is loaded from it before model.json is understood and the weights match the registered hash.

    Args:
        client: of the store, as `Tracker.open` gives it.
        address: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        target: folder that the bundle replaces as a whole.

    Returns:
        `target`, with model.json and model.safetensors.

    Raises:
        ModelError: no such model, version or alias; the store has no bundle of it, or a damaged one.
        StageError: the store does not answer.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise ModelError(f"{address}: is no address of a model", "write models:/NAME@ALIAS or models:/NAME/3")
    name, alias, number = parts.groups()
    found = _version(client, address, name, alias, number)
    weights = found.tags.get("weights_sha256")
    with suppress(ModelError):
        if verified(target, weights):
            return target
    with TemporaryDirectory() as folder:
        bundle = _downloaded(client, found, address, Path(folder))
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
        root: the project's folder; a registered model is fetched into work/predict below it.

    Raises:
        ModelError: there is none; StageError: the registry does not answer.
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
                "start the server, correct tracking.uri, or name a bundle's folder, such as models/unet-0",
            ) from error
        raise ModelError(
            f"{address}: {_missing(client, name, alias, number)}",
            "run `make retrain` or `make promote` first, or name a bundle's folder, such as models/unet-0",
        ) from error


def _missing(client: "MlflowClient", name: str, alias: str | None, number: str | None) -> str:
    """What of an address does not exist, and what does."""
    known = {model.name: model for model in client.search_registered_models()}
    if name not in known:
        return f"no registered model has that name; there is {', '.join(sorted(known)) or 'none'}"
    if alias is not None:
        return (
            f"no version has the alias {alias!r}; known: {', '.join(sorted(known[name].aliases)) or 'none'}"
        )
    numbers = sorted(int(v.version) for v in client.search_model_versions(f"name = '{name}'"))
    return f"there is no version {number}; known: {', '.join(map(str, numbers)) or 'none'}"


def _downloaded(client: "MlflowClient", version: "ModelVersion", address: str, folder: Path) -> Path:
    """The folder with model.json among the version's files."""
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
            "check that the store's files can be reached from this machine, or name a bundle's folder",
        ) from error
    described = sorted(Path(files).rglob("model.json"))
    if not described:
        raise ModelError(
            f"{address}: version {version.version} holds no model.json",
            "register a bundle that tasks.train wrote, or name a bundle's folder",
        )
    return described[0].parent
