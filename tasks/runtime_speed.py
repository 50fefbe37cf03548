"""Latency of exported models beside that of the networks themselves, measured in turn, for the report."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segcore.cache import CODE, code_digest
from segcore.errors import ExportError
from segcore.export import EAGER, RECORD, RUNTIMES
from segcore.files import cached_json, digest, sha256
from segcore.inference.device import default_device, machine_name, precision_of
from segcore.inference.objects import windows_of
from segcore.models.base.bundle import DESCRIPTION, Bundle, load_description
from segcore.params import Params
from tasks import console
from tasks.bundles import read_local
from tasks.costs import RUNTIME_SPEED, drop_cost, merge_cost, read_cost
from tasks.measure import pixels_of_objects
from tasks.project import EXPORTS, PREPARED, model_folder, run_name

# of a measurement, what the report prints
_SHOWN = (
    "latency_ms",
    "latency_low_ms",
    "latency_high_ms",
    "latency_tile",
    "latency_rounds",
    "precision",
    "threads",
)
_ROUNDS = 9


def measure_runtimes(p: Params, root: Path = Path(), again: bool = False) -> list[str]:
    """Measure the first seed of each architecture that has an export, by all installed runtimes; see work/costs/.

    An export belongs to the model whose hashes it has, whatever its name. Latencies of models without one are removed.

    Args:
        p: architectures, seeds and the tile.
        root: the project's folder.
        again: measure also if nothing has changed.

    Returns:
        Names of the bundles that were measured.
    """
    measured = []
    for architecture in [*p.architectures, *p.ensembles]:
        found = {name: _exports(name, root) for name in (run_name(architecture, seed) for seed in p.seeds)}
        name = next((name for name, files in found.items() if files), None)
        for other in found:
            if other != name:
                drop_cost(root, other, RUNTIME_SPEED)
        if name is None:
            continue
        files = found[name]
        key = _key(p, files)
        if not again and (read_cost(root, name) or {}).get(RUNTIME_SPEED, {}).get("key") == key:
            continue
        print(f"report: measuring latency of exported models, {name}", flush=True)
        merge_cost(root, name, {RUNTIME_SPEED: {"key": key, **_measured(p, name, files, root)}})
        measured.append(name)
    return measured


def _exports(name: str, root: Path) -> dict[str, tuple[Path, str]]:
    """Folders and hashes of the files of a model that runtimes can run, by runtime."""
    path = model_folder(name, root) / DESCRIPTION
    if not path.exists():
        return {}
    hashes = (load_description(path.parent)["weights_sha256"], sha256(path))
    found = {}
    for runtime, how in RUNTIMES.items():
        for file in sorted((root / EXPORTS).glob(f"*/{how.format}/{RECORD}")):
            record = cached_json(file) or {}
            is_of = (record.get("weights_sha256"), record.get("description_sha256")) == hashes
            if runtime not in found and is_of and all(map(find_spec, how.packages)):
                found[runtime] = (file.parent, str(record.get("sha256")))
    return found


def _measured(p: Params, name: str, files: dict[str, tuple[Path, str]], root: Path) -> dict[str, Any]:
    from segcore.prediction.speed import Measured, measure_speed

    folder, device = model_folder(name, root), default_device()
    bundle = read_local(folder)
    pixels = pixels_of_objects([folder], root / PREPARED, p.evaluate.tile)
    own = bundle.model(device)
    windows = windows_of(own, bundle.description, p.evaluate.tile, p.evaluate.overlap)
    precision = precision_of(bundle.description, device)
    models = {EAGER: Measured(own, precision, *windows, pixels)}
    for runtime, (exported, _) in files.items():
        model = _loaded(bundle, runtime, exported)
        if model is not None:
            models[runtime] = Measured(model, "fp32", *windows, pixels)
    figures = measure_speed(list(models.values()), p.evaluate.tile, _ROUNDS, p.evaluate.flips)
    shown = {
        runtime: {"title": _title(runtime), **{entry: figure[entry] for entry in _SHOWN}}
        for runtime, figure in zip(models, figures, strict=True)
    }
    return {"machine": machine_name(device), "figures": shown}


def _title(runtime: str) -> str:
    return "PyTorch" if runtime == EAGER else RUNTIMES[runtime].title


def _loaded(bundle: Bundle, runtime: str, folder: Path) -> Any:
    """An exported model; None with a note if its file is damaged."""
    from segcore.export._runtime import load

    try:
        return load(folder, bundle, runtime)
    except ExportError as error:
        console.note(f"report: not measured: {error}")
        return None


def _key(p: Params, files: dict[str, tuple[Path, str]]) -> str:
    """Digest of what the latencies depend on, except the load of the machine."""
    settings = f"{p.evaluate.tile} {p.evaluate.overlap} {p.evaluate.flips}"
    code = code_digest(*CODE["speed"], "export")
    parts = [f"{runtime} {sha}" for runtime, (_, sha) in sorted(files.items())]
    return digest(settings, code, machine_name(default_device()), *parts)[:16]
