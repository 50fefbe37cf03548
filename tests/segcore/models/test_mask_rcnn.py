"""Mask R-CNN: its loss, its objects, its settings, and torchvision's weights."""

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2

from segcore.constants import IGNORE
from segcore.errors import ModelError
from segcore.models.base.factory import build_model, fitted
from segcore.models.base.instance import InstanceModel
from segcore.models.base.object_sizes import ObjectSizes

SMALL: dict[str, Any] = {"width": 16, "finest": 4, "anchors": [12, 24], "ratios": [1.0], "regions": 32}


def model_of(channels: int = 3, classes: int = 3, **keywords: Any) -> InstanceModel:
    torch.manual_seed(0)
    model = build_model("mask_rcnn", channels, classes, **{**SMALL, **keywords})
    assert isinstance(model, InstanceModel)
    model.set_normalization([80.0] * channels, [40.0] * channels)
    return model


def batch_of(
    images: int = 2, side: int = 64, objects: int = 4, seed: int = 0, channels: int = 3
) -> dict[str, Tensor]:
    """Discs (class 1) and squares (class 2) that are brighter than their surroundings."""
    rng = np.random.default_rng(seed)
    label, instance = (np.zeros((images, side, side), np.int64) for _ in range(2))
    rows, cols = np.mgrid[:side, :side]
    for image in range(images):
        for number in range(1, objects + 1):
            row, col, half = [*rng.integers(4, side - 4, 2).tolist(), rng.uniform(4, 10)]
            kind = rng.integers(1, 3)
            distance = (
                np.hypot(rows - row, cols - col)
                if kind == 1
                else abs(np.stack([rows - row, cols - col])).max(0)
            )
            inside = (distance <= half) & (instance[image] == 0)
            label[image][inside], instance[image][inside] = kind, number
    pixels = rng.normal(60, 10, (images, channels, side, side)) + 60 * label[:, None]
    return {
        "image": torch.from_numpy(pixels).float(),
        "label": torch.from_numpy(label),
        "instance": torch.from_numpy(instance),
    }


def part(batch: dict[str, Tensor], *places: int) -> dict[str, Tensor]:
    return {name: tensor[list(places)] for name, tensor in batch.items()}


def test_the_loss_of_a_batch_is_that_of_its_images() -> None:
    model = model_of().eval()
    batch = batch_of(3, objects=5)
    batch["label"][1], batch["instance"][1] = 0, 0
    parts = [part(batch, i) for i in range(3)]
    truths = [model.truth(p) for p in parts]
    totals = {name: sum(model.weights(t)[name] for t in truths) for name in model.coefficients}
    whole = model.loss(batch)
    for name, value in whole.items():
        torch.testing.assert_close(
            sum(model.loss(p, totals)[name] for p in parts), value, rtol=1e-4, atol=1e-6
        )
    assert {name for name, value in whole.items() if value > 0} == {"loss", *model.coefficients}


