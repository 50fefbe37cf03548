"""Write a trained model as files of other formats, and check that they compute what the model computes.

`python -m tasks export --model champion --format onnx` writes exports/NAME/onnx/ with the file, export.json and
parity.md. Both are compared on held-out regions of the prepared data; where they differ by more than the tolerance,
that file is not written.
"""

import argparse
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from segcore import params, plugins
from segcore.errors import ExportError, ModelError, ParamsError
from segcore.export import RECORD, require_packages
from segcore.files import atomic_folder, cached_json, digest, locked, sha256
from segcore.models.base.bundle import Bundle
from segcore.params import Params
from tasks import console
from tasks.export_comparison import Comparison
from tasks.exported import name_of
from tasks.held_out import held_out
from tasks.output_folder import require_writable
from tasks.project import EXPORTS, PREPARED, WORK
from tasks.tracking.fetch import CHAMPION, Found, find_model

_PACKAGE = "segcore.export"
# largest difference of probabilities; float32 networks of this library differ by some 1e-5
TOLERANCE = 1e-4
# largest loss of score of a format that rounds weights
MAX_LOSS = 0.01


def run_export(
    p: Params,
    address: str,
    formats: Sequence[str],
    output: Path = EXPORTS,
    tolerance: float = TOLERANCE,
    max_loss: float = MAX_LOSS,
    root: Path = Path(),
) -> list[Path]:
    """Export a model; each format is a folder `<output>/<name>/<format>` that appears complete or not at all.

    Args:
        p: parameters; `data.name`, `tracking`, `evaluate` and `compare.metric` are used.
        address: of the model, as for `find_model`.
        formats: names of modules of segcore/export.
        output: folder.
        tolerance: largest difference of an output between file and model.
        max_loss: largest loss of score of a format that rounds weights.
        root: the project's folder.

    Returns:
        The folders, in the order of `formats`.

    Raises:
        ParamsError: an unknown format.
        ExportError: a package is missing, or file and model differ, or their scores.
        ModelError: the model does not exist, is damaged, or cannot have the format.
        DataError: the output folder cannot be written to.
    """
    if not formats:
        raise ParamsError("no format is named", f"choose among {', '.join(plugins.names(_PACKAGE))}")
    modules = {name: _module(name) for name in dict.fromkeys(formats)}
    for module in modules.values():
        require_packages(module.PACKAGES, "export")
    require_writable(output)
    found = find_model(p, address, root)
    found.bundle.require("classes", "colors")
    _check(found.bundle, modules)
    return _Export(p, found, address, output, tolerance, max_loss, root).write(modules)


def _module(name: str) -> ModuleType:
    known = plugins.names(_PACKAGE)
    if name not in known:
        raise ParamsError(f"format {name!r} is unknown", f"choose among {', '.join(known)}")
    return plugins.load(_PACKAGE, name)


def _check(bundle: Bundle, modules: dict[str, ModuleType]) -> None:
    """Check that a model can have each format; with several of them, the remedy names the others."""
    refused: dict[str, ModelError] = {}
    for name, module in modules.items():
        try:
            module.check(bundle)
        except ModelError as error:
            refused[name] = error
    if not refused:
        return
    first, others = next(iter(refused.values())), [name for name in modules if name not in refused]
    if not others:
        raise first
    raise ModelError(
        f"{first.what}; nothing was written",
        f"leave out {', '.join(refused)}, and ask for {','.join(others)}; or {first.remedy}",
    ) from first


