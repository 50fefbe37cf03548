"""Instance networks as files: the objects are those of the network, for any batch and size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segcore.export import onnx, pt2
from segcore.export._graph import Source
from segcore.export._runtime import objects_of
from segcore.objects.found import Objects
from tests.support.instance_batches import able, case_id, cases, crowd, network, scene, stacked
from tests.support.instance_bundle import bundle_of

pytestmark = pytest.mark.slow
CASES = [case for case in cases() if case[0] != "toy"]


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
