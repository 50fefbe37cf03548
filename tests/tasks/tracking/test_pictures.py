"""Pictures of an evaluated run for MLflow."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from segcore.metrics.scores import scores
from tasks.tracking.pictures import Pictures, write_pictures
from tests.support.fake_project import SCORE, build_project, scene_patches
from tests.tasks.test_report import _params


def _pictures(folder: Path, has_objects: bool) -> Pictures:
    prepared = scene_patches(blocks=5, has_objects=has_objects)
    build_project(folder, prepared, _params(prepared))
    evaluation = folder / "evaluations/unet-0"
    objects = pd.read_parquet(evaluation / "objects.parquet") if has_objects else None
    found = scores(pd.read_parquet(evaluation / "counts.parquet"), [1], objects, SCORE)
    (folder / "out").mkdir()
    return write_pictures(
        prepared, folder / "models/unet-0", evaluation, "unet", "U-Net", folder / "out", found
    )


@pytest.mark.parametrize("has_objects", [False, True])
def test_a_run_has_charts_and_a_gallery_and_those_of_objects_where_it_has_some(
    tmp_path: Path, has_objects: bool
) -> None:
    pictures = _pictures(tmp_path, has_objects)
    of_objects = ["object_f1", "object_counts", "object_sizes"] if has_objects else []
    assert [path.stem for path in pictures.charts] == ["learning", "calibration", "confusion", *of_objects]
    assert [path.name for path in pictures.gallery] == [f"case_{i}.png" for i in range(4)]
    assert [path.name for path in pictures.objects] == [f"objects_{i}.png" for i in range(4 * has_objects)]
    for path in (*pictures.charts, *pictures.gallery, *pictures.objects):
        with Image.open(path) as picture:
            assert min(picture.size) > 300
