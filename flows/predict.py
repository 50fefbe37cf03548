"""Prediction of new scenes as a Prefect flow, one task per scene.

    python -m flows.predict SCENES... --model ADDRESS --output FOLDER

Does the same as `python -m tasks predict`, and shows progress in Prefect's UI: an unusable scene is a failed task.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from flows import environment  # noqa: F401  isort: skip  (before prefect is imported)
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows import command, run_state
from segcore import params as parameters
from segcore.params.operations import Output, Unlike
from tasks.exported import EAGER
from tasks.predict import Batch, settings_of
from tasks.prediction_arguments import chosen, parser
from tasks.project import PREDICTIONS
from tasks.scenes import find_scenes
from tasks.tracking.fetch import CHAMPION, find_model


@task(task_run_name="{name}", cache_policy=NO_CACHE)
@command.with_sentences
def predict_scene(batch: Batch, scene: Path, name: str) -> list[str]:
    """Predict one scene.

    Args:
        batch: an entered batch.
        scene: an element of `batch.todo`.
        name: prefix of its output files.

    Returns:
        Names of its output files.

    Raises:
        DataError: the scene cannot be used.
    """
    try:
        files = batch.predict(scene)
    finally:
        for _, text in batch.notes.get(scene, []):
            get_run_logger().info("%s: %s", scene, text)
    get_run_logger().info("%s: %s", scene, ", ".join(files))
    if line := batch.counts(scene):
        get_run_logger().info(line)
    return files


@flow(name="predict")
@command.with_sentences
def predict(
    scenes: Sequence[str],
    model: str = CHAMPION,
    output: str = str(PREDICTIONS),
    params: str = "params.yaml",
    outputs: Sequence[Output] | None = None,
    accept: Sequence[Unlike] | None = None,
    delete_others: bool = False,
    count_by: str | None = None,
    runtime: str = EAGER,
) -> dict[str, int]:
    """Predict all scenes that are not done yet.

    Args:
        scenes: files, folders and glob patterns; relative to the project's folder, as all paths.
        model: a bundle folder, an address `models:/...`, or "champion".
        output: folder of the output files and of predictions.json.
        params: parameters file.
        outputs: files to write per scene; None: `predict.outputs`.
        accept: in what scenes may be unlike the training images; None: `predict.accept`.
        delete_others: delete files of earlier predictions of these scenes that are no wanted output.
        count_by: file of polygons in which objects are counted; None: `predict.count_by`.
        runtime: "eager", or what runs an exported file of the model, such as "onnx".

    Returns:
        Numbers of scenes "predicted" and "done before".

    Raises:
        StageError: some scenes failed; the others are done.
        SegflowError: the prediction could not start.
    """
    run_state.begin()
    p = chosen(parameters.load(params), outputs, accept, count_by)
    with Batch(p, scenes, model, Path(output), runtime) as batch:
        for scene in batch.todo:
            state = predict_scene(batch, scene, batch.names[scene], return_state=True)
            if scene not in batch.failed:
                # raises errors other than those of the scene
                state.result()
        return batch.finish(delete_others)


def main() -> None:
    """Command line; exits with status 1 and prints a remedy on a SegflowError."""
    a: argparse.Namespace = parser("python -m flows.predict", __doc__).parse_args()
    with command.reported("Interrupted; finished scenes are kept."):
        # errors that need no server, which takes up to a minute to start
        p = chosen(parameters.load(str(a.params)), a.outputs, a.accept, a.count_by)
        find_scenes(a.scenes, a.output)
        found = find_model(p, a.model)
        # torch takes seconds to import
        from segcore.prediction.bundle_settings import require_outputs

        require_outputs(settings_of(p), found.bundle)
    with command.as_command("Interrupted; finished scenes are kept."):
        output = str(a.output)
        settings = (a.outputs, a.accept, a.delete_others, a.count_by, a.runtime)
        counts = predict(list(a.scenes), a.model, output, str(a.params), *settings)
        print(", ".join(f"{number} {what}" for what, number in counts.items()) + f": {output}")


if __name__ == "__main__":
    main()
