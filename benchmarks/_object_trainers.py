"""One timed training of objects in a separate process: `python -m benchmarks._object_trainers ours '{...}'`.

- ours: `segcore.training.loop.train` on the prepared data, with every setting of `speed` at auto;
- torchvision: the loop of torchvision's references/detection/engine.py, a DataLoader of PNG tiles, transforms.v2;
- torchgeo: InstanceSegmentationTask in Lightning's Trainer, on the same tiles;
- stock: the loop of torchvision with the sizes that its Mask R-CNN has by default: images enlarged to 800 pixels, maps
  of 256 channels, 2,000 proposals.

All but the last have torchvision's network with the encoder, the strides, anchors, widths and numbers of proposals of
ours, whose images are not resized. Tiles and crops are of object numbers, from which boxes and masks are made after the
augmentation; usual code makes the masks of all objects of a tile before it, which takes longer.
"""

import json
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks import _networks, _trainers
from benchmarks._trainers import RATE, Clock, Job
from segcore.data.prepared import PreparedData
from segcore.inference.device import autocast, choose_precision, default_device
from segcore.models.base.model import SegmentationModel

# at 800 pixels a batch of 8 does not fit into the memory of a small machine
STOCK: dict[str, Any] = {"batch": 2, "warmup": 1, "steps": 2}
# by stride: last layer of MobileNetV2 and its channels, without the convolution of its classifier
LAYERS = {4: ("3", 24), 8: ("6", 32), 16: ("13", 96), 32: ("17", 320)}
# pixels; objects of fewer are left out, as by `train.common.objects.min_area`
LEAST = 16


class Tiles(Dataset[Any]):
    """Images and targets as torchvision's detectors take them, from PNG tiles of images and object numbers."""

    def __init__(self, folder: Path) -> None:
        self.images = sorted((folder / "images").glob("*.png"))
        self.masks = sorted((folder / "masks").glob("*.png"))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        from torchvision import tv_tensors
        from torchvision.transforms.v2.functional import pil_to_tensor

        from benchmarks._loaders import transforms_of

        image = tv_tensors.Image(pil_to_tensor(Image.open(self.images[index])))
        numbers = torch.from_numpy(np.array(Image.open(self.masks[index]), np.int32))[None]
        image, numbers = transforms_of(image.shape[-1])(image, tv_tensors.Mask(numbers))
        return image.as_subclass(Tensor) / 255, targets(numbers[0].as_subclass(Tensor))


def targets(numbers: Tensor) -> dict[str, Tensor]:
    """Boxes, labels and masks of a map of object numbers (H, W)."""
    from torchvision.ops import masks_to_boxes

    values, counts = numbers.unique(return_counts=True)
    values = values[(values > 0) & (counts >= LEAST)]
    masks = numbers == values[:, None, None]
    boxes = masks_to_boxes(masks)
    # to the far edges of the last pixels
    boxes[:, 2:] += 1
    return {"boxes": boxes, "labels": torch.ones(len(values), dtype=torch.int64), "masks": masks.byte()}


def own(job: Job, precision: str) -> tuple[SegmentationModel, Any, PreparedData]:
    """Our network, fitted to the objects of the data, with the settings of its training."""
    from segcore.training.build import new_model

    data = PreparedData(job.prepared)
    settings = _trainers.settings_of(job, precision).model_copy(update={"weights": "none"})
    return new_model(job.network, settings, data, seed=0), settings, data


def alike(model: Any, crop: int) -> nn.Module:
    """The Mask R-CNN of torchvision with the encoder and sizes of ours, for crops that are not resized."""
    from torchvision import models, ops
    from torchvision.models.detection import MaskRCNN, backbone_utils, faster_rcnn, mask_rcnn, rpn

    settings = model.settings
    width, sides = settings["width"], settings["anchors"]
    mask_layers = sum(isinstance(layer, nn.Conv2d) for layer in model.mask_head.layers)
    strides = [stride for stride in LAYERS if stride >= settings["finest"]]
    body = backbone_utils.BackboneWithFPN(
        models.mobilenet_v2(weights=None).features[:-1],
        {LAYERS[stride][0]: str(level) for level, stride in enumerate(strides)},
        [LAYERS[stride][1] for stride in strides],
        width,
        _levels(len(sides)),
    )
    levels = [str(level) for level in range(min(len(strides), len(sides)))]
    per_image = settings["proposals"] * max(math.ceil(crop**2 / 256**2), 1)
    return MaskRCNN(
        body,
        min_size=crop,
        max_size=crop,
        image_mean=[_networks.MEAN / 255] * 3,
        image_std=[_networks.STD / 255] * 3,
        rpn_anchor_generator=rpn.AnchorGenerator(
            tuple((side,) for side in sides), (tuple(settings["ratios"]),) * len(sides)
        ),
        rpn_head=rpn.RPNHead(width, len(settings["ratios"])),
        rpn_pre_nms_top_n_train=2 * per_image,
        rpn_post_nms_top_n_train=per_image,
        box_roi_pool=ops.MultiScaleRoIAlign(levels, output_size=7, sampling_ratio=2),
        box_head=faster_rcnn.TwoMLPHead(width * 49, 4 * width),
        box_predictor=faster_rcnn.FastRCNNPredictor(4 * width, 2),
        box_batch_size_per_image=settings["regions"],
        mask_roi_pool=ops.MultiScaleRoIAlign(levels, output_size=14, sampling_ratio=2),
        mask_head=mask_rcnn.MaskRCNNHeads(width, (width,) * mask_layers, 1),
        mask_predictor=mask_rcnn.MaskRCNNPredictor(width, width, 2),
    )