@dataclass
class _Export:
    """Export of one model; attributes as of `run_export`."""

    p: Params
    found: Found
    address: str
    output: Path
    tolerance: float
    max_loss: float
    root: Path

    def __post_init__(self) -> None:
        self.bundle, self.name = self.found.bundle, name_of(self.found)

    def write(self, modules: dict[str, ModuleType]) -> list[Path]:
        """Write all formats; what does not depend on the format is computed once."""
        from segcore.export._graph import Source

        self._say(f"{self.bundle.folder}, weights {self.bundle.weights_sha256[:12]}")
        regions, reason = held_out(self.bundle, self.root / PREPARED)
        if regions is None:
            self._say(f"{reason}; files are compared on random pixels, and have no score")
            for name in (name for name, module in modules.items() if module.IS_LOSSY):
                raise ExportError(
                    f"{self.name} as {name}: {reason}, so that what rounded weights lose is unknown",
                    "run the steps ingest and prepare with the data of this model, or choose the format onnx",
                )
        self.comparison = Comparison(self.p, self.bundle, regions, self.tolerance, self.max_loss)
        self.source = Source.of(self.bundle, self.comparison.scores)
        return [self._format(name, module) for name, module in modules.items()]

    def _format(self, name: str, module: ModuleType) -> Path:
        from segcore.export._parity_text import line

        target = self.output / self.name / name
        # not beside the target, whose folder disappears after an error
        lock = self.root / WORK / f"export-{digest(os.path.realpath(target))[:16]}.lock"
        with locked(lock), _without_empty_folders(target.parent, self.output):
            self._require_own(target)
            with atomic_folder(target) as part:
                facts = self._write(name, module, part)
        self._say(f"{name}: {line(facts)}")
        self._say(f"{name}: {target / module.FILE}")
        return target

    def _write(self, name: str, module: ModuleType, part: Path) -> dict[str, Any]:
        """Write the files of a format into a folder; facts of export.json."""
        from segcore.export._parity_text import markdown
        from segcore.export._runtime import write_record

        self._say(f"{name}: writing {module.FILE}")
        module.write(self.source, part)
        self._say(f"{name}: comparing it with the model")
        facts = self._facts(name, module, part)
        write_record(part, facts)
        (part / "parity.md").write_text(markdown(facts), encoding="utf-8")
        return facts

    def _require_own(self, target: Path) -> None:
        """Check that a new export replaces nothing but an earlier one of this model: two models may have one name."""
        is_export = (target / RECORD).is_file() or (target.is_dir() and not any(target.iterdir()))
        if os.path.lexists(target) and not is_export:
            raise ExportError(
                f"{target}: is in the way, and no export",
                "choose another --output, or move it away, then run again",
            )
        record = cached_json(target / RECORD) or {}
        weights, address = record.get("weights_sha256"), str(record.get("address"))
        if weights in (None, self.bundle.weights_sha256) or _place(address) == _place(self.address):
            return
        raise ExportError(
            f"{target}: has an export of another model, that at the address {address}",
            "choose another --output, or remove this folder, then run again",
        )

    def _facts(self, name: str, module: ModuleType, folder: Path) -> dict[str, Any]:
        """Content of export.json.

        Raises:
            ExportError: file and model, or their scores, differ by more than is accepted.
        """
        file = folder / module.FILE
        return {
            "format": name,
            "title": module.TITLE,
            "file": module.FILE,
            "sha256": sha256(file),
            "size": file.stat().st_size,
            "name": self.name,
            "address": self.address,
            "architecture": self.bundle.description["architecture"],
            "weights_sha256": self.bundle.weights_sha256,
            "description_sha256": self.bundle.description_sha256,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {package: version(package) for package in ("torch", *module.PACKAGES)},
            "tolerance": None if module.IS_LOSSY else self.tolerance,
            "max_loss": self.max_loss if module.IS_LOSSY else None,
            "parity": self.comparison.of_file(self.source, f"{self.name} as {name}", module, folder),
        }

    def _say(self, text: str) -> None:
        print(f"export {self.name}: {text}", flush=True)


def _place(address: str) -> str:
    """An address in the form in which two of one model are equal."""
    is_folder = address != CHAMPION and not address.startswith("models:/")
    return os.path.realpath(address) if is_folder else address


@contextmanager
def _without_empty_folders(*folders: Path) -> Iterator[None]:
    """After an error, remove those folders that did not exist before, and in which nothing was written."""
    new = [folder for folder in folders if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in new:
            # not empty, or never created
            with suppress(OSError):
                folder.rmdir()
        raise


def _formats(text: str) -> list[str]:
    return [word for word in text.replace(",", " ").split() if word]


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return value


def main() -> None:
    """Command line."""
    known = ", ".join(plugins.names(_PACKAGE))
    parser = argparse.ArgumentParser(prog="python -m tasks export", description=__doc__)
    parser.add_argument(
        "--model",
        default=CHAMPION,
        metavar="ADDRESS",
        help="folder of a bundle such as models/unet-0, models:/NAME@ALIAS, models:/NAME/3, "
        "or champion: that of data.name (default: %(default)s)",
    )
    parser.add_argument(
        "--format",
        type=_formats,
        default=["onnx"],
        metavar="LIST",
        help=f"{known}, with commas between (default: onnx)",
    )
    parser.add_argument("--output", type=Path, default=EXPORTS, help="output folder (default: %(default)s)")
    parser.add_argument(
        "--tolerance",
        type=_number,
        default=TOLERANCE,
        help="largest difference of an output between file and model (default: %(default)s)",
    )
    parser.add_argument(
        "--max-loss",
        type=_number,
        default=MAX_LOSS,
        help="largest loss of score of a format that rounds weights, 0.01: one percentage point (default: %(default)s)",
    )
    parser.add_argument("--params", default="params.yaml", help="parameters file (default: %(default)s)")
    console.run(
        lambda a: run_export(params.load(a.params), a.model, a.format, a.output, a.tolerance, a.max_loss),
        parser,
    )


console.refuse_as_script(__name__)
