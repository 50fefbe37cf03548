"""Models from MLflow's registry, by address: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

An alias is resolved once, to a version; files are stored by version, so that they never become those of another model.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlparse

from segcore.errors import ModelError
from segcore.files import atomic_folder, digest, locked
from segcore.models.base.bundle import DESCRIPTION, Bundle, Hashes, read_bundle, verified
from segcore.params import Params
from tasks.bundles import copy_bundle, read_local
from tasks.project import CHAMPIONS, FETCHED
from tasks.tracking.tracker import Tracker
from tasks.tracking.versions import download_bundle

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
_ADDRESS = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")
_REBUILD = (
    "run `make registry OPTIONS=--rebuild`, which restores it from models/, work/ or DVC's cache, or name another "
    "version or the folder of a bundle"
)
# longest name of a registered model that is used as part of a folder's name as it is
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Found:
    """A model that was found by its address.

    Attributes:
        bundle: read and verified.
        version: number of the registered version; None for a folder.
        name: of the registered model; None for a folder.
        alias: by which the version was found; None if by its number.
    """

    bundle: Bundle
    version: int | None
    name: str | None = None
    alias: str | None = None


def fetch_model(client: "MlflowClient", address: str, target: Path, root: Path = Path()) -> Path:
    """Download the bundle of a registered version to a folder, unless the folder already has it.

    Its files are checked against the registered hashes before anything is loaded. If the store cannot give them, a
    copy below `root` that has the registered hashes is used.

    Args:
        client: client of the store, from `Tracker.open`.
        address: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        target: folder, replaced as a whole.
        root: the project's folder.

    Returns:
        `target`, with model.json and model.safetensors.

    Raises:
        ModelError: the model, version or alias does not exist, its bundle is missing or damaged, or the registry
            does not answer.
        DataError: the target is not writable.
    """
    version = _resolved(client, address)
    with _lock_of(target):
        return _fetched(client, version, target, root)


def find_model(p: Params, address: str, root: Path = Path()) -> Found:
    """Read the model at an address.

    Args:
        p: parameters; `data.name` and `tracking` are used.
        address: a folder, `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or `champion`, short for
            `models:/<data.name>@champion`.
        root: project folder; a registered version is downloaded to work/predict below it.

    Raises:
        ModelError: as `fetch_model` and `read_bundle`.
        DataError: work/ is not writable.
        StageError: the store cannot be reached or used.
    """
    if address == CHAMPION:
        # it imports this module
        from tasks.tracking.registry import Registry

        Registry(Tracker.open(p)).require_champion(root)
        address = f"models:/{p.data.name}@{CHAMPION}"
    if not address or "://" in address:
        raise ModelError(
            f"{address!r}: not a model address", "name the folder of a bundle, or models:/NAME/3"
        )
    if not address.startswith("models:/"):
        return Found(read_local(Path(address)), None)
    client = Tracker.open(p).client
    version = _resolved(client, address)
    target = root / FETCHED / folder_name(version.name, int(version.version))
    with _lock_of(target):
        folder = _fetched(client, version, target, root)
        alias = address.partition("@")[2] or None
        return Found(read_bundle(folder, _hashes(version)), int(version.version), version.name, alias)


def folder_name(name: str, version: int) -> str:
    """Name of the folder of a registered version; no two versions share one."""
    plain = quote(name, safe="")
    return f"{plain if len(plain) <= _LONGEST_NAME else digest(name)}-{version}"


@contextmanager
def _lock_of(target: Path) -> Iterator[None]:
    with locked(target.with_name(f".{target.name}.lock")):
        yield


def _hashes(version: "ModelVersion") -> Hashes:
    return Hashes(version.tags.get("weights_sha256"), version.tags.get("description_sha256"))


def _fetched(client: "MlflowClient", version: "ModelVersion", target: Path, root: Path) -> Path:
    hashes, number = _hashes(version), int(version.version)
    # without a registered hash, a copy could be of another store's version of this number
    if hashes.weights is not None and _is_intact(target, hashes):
        return target
    with TemporaryDirectory() as folder:
        try:
            bundle, shown = _downloaded(client, version, Path(folder))
        except ModelError:
            copies = (root / FETCHED / folder_name(version.name, number), root / CHAMPIONS / str(number))
            intact = [copy for copy in copies if hashes.weights is not None and _is_intact(copy, hashes)]
            if not intact:
                raise
            bundle, shown = intact[0], str(intact[0])
        try:
            verified(bundle, hashes, shown)
        except ModelError as error:
            raise ModelError(error.what, _REBUILD) from error
        with atomic_folder(target) as part:
            copy_bundle(bundle, part)
    return target


def _is_intact(folder: Path, hashes: Hashes) -> bool:
    with suppress(ModelError):
        verified(folder, hashes)
        return True
    return False


def _resolved(client: "MlflowClient", address: str) -> "ModelVersion":
    """The version at an address, which an alias means at this moment."""
    from mlflow.exceptions import MlflowException

    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise ModelError(f"{address}: not a model address", "write models:/NAME@ALIAS or models:/NAME/3")
    name, alias, number = parts.groups()
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


def _downloaded(client: "MlflowClient", version: "ModelVersion", folder: Path) -> tuple[Path, str]:
    """Download a version's files; returns the folder of its model.json, and that folder's place in the store."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    title = f"version {version.version} of {version.name}"
    try:
        source = client.get_model_version_download_uri(version.name, version.version)
        shown = _place(source)
        if shown.startswith("/") and not Path(shown).exists():
            raise ModelError(f"{title} cannot be downloaded: {shown} is gone", _REBUILD)
        files = folder
        download_bundle(client, source, folder)
        if not (folder / DESCRIPTION).exists():
            # registered by hand, it may be in a subfolder
            files = Path(
                download_artifacts(
                    artifact_uri=source, dst_path=str(folder), tracking_uri=client.tracking_uri
                )
            )
    # ImportError: the package for an address of this kind is not installed
    except (MlflowException, OSError, ImportError) as error:
        raise ModelError(
            f"{title} cannot be downloaded ({error})",
            "check that this machine can read the store's files, or install the package that is missing, or name a "
            "bundle folder",
        ) from error
    descriptions = sorted(files.rglob(DESCRIPTION))
    if not descriptions:
        raise ModelError(f"{title} cannot be downloaded: {shown}/model.json is gone", _REBUILD)
    bundle = descriptions[0].parent
    inside = bundle.relative_to(files)
    return bundle, f"{shown}/{inside}" if inside.parts else shown


def _place(source: str) -> str:
    """Path of an artifact folder on this machine, else its address."""
    parts = urlparse(source)
    return unquote(parts.path) if parts.scheme == "file" else source
