"""Instance networks as files: the objects are those of the network, for any batch and size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segcore.export import onnx, pt2
from segcore.export._graph import INSTANCE, Source
from segcore.export._runtime import objects_of
from segcore.models.base.object_sizes import ObjectSizes
from segcore.objects.found import Objects
from tests.support.instance_batches import able, case_id, cases, crowd, network, scene, stacked
from tests.support.instance_bundle import bundle_of

pytestmark = pytest.mark.slow
CASES = [case for case in cases() if case[0] != "toy"]

# objects for which networks have maps of stride 64 and more
LARGE = ObjectSizes(sides=(60, 120, 250, 400, 600), ratios=(0.5, 1.0, 2.0), most=5, crop=512)


@pytest.fixture(scope="module", params=CASES, ids=case_id)
def source(request: pytest.FixtureRequest) -> Source:
    case: tuple[str, dict[str, Any]] = request.param
    return Source.of(bundle_of(able(network(case)), architecture=case[0], settings={}))


def plane(objects: Objects, index: int) -> np.ndarray:
    row, col, height, width = objects.boxes[index]
    full = np.zeros((objects.height, objects.width), bool)
    full[row : row + height, col : col + width] = objects.masks[index]
    return full


def check_same(found: Objects, wanted: Objects) -> None:
    """Scores of two objects that are equal but for rounding may be in another order."""
    assert len(found) == len(wanted)
    left = list(range(len(found)))
    for index in range(len(wanted)):
        near = [p for p in left if abs(found.scores[p] - wanted.scores[index]) < 1e-4]
        near = [p for p in near if found.classes[p] == wanted.classes[index]]
        # pixels of which the probability is .5 but for rounding
        place, *_ = [p for p in near if (plane(found, p) != plane(wanted, index)).sum() <= 2]
        left.remove(place)


@pytest.mark.parametrize("form", [onnx, pt2], ids=["onnx", "pt2"])
def test_an_exported_network_gives_the_objects_of_predict(source: Source, form: Any, tmp_path: Path) -> None:
    form.write(source, tmp_path)
    run, model, some = form.runner(tmp_path), source.model, 0
    images = stacked([scene(1, 160, 9), scene(2, 160, 0), crowd(3, 300, 160)])["image"]
    images[2, :, 10:30, 5:50] = torch.nan
    none = torch.full((2, 3, 64, 64), torch.nan)
    for batch in (images, images[:1, :, :64, :64], images[:, :, :37, :53], images[1:, :, :96], none):
        found = objects_of(run(batch.numpy()))
        wanted = model.predict(batch, batch.isfinite().all(1))
        for one, other in zip(found, wanted, strict=True):
            check_same(one, other)
        some += sum(map(len, wanted))
    assert some > 0 and not any(map(len, objects_of(run(none.numpy()))))


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_a_network_for_large_objects_of_one_class_is_exported_for_any_size(
    case: tuple[str, dict[str, Any]],
) -> None:
    model = able(network(case, num_classes=2, foreground=(1,), sizes=LARGE))
    source = Source.of(bundle_of(model, architecture=case[0], settings={}))
    program, some = source.program.module(), 0
    for batch, height, width in ((1, 64, 64), (2, 37, 53), (1, 200, 300), (1, 3, 90)):
        images = stacked([scene(index, 300, 9) for index in range(batch)])["image"][..., :height, :width]
        with torch.inference_mode():
            values = program(images)
        found = objects_of({name: value.numpy() for name, value in zip(INSTANCE, values, strict=True)})
        wanted = model.predict(images)
        for one, other in zip(found, wanted, strict=True):
            check_same(one, other)
        some += sum(map(len, wanted))
    assert some > 0