def _levels(count: int) -> nn.Module:
    """For a pyramid of as many maps as there are sides of anchors, of which one may be beyond the encoder's."""
    from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

    class Levels(ExtraFPNBlock):
        def forward(self, results: list[Tensor], x: Any, names: list[str]) -> tuple[list[Tensor], list[str]]:
            if count > len(results):
                results, names = [*results, results[-1][..., ::2, ::2]], [*names, "pool"]
            return results[:count], names[:count]

    return Levels()


def default_sizes() -> nn.Module:
    """The Mask R-CNN of torchvision on MobileNetV2 with all sizes at their defaults."""
    from torchvision import models
    from torchvision.models.detection import MaskRCNN, backbone_utils, rpn

    body = backbone_utils.BackboneWithFPN(
        models.mobilenet_v2(weights=None).features[:-1],
        {layer: str(level) for level, (layer, _) in enumerate(LAYERS.values())},
        [channels for _, channels in LAYERS.values()],
        256,
    )
    anchors = rpn.AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5)
    return MaskRCNN(body, 2, rpn_anchor_generator=anchors)


def _loop(model: nn.Module, job: Job, clock: Clock, precision: str) -> None:
    """`train_one_epoch` of torchvision's reference, whose meter reads each loss at every step."""
    device = default_device()
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=1000)
    meter = []
    loader = _trainers.data_loader(
        Tiles(Path(job.png)), job, collate_fn=lambda batch: tuple(zip(*batch, strict=True))
    )
    for step, (images, truths) in enumerate(loader):
        images = [image.to(device) for image in images]
        truths = [{key: value.to(device) for key, value in truth.items()} for truth in truths]
        with autocast(device, precision):
            losses = model(images, truths)
            loss = sum(losses.values())
        if not math.isfinite(loss.item()):
            raise RuntimeError(f"the loss is {losses}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        meter.append({key: value.item() for key, value in losses.items()})
        clock(step + 1)
        if step + 1 == job.warmup + job.steps:
            return


def torchvision(job: Job, clock: Clock, precision: str) -> nn.Module:
    """(c): torchvision's loop with its network in our sizes."""
    model = alike(own(job, precision)[0], job.crop)
    _loop(model, job, clock, precision)
    return model


def stock(job: Job, clock: Clock, precision: str) -> nn.Module:
    """(s): torchvision's loop with its network in its own sizes."""
    model = default_sizes()
    _loop(model, job, clock, precision)
    return model


def torchgeo(job: Job, clock: Clock, precision: str) -> nn.Module:
    """(d): TorchGeo's task with torchvision's network in our sizes."""
    warnings.simplefilter("ignore")
    from torchgeo.trainers import InstanceSegmentationTask

    task: Any = InstanceSegmentationTask(num_classes=2, lr=RATE)
    no_resize = task.model.transform
    task.model = alike(own(job, precision)[0], job.crop)
    task.model.transform = no_resize

    def batch(samples: list[tuple[Tensor, dict[str, Tensor]]]) -> dict[str, Any]:
        images = torch.stack([image for image, _ in samples])
        names = {"bbox_xyxy": "boxes", "label": "labels", "mask": "masks"}
        truth = {new: [target[old] for _, target in samples] for new, old in names.items()}
        return {"image": (images * 255 - _networks.MEAN) / _networks.STD, **truth}

    loader = _trainers.data_loader(Tiles(Path(job.png)), job, collate_fn=batch)
    _trainers.fit(task, loader, job, clock, precision)
    model: nn.Module = task.model
    return model


def ours(job: Job, clock: Clock, precision: str) -> nn.Module:
    """(a): the training of this project."""
    model, settings, _ = own(job, precision)
    _trainers.timed(model, settings, job, clock)
    return model


CONTESTANTS: dict[str, Callable[[Job, Clock, str], nn.Module]] = {
    "ours": ours,
    "torchvision": torchvision,
    "torchgeo": torchgeo,
    "stock": stock,
}


def figures(name: str, job: Job) -> dict[str, Any]:
    """Images per second and what they depend on."""
    job = job._replace(**STOCK) if name == "stock" else job
    clock, precision = Clock(job), choose_precision("auto", default_device())
    model = CONTESTANTS[name](job, clock, precision)
    return {
        "rate": job.steps * job.batch / clock.seconds,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "device_mb": torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else 0.0,
        "parameters": sum(p.numel() for p in model.parameters()) / 1e6,
        "batch": job.batch,
    }


if __name__ == "__main__":
    print(json.dumps(figures(sys.argv[1], Job(**json.loads(sys.argv[2])))))