@pytest.mark.parametrize("kind", ["empty", "ignored", "one pixel", "whole image"])
def test_every_parameter_gets_a_finite_gradient(kind: str) -> None:
    model, batch = model_of(), batch_of()
    batch["label"][:], batch["instance"][:] = (IGNORE if kind == "ignored" else 0), 0
    if kind == "one pixel":
        batch["label"][0, 30, 30], batch["instance"][0, 30, 30] = 1, 7
    if kind == "whole image":
        batch["label"][:], batch["instance"][:] = 2, 9
    loss = model.loss(batch)
    loss["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    if kind == "ignored":
        assert {value.item() for value in loss.values()} == {0}
        assert not any(parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)
    else:
        assert loss["loss"] > 0
    assert (loss["mask"] > 0) == (kind in ("one pixel", "whole image"))


def test_pixels_and_objects_under_ignore_change_no_loss() -> None:
    model, batch = model_of().eval(), batch_of(1)
    batch["label"][0, :, 40:] = IGNORE
    other = copy.deepcopy(batch)
    other["instance"][0, :, 40:] = torch.arange(24) % 5
    first, second = model.loss(batch), model.loss(other)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_objects_do_not_depend_on_the_rest_of_the_batch() -> None:
    model, images = model_of(), batch_of(3)["image"]
    together = model.predict(images)
    assert all(len(found) for found in together)
    for image, found in zip(images, together, strict=True):
        alone = model.predict(image[None])[0]
        np.testing.assert_array_equal(alone.classes, found.classes)
        np.testing.assert_array_equal(alone.boxes, found.boxes)
        np.testing.assert_allclose(alone.scores, found.scores, rtol=1e-4)
        assert all((a == b).all() for a, b in zip(alone.masks, found.masks, strict=True))


@pytest.mark.parametrize("encoder", ["mobilenet_v2", "resnet18", "vgg16"])
@pytest.mark.parametrize(
    ("height", "width", "magnify", "channels"), [(37, 70, 1, 5), (9, 3, 2, 1), (50, 33, 0.5, 3)]
)
def test_images_of_any_size_and_number_of_bands_are_taken(
    encoder: str, height: int, width: int, magnify: float, channels: int
) -> None:
    model = model_of(
        channels, magnify=magnify, encoder=encoder, finest=8, anchors=[16, 32, 64, 128], ratios=[0.5, 2]
    )
    batch = batch_of(2, side=80, channels=channels)
    batch = {name: tensor[..., :height, :width] for name, tensor in batch.items()}
    model.loss(batch)["loss"].backward()
    for found in model.predict(batch["image"]):
        assert (found.height, found.width) == (height, width)
        for (row, col, high, wide), mask in zip(found.boxes, found.masks, strict=True):
            assert mask.shape == (high, wide) and mask.any()
            assert row >= 0 and col >= 0 and row + high <= height and col + wide <= width
        assert set(found.classes) <= {1, 2}


def test_it_learns_an_image_by_heart() -> None:
    model, batch = model_of(width=32, proposals=32).train(), batch_of(1, objects=3, seed=3)
    with torch.no_grad():
        for _ in range(30):
            model(batch["image"])
    # batch norm as in prediction: of the 2 x 2 pixels of the coarsest map, its variance would differ
    model.eval()
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=100, pct_start=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        model.loss(batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    found = model.predict(batch["image"])[0]
    found = found.select(found.scores > 0.5)
    numbers, truth = found.numbers(), batch["instance"][0].numpy()
    assert len(found) == truth.max() == 3
    for number in range(1, 4):
        inside = truth == number
        place = np.bincount(numbers[inside]).argmax()
        assert (inside & (numbers == place)).sum() / (inside | (numbers == place)).sum() > 0.8
        assert found.classes[place - 1] == batch["label"][0].numpy()[inside][0]


def test_mixed_precision_gives_a_finite_loss_and_objects() -> None:
    model, batch = model_of(), batch_of()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(batch)["loss"]
        found = model.predict(batch["image"])
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    assert all(len(f) for f in found)


def test_settings_follow_from_the_objects() -> None:
    houses = ObjectSizes((11, 26, 38, 52, 122), (0.6, 1.0, 1.6), 21, 256)
    assert {**fitted("mask_rcnn", {}, houses), "weights": ""} == {
        "encoder": "mobilenet_v2", "weights": "", "width": 64, "finest": 8, "anchors": [16, 32, 64, 128],
        "ratios": [0.6, 1.0, 1.6], "proposals": 84, "detections": 50, "regions": 84,
    }  # fmt: skip
    nuclei = fitted(
        "mask_rcnn", {"anchors": [10.0, 20.0]}, ObjectSizes((6, 9, 12, 15, 20), (0.9, 1.0, 1.1), 400, 256)
    )
    assert nuclei["finest"] == 4 and nuclei["anchors"] == [10.0, 20.0] and nuclei["ratios"] == [1.0]
    assert (nuclei["proposals"], nuclei["detections"], nuclei["regions"]) == (1600, 800, 512)


def test_fewer_regions_than_train_a_mask_are_refused() -> None:
    for regions in (1, 3):
        with pytest.raises(ModelError, match="regions is"):
            fitted("mask_rcnn", {"regions": regions}, ObjectSizes())
    model, batch = model_of(regions=4), batch_of()
    loss = model.loss(batch)
    loss["loss"].backward()
    assert loss["mask"] > 0 and model.mask_head.score.weight.grad.abs().max() > 0


def test_the_loss_of_masks_is_the_mean_over_those_that_are_trained() -> None:
    """With more objects than masks per image; the untrained network has a cross-entropy of about log 2 everywhere."""
    batch = batch_of(3, side=128, objects=30)
    batch["label"][2], batch["instance"][2] = 0, 0
    for regions in (16, 32, 512):
        model = model_of(regions=regions).eval()
        torch.nn.init.zeros_(model.mask_head.score.weight)
        torch.nn.init.zeros_(model.mask_head.score.bias)
        truth = model.truth(batch)
        objects = torch.bincount(truth.item, minlength=3)
        assert model.weights(truth)["mask"] == objects.clamp(max=regions // 4).sum()
        assert int(model.unplaced(truth)) == int((objects - regions // 4).clamp(min=0).sum())
        assert float(model.loss(batch)["mask"]) == pytest.approx(np.log(2), rel=1e-4)


def test_anchors_of_objects_of_one_size_or_larger_than_a_crop_are_within_it() -> None:
    same = fitted("mask_rcnn", {}, ObjectSizes((30.0,) * 5, (1.0,) * 3, 5, 256))
    assert (same["anchors"], same["ratios"]) == ([42.4], [1.0])
    huge = fitted("mask_rcnn", {}, ObjectSizes((50, 500, 900, 2000, 4000), (0.1, 1.0, 9.0), 5, 256))
    assert (huge["anchors"], huge["ratios"]) == ([70.7, 141.4, 282.8], [0.1, 1.0, 9.0])


def test_an_image_without_proposals_has_no_objects() -> None:
    model = model_of().eval()
    with torch.no_grad():
        *maps, scores, offsets = model(batch_of()["image"])
        # boxes without area
        offsets[..., 2:] = -1e4
        assert [len(found) for found in model.detect((*maps, scores, offsets), 64, 64)] == [0, 0]


def published(classes: int, **keywords: Any) -> dict[str, Any]:
    return {
        "encoder": "resnet50", "width": 256, "finest": 4, "anchors": [32, 64, 128, 256, 512], "ratios": [0.5, 1, 2],
        "foreground": list(range(1, classes)), **keywords,
    }  # fmt: skip


def test_weights_of_torchvision_give_its_features(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(1)
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.normal_(module.running_mean, std=0.1)
    save_file(theirs.state_dict(), tmp_path / "coco.safetensors")
    ours = build_model(
        "mask_rcnn", 3, 3, **published(3, weights=f"file:{tmp_path / 'coco.safetensors'}")
    ).eval()
    x = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        *maps, scores, offsets = ours.heads(x)
        expected = theirs.backbone(x)
        their_scores, _ = theirs.rpn.head(list(expected.values()))
    for ours_of_level, theirs_of_level in zip(maps, expected.values(), strict=True):
        torch.testing.assert_close(ours_of_level, theirs_of_level, rtol=1e-5, atol=1e-5)
    level = their_scores[0].permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(scores[:, : level.shape[1]], level, rtol=1e-5, atol=1e-5)
    assert offsets.shape[1] == scores.shape[1] == sum(s.numel() for s in their_scores)
    region = torch.randn(4, 256, 7, 7)
    with torch.no_grad():
        hidden = theirs.roi_heads.box_head(region)
        torch.testing.assert_close(ours.box_head.layers(region), hidden, rtol=1e-4, atol=1e-5)
    assert len(caplog.records) == 1 and caplog.records[0].levelno == logging.WARNING
    assert "6 tensors of torchvision's Mask R-CNN were not placed" in caplog.text
    assert "roi_heads.box_predictor.cls_score.weight (91, 1024), here (3, 1024)" in caplog.text


def test_weights_of_torchvision_fit_entirely_with_its_classes_and_old_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)
    state = theirs.state_dict()
    for place in range(4):
        for kind in ("weight", "bias"):
            for name in ("inner_blocks", "layer_blocks"):
                key = f"backbone.fpn.{name}.{place}"
                state[f"{key}.{kind}"] = state.pop(f"{key}.0.{kind}")
            state[f"roi_heads.mask_head.mask_fcn{place + 1}.{kind}"] = state.pop(
                f"roi_heads.mask_head.{place}.0.{kind}"
            )
    for kind in ("weight", "bias"):
        state[f"rpn.head.conv.{kind}"] = state.pop(f"rpn.head.conv.0.0.{kind}")
    save_file(state, tmp_path / "coco.safetensors")
    ours = build_model(
        "mask_rcnn", 3, 4, **published(4, weights=f"file:{tmp_path / 'coco.safetensors'}")
    ).eval()
    assert not caplog.records
    predictor = theirs.roi_heads.mask_predictor.eval()
    x, classes = torch.randn(3, 256, 14, 14), torch.tensor([0, 1, 2])
    with torch.no_grad():
        expected = predictor(theirs.roi_heads.mask_head(x))[torch.arange(3), classes + 1]
        torch.testing.assert_close(ours.mask_head(x, classes), expected, rtol=1e-4, atol=1e-5)


def test_of_the_second_version_of_torchvision_the_encoder_fits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
    save_file(theirs.state_dict(), tmp_path / "coco.safetensors")
    weights = f"file:{tmp_path / 'coco.safetensors'}"
    ours = build_model("mask_rcnn", 3, 3, **published(3, weights=weights))
    layer = "layer4.2.conv3.weight"
    assert torch.equal(
        ours.encoder.stages[4].state_dict()["2.conv3.weight"], theirs.backbone.body.state_dict()[layer]
    )
    assert "backbone.fpn.inner_blocks.0.0.weight, no such layer" in caplog.text


def test_the_encoder_of_a_detector_serves_other_networks(tmp_path: Path) -> None:
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    save_file(theirs.state_dict(), tmp_path / "coco.safetensors")
    unet = build_model("unet", 3, 2, encoder="resnet50", weights=f"file:{tmp_path / 'coco.safetensors'}")
    assert torch.equal(unet.encoder.stages[0][0].weight, theirs.backbone.body.conv1.weight)
