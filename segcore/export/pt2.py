"""torch.export: a graph with its weights that PyTorch runs without this library, and a STAC item that describes it."""

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segcore.errors import ModelError
from segcore.models.base.bundle import Bundle

if TYPE_CHECKING:
    from segcore.export._graph import Source

TITLE = "torch.export"
FILE = "model.pt2"
ITEM = f"{FILE}.stac.json"
PACKAGES: tuple[str, ...] = ()
IS_LOSSY = False
# within model.pt2
_METADATA = "metadata.json"


def check(bundle: Bundle) -> None:
    """Every model can be written."""


def side(bundle: Bundle) -> int | None:
    """None: height and width are dynamic."""
    return None


def write(source: "Source", folder: Path) -> None:
    """Write model.pt2, and a STAC item beside it.

    Raises:
        ModelError: an operator of the network cannot be exported.
    """
    import torch
    from torch._export.serde.serialize import SerializeError

    from segcore.export._graph import not_exportable
    from segcore.export._stac import item

    program, content = copy.copy(source.program), io.BytesIO()
    # the only part that would be a pickle
    program.example_inputs = None
    extra = {_METADATA: json.dumps(source.metadata, ensure_ascii=False)}
    try:
        torch.export.save(program, content, extra_files=extra)
    except SerializeError as error:
        raise not_exportable(source.model, error) from error
    # on a full disk, torch's own writer of files ends the process
    (folder / FILE).write_bytes(content.getbuffer())
    described = item(source, folder / FILE)
    (folder / ITEM).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def runner(folder: Path, threads: int | None = None) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function that runs model.pt2 on raw pixels (N, C, H, W) float32; outputs by name.

    Args:
        folder: with the file.
        threads: has no effect: torch's own number of threads is used.

    Raises:
        ModelError: the file is damaged.
    """
    import torch

    from segcore.export._graph import quiet

    path, extra = folder / FILE, {_METADATA: ""}
    try:
        # of a damaged file, torch logs the traceback of each attempt
        with quiet():
            program = torch.export.load(path, extra_files=extra)
        names = tuple(json.loads(json.loads(extra[_METADATA])["outputs"]))
    # torch raises errors of many types, for each part of an archive
    except Exception as error:
        raise ModelError(
            f"{path}: cannot be read ({type(error).__name__}: {str(error)[:200]})", "export the model again"
        ) from error
    module = program.module()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            values = module(torch.from_numpy(images))
        return {name: value.numpy() for name, value in zip(names, values, strict=True)}

    return run
