"""One timed training in a separate process: `python -m benchmarks._trainers ours '{...}'` prints figures as JSON.

- ours: `segcore.training.loop.train` on the prepared data, with every setting of `speed` at auto;
- lightning: Lightning's Trainer, a DataLoader of PNG tiles, albumentations;
- torchvision: the loop of torchvision's references/segmentation/train.py, a DataLoader of PNG tiles, transforms.v2;
- torchgeo: SemanticSegmentationTask in Lightning's Trainer, RandomGeoSampler on the GeoTIFFs;
- limit: forward, loss, backward and optimiser on one batch that remains on the device.

All minimise cross-entropy with AdamW. In the other loops the network has torch's default memory format, as usual there.
"""

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from benchmarks import _networks
from segcore.inference.device import autocast, choose_precision, default_device
from segcore.models.base.model import SegmentationModel

RATE = 1e-3


class Job(NamedTuple):
    """Network, length and data of a training; paths are strings, for JSON.

    With `processor`, times are those of the processor in the training's own process, whatever else runs.
    """

    network: str
    batch: int
    crop: int
    warmup: int
    steps: int
    workers: int
    prepared: str
    png: str
    scenes: str
    processor: bool = False


class Clock:
    """Seconds between two steps, after synchronising the device."""

    def __init__(self, job: Job) -> None:
        self.first, self.last, self.start, self.seconds = job.warmup, job.warmup + job.steps, 0.0, 0.0
        self.now = time.process_time if job.processor else time.perf_counter

    def __call__(self, done: int) -> None:
        if done not in (self.first, self.last):
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = self.now()
        self.start, self.seconds = (now, 0.0) if done == self.first else (self.start, now - self.start)


