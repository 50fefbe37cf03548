"""The networks of the guide on architectures build, learn, and are built again from their bundles."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import segcore.models
from segcore.models.base.bundle import load_bundle, save_bundle
from segcore.models.base.factory import build_model, kind
from segcore.objects.found import Objects

PAGE = Path(__file__).parents[2] / "docs/guide/architectures.md"


@pytest.fixture
def written(tmp_path: Path) -> Iterator[list[str]]:
    """Names of the page's networks, whose files are found as those of segcore/models."""
    names = []
    for code in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        name = re.match(r'"""segcore/models/(\w+)\.py:', code)
        assert name
        (tmp_path / f"{name[1]}.py").write_text(code)
        names.append(name[1])
    segcore.models.__path__.append(str(tmp_path))
    yield names
    segcore.models.__path__.remove(str(tmp_path))
    for name in names:
        sys.modules.pop(f"segcore.models.{name}", None)


def discs() -> dict[str, torch.Tensor]:
    """Two images of 64 x 64 pixels, one with two bright discs of class 1, one without objects."""
    rows, cols = np.mgrid[:64, :64]
    numbers = np.zeros((2, 64, 64), np.int64)
    for number, (row, col) in enumerate(((18, 20), (44, 40)), start=1):
        numbers[0][(rows - row) ** 2 + (cols - col) ** 2 <= 100] = number
    noise = np.random.default_rng(0).integers(40, 80, (2, 3, 64, 64))
    image = torch.from_numpy(noise + 150 * (numbers > 0)[:, None]).float()
    label = torch.from_numpy(numbers > 0).long()
    return {"image": image, "label": label, "instance": torch.from_numpy(numbers)}


def test_the_guides_networks_learn_and_are_built_again(written: list[str], tmp_path: Path) -> None:
    assert [kind(name) for name in written] == ["semantic", "instance"]
    batch = discs()
    for name in written:
        torch.manual_seed(0)
        model = build_model(name, 3, 2, encoder="resnet18")
        model.set_normalization([90.0] * 3, [40.0] * 3)
        optimizer = torch.optim.AdamW(model.parameters(), 0.005)
        losses = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = model.train().loss(batch)["loss"]
            loss.backward()
            assert all(p.grad is not None for p in model.parameters()), name
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] / 2, name
        save_bundle(tmp_path, model, name, {"classes": ["background", "disc"]})
        again, found = load_bundle(tmp_path).predict(batch["image"]), model.predict(batch["image"])
        if kind(name) == "semantic":
            assert torch.equal(again, found)
            continue
        assert isinstance(found[0], Objects) and "auto" not in model.settings.values()
        assert (len(found[0]), len(found[1])) == (2, 0)
        assert (again[0].numbers() == found[0].numbers()).all()
