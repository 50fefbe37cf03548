"""Export of a trained model as a Prefect flow, for its deployment; a shell has `python -m tasks export`."""

from collections.abc import Sequence
from pathlib import Path

from flows import environment  # noqa: F401  isort: skip  (before prefect is imported)
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows import command, run_state
from segcore import params as parameters
from tasks.export import TOLERANCE, run_export
from tasks.project import EXPORTS
from tasks.tracking.fetch import CHAMPION


@flow(name="export")
@command.with_sentences
def export(
    formats: Sequence[str] = ("onnx",),
    model: str = CHAMPION,
    output: str = str(EXPORTS),
    tolerance: float = TOLERANCE,
    params: str = "params.yaml",
) -> list[str]:
    """Write a model as files of other formats, and show on the page of the flow run how well they agree with it.

    Args:
        formats: such as `onnx`, `deepness` and `pt2`.
        model: a bundle folder, an address `models:/...`, or "champion".
        output: folder, relative to the project's.
        tolerance: largest difference of an output between file and model.
        params: parameters file.

    Returns:
        The folders that were written, one per format.

    Raises:
        SegflowError: a format is unknown, its package is missing, or file and model differ; what was written
            before stays.
    """
    run_state.begin()
    folders = run_export(parameters.load(params), model, formats, Path(output), tolerance)
    for folder in folders:
        text = (folder / "parity.md").read_text(encoding="utf-8")
        create_markdown_artifact(key=f"parity-{folder.name}", markdown=text, description=str(folder))
    return [str(folder) for folder in folders]