class Tiles(Dataset[Any]):
    """PNG tiles, augmented by albumentations."""

    def __init__(self, folder: Path, crop: int, zoom: float = 1.25) -> None:
        import albumentations as A
        from albumentations.pytorch import ToTensorV2

        self.images = sorted((folder / "images").glob("*.png"))
        self.masks = sorted((folder / "masks").glob("*.png"))
        side = 512
        scale = ((crop / side / zoom) ** 2, (crop / side * zoom) ** 2)
        self.transform = A.Compose(
            [
                A.RandomResizedCrop(size=(crop, crop), scale=scale, ratio=(1, 1)),
                A.HorizontalFlip(),
                A.VerticalFlip(),
                A.RandomRotate90(),
                A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2),
                A.Normalize([_networks.MEAN / 255] * 3, [_networks.STD / 255] * 3),
                ToTensorV2(),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        import cv2

        image = cv2.cvtColor(cv2.imread(str(self.images[index])), cv2.COLOR_BGR2RGB)
        mask = cv2.imread(str(self.masks[index]), cv2.IMREAD_GRAYSCALE)
        both = self.transform(image=image, mask=mask)
        return both["image"], both["mask"].long()


def _one_thread(worker: int) -> None:
    import cv2

    # as recommended by albumentations
    cv2.setNumThreads(0)


def data_loader(data: Any, job: Job, **options: Any) -> DataLoader[Any]:
    """A DataLoader as in the manuals: worker processes, and pinned memory for a GPU."""
    if "sampler" not in options:
        options["sampler"] = RandomSampler(data, replacement=True, num_samples=10**6)
    return DataLoader(
        data, job.batch, num_workers=job.workers, pin_memory=torch.cuda.is_available(), **options
    )


def fit(module: Any, loader: Any, job: Job, clock: Clock, precision: str) -> None:
    """Train with Lightning's Trainer."""
    import lightning

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
            clock(trainer.global_step)

    with tempfile.TemporaryDirectory() as folder:
        lightning.Trainer(
            max_steps=job.warmup + job.steps,
            precision="bf16-mixed" if precision == "bf16" else "32-true",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[Watch()],
            devices=1,
        ).fit(module, loader)


def lightning(job: Job, clock: Clock, precision: str) -> None:
    """(b): the usual code with segmentation_models_pytorch."""
    import lightning as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = _networks.Plain(_networks.network(job.network))

        def training_step(self, batch: Any, index: int) -> Tensor:
            loss = F.cross_entropy(self.net(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=RATE)

    fit(
        Module(),
        data_loader(Tiles(Path(job.png), job.crop), job, worker_init_fn=_one_thread),
        job,
        clock,
        precision,
    )


def torchvision(job: Job, clock: Clock, precision: str) -> None:
    """(c): `train_one_epoch` of torchvision's reference, whose meter reads the loss at every step."""
    from benchmarks._loaders import PngFolder

    device = default_device()
    model = _networks.Plain(_networks.network(job.network)).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=10**6, power=0.9)
    meter = []
    for step, (image, mask) in enumerate(data_loader(PngFolder(Path(job.png)), job)):
        image, mask = image.to(device), mask[:, 0].to(device)
        with autocast(device, precision):
            loss = F.cross_entropy(model((image - _networks.MEAN) / _networks.STD), mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        meter.append((loss.item(), optimizer.param_groups[0]["lr"]))
        clock(step + 1)
        if step + 1 == job.warmup + job.steps:
            return


def torchgeo(job: Job, clock: Clock, precision: str) -> None:
    """(d): TorchGeo's task, dataset and sampler."""
    warnings.simplefilter("ignore")
    from torchgeo.trainers import SemanticSegmentationTask

    from benchmarks._loaders import torchgeo_parts

    task = SemanticSegmentationTask("unet", "mobilenet_v2", in_channels=3, num_classes=2, loss="ce", lr=RATE)
    task.model = _networks.Plain(_networks.network(job.network))
    data, sampler, collate = torchgeo_parts(Path(job.scenes))

    def batch(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        image, mask = collate(samples)
        return {"image": (image - _networks.MEAN) / _networks.STD, "mask": mask.squeeze(1)}

    fit(task, data_loader(data, job, sampler=sampler, collate_fn=batch), job, clock, precision)


def settings_of(job: Job, precision: str) -> Any:
    """Settings of our training; the others have their defaults."""
    from segcore.params import TrainSettings

    steps = job.warmup + job.steps
    options: dict[str, Any] = {"loss": "cross_entropy", "learning_rate": RATE, "precision": precision}
    return TrainSettings(steps=steps, batch=job.batch, crop=job.crop, validate_every=steps, **options)


def limit(job: Job, clock: Clock, precision: str) -> None:
    """(e): only the steps of the network, with the runtime of (a): memory format, threads, optimiser, compilation."""
    from segcore.data.prepared import PreparedData
    from segcore.training.runtime import choose_runtime

    device = default_device()
    runtime = choose_runtime(settings_of(job, precision), PreparedData(job.prepared), device)
    runtime.apply()
    model = _networks.network(job.network).to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=runtime.fused)
    forward = torch.compile(model.segment) if runtime.compile else model.segment
    image = torch.randn(job.batch, 3, job.crop, job.crop, device=device)
    image = image.contiguous(memory_format=torch.channels_last)
    mask = torch.randint(0, 2, (job.batch, job.crop, job.crop), device=device)
    for step in range(job.warmup + job.steps):
        with autocast(device, precision):
            loss = F.cross_entropy(forward(image), mask)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        clock(step + 1)


def ours(job: Job, clock: Clock, precision: str) -> None:
    """(a): the training of this project."""
    from segcore.training.losses import build_loss

    model = _networks.network(job.network)
    model.criterion = build_loss("cross_entropy")
    timed(model, settings_of(job, precision), job, clock)


def timed(model: SegmentationModel, settings: Any, job: Job, clock: Clock) -> None:
    """The steps of this project's training."""
    from segcore.data.prepared import PreparedData
    from segcore.training.loop import train

    class Timed(BaseException):
        """Ends the training before its validation, which is not measured."""

    def on_step(done: int, loss: object) -> None:
        clock(done)
        if done == settings.steps:
            raise Timed

    with tempfile.TemporaryDirectory() as folder:
        try:
            train(model, PreparedData(job.prepared), settings, 320, 0, Path(folder), on_step)
        except Timed:
            return


CONTESTANTS: dict[str, Callable[[Job, Clock, str], None]] = {
    "ours": ours,
    "lightning": lightning,
    "torchvision": torchvision,
    "torchgeo": torchgeo,
    "limit": limit,
}


def _figures(name: str, job: Job) -> Iterator[tuple[str, Any]]:
    clock, precision = Clock(job), choose_precision("auto", default_device())
    CONTESTANTS[name](job, clock, precision)
    yield "rate", job.steps * job.batch / clock.seconds
    yield "precision", precision
    yield "threads", torch.get_num_threads()
    yield "device_mb", torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else 0.0
    yield "size", _networks.size(_networks.network(job.network), job.crop)


if __name__ == "__main__":
    print(json.dumps(dict(_figures(sys.argv[1], Job(**json.loads(sys.argv[2]))))))
