"""Parts of benchmarks/gpu.py, each in a process of its own: `python -m benchmarks._device agreement '{...}'`.

Each prints a line of JSON per row of the table as soon as it is known: what was measured, the result, and whether it is
right (null: a figure without a limit).
"""

import contextlib
import copy
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import training
from benchmarks._trainers import Job
from segcore.data.prepared import PreparedData
from segcore.inference.device import autocast, choose_precision, default_device
from segcore.models.base.model import SegmentationModel
from segcore.objects.found import Objects
from segcore.params import TrainSettings
from segcore.training.build import new_model
from segcore.training.gpu_sampler import GpuSampler
from segcore.training.loop import Trained, train
from segcore.training.sampler import Sampler

WINDOW = 320
# largest relative differences between devices: loss and gradients in fp32, and the loss in bf16
LOSS, GRADIENTS, HALF = 1e-3, 1e-2, 0.1
# of the steps before devices are compared, and passes after them that only change batch norm's statistics
RATE, SETTLING = 4e-3, 20
# relative change of pixels by rounding, and how much larger than its effect a difference of gradients may be
ROUNDING, NOISE = 1e-6, 10
# of probabilities, and least share of objects that both devices find
PROBABILITY, FOUND = 1e-3, 0.9
# bytes that a training may take in the trial of the micro-batch
MEMORY = 8 * 2**30
# levels by which resized pixels differ, times the largest gain of contrast
LEVELS = 1.3


class Plan(NamedTuple):
    """Networks, sizes and data of the parts; paths are strings, for JSON.

    Attributes:
        architectures: names.
        batch, crop: of agreement, resume and held data.
        learned: steps of training before devices are compared.
        large: batch of the trial of the micro-batch.
        warmup, steps: of the timed trainings, whose batch is `timed` and whose crop is 256 or `crop`.
        objects, plain: paths of `training.make_data`, with and without objects.
    """

    architectures: list[str]
    batch: int
    crop: int
    learned: int
    large: int
    timed: int
    warmup: int
    steps: int
    objects: dict[str, str]
    plain: dict[str, str]


class Row(NamedTuple):
    """A row of the table."""

    what: str
    result: str
    right: bool | None = None


def _settings(plan: Plan, **changes: Any) -> TrainSettings:
    values = {"steps": 4, "batch": plan.batch, "crop": plan.crop, "validate_every": 2, "warmup_steps": 1}
    return TrainSettings.model_validate({**values, "weights": "none", "precision": "fp32", **changes})


def agreement(plan: Plan) -> Iterator[Row]:
    """Loss, gradients and predictions on the device, compared with the CPU in torch's own memory format.

    Networks are trained on their batch first, so that they find objects. Where a choice of regions or a batch norm of
    few pixels makes more of rounding, gradients may differ by as much as rounding of the pixels makes them on the CPU.
    """
    torch.backends.cudnn.allow_tf32 = False
    data, device = PreparedData(plan.objects["prepared"]), default_device()
    for name in plan.architectures:
        model = new_model(name, _settings(plan), data, seed=0)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        sampler = Sampler(data, _settings(plan), WINDOW, seed=0, instances=model.kind == "instance")
        batch = sampler.batch(0)
        there = {key: value.to(device) for key, value in batch.items()}
        model.to(device).to(memory_format=torch.channels_last)
        single, half = (_passes(copy.deepcopy(model), there, precision)[0] for precision in ("fp32", "bf16"))
        _learn(model, there, plan.learned)
        plain = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format)
        plain.channels_last = False
        loss, gradient, predicted = _passes(copy.deepcopy(plain), batch, "fp32")
        noise = torch.randn(batch["image"].shape, generator=torch.Generator().manual_seed(0))
        rounded = {**batch, "image": batch["image"] * (1 + ROUNDING * noise)}
        limit = max(GRADIENTS, NOISE * _distance(_passes(plain, rounded, "fp32")[1], gradient))
        loss2, gradient2, predicted2 = _passes(copy.deepcopy(model), there, "fp32")
        difference = abs(loss2 / loss - 1)
        yield Row(f"{name}: loss", f"{loss:.6g}, differs by {difference:.1e}", difference <= LOSS)
        difference = _distance(gradient2, gradient)
        text = f"differ by {difference:.1e}, at most {limit:.1e}"
        yield Row(f"{name}: gradients", text, difference <= limit)
        yield _same_predictions(name, predicted, predicted2)
        difference = abs(half / single - 1)
        yield Row(f"{name}: loss in bf16", f"differs by {difference:.1e}", difference <= HALF)


def _learn(model: SegmentationModel, batch: dict[str, Tensor], steps: int) -> None:
    """Train on one batch, until batch norm has the statistics of the last weights."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.2)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(batch)["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        for _ in range(SETTLING):
            model(batch["image"], batch["valid"])


def _distance(a: Tensor, b: Tensor) -> float:
    """Length of the difference of two vectors, relative to the second."""
    return float((a - b).norm() / b.norm().clamp(min=1e-12))


def _passes(model: SegmentationModel, batch: dict[str, Tensor], precision: str) -> tuple[float, Tensor, Any]:
    """Predictions, then loss and all gradients as one vector, in the order loss, gradients, predictions."""
    predicted = model.predict(batch["image"], batch["valid"])
    model.zero_grad()
    model.train()
    with autocast(batch["image"].device, precision):
        loss = model.loss(batch)["loss"]
    loss.backward()
    gradients = [p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]
    return float(loss), torch.cat(gradients), predicted


def _same_predictions(name: str, first: Any, second: Any) -> Row:
    if isinstance(first, Tensor):
        difference = float((first - second.cpu()).abs().max())
        return Row(f"{name}: probabilities", f"differ by {difference:.1e}", difference <= PROBABILITY)
    counts = [(len(a), len(b), _partners(a, b)) for a, b in zip(first, second, strict=True)]
    total, both = sum(max(a, b) for a, b, _ in counts), sum(n for *_, n in counts)
    right = both / total >= FOUND if total else None
    return Row(f"{name}: objects", f"{both:,} of {total:,} are of both", right)


def _partners(first: Objects, second: Objects) -> int:
    """Objects of the first that the second has too: same class, IoU above 0.9 of the boxes, scores within 0.01."""
    if not len(first) or not len(second):
        return 0
    a, b = (
        np.concatenate([o.boxes[:, :2], o.boxes[:, :2] + o.boxes[:, 2:]], axis=1) for o in (first, second)
    )
    top, left = (np.maximum(a[:, None, i], b[None, :, i]) for i in (0, 1))
    bottom, right = (np.minimum(a[:, None, i], b[None, :, i]) for i in (2, 3))
    both = (bottom - top).clip(min=0) * (right - left).clip(min=0)
    areas = [(x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b)]
    iou = both / (areas[0][:, None] + areas[1][None] - both)
    same = (iou > 0.9) & (first.classes[:, None] == second.classes[None])
    same &= abs(first.scores[:, None] - second.scores[None]) <= 0.01
    return int(same.any(axis=1).sum())


class _Killed(BaseException):
    """Ends a training as if it were killed."""


def _trained(name: str, plan: Plan, folder: Path, kill_at: int | None = None, **changes: Any) -> Trained:
    data, settings = PreparedData(plan.objects["prepared"]), _settings(plan, **changes)
    folder.mkdir(exist_ok=True)

    def on_step(step: int, loss: float) -> None:
        if step == kill_at:
            raise _Killed

    return train(new_model(name, settings, data, 0), data, settings, WINDOW, 0, folder, on_step)


def _same(a: Trained, b: Trained) -> bool:
    states = (trained.model.state_dict().values() for trained in (a, b))
    return all(torch.equal(x, y) for x, y in zip(*states, strict=True)) and a.history == b.history


def resume(plan: Plan) -> Iterator[Row]:
    """The grade of determinism, and whether a training that was killed and resumed gives the same weights."""
    for name in plan.architectures:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            whole = _trained(name, plan, root / "whole")
            with contextlib.suppress(_Killed):
                _trained(name, plan, root / "cut", kill_at=3)
            same = _same(whole, _trained(name, plan, root / "cut"))
            again = same or _same(whole, _trained(name, plan, root / "again"))
        grade = whole.facts["determinism"]
        yield Row(f"{name}: determinism", grade, again or grade != "bit-exact")
        # where two whole trainings differ too, the resume is not the reason
        text = "bit-identical" if same else "differs" if again else "differs, as two whole trainings do"
        yield Row(f"{name}: resumed after a kill", text, same or not again)


def held(plan: Plan) -> Iterator[Row]:
    """Batches of data that are held on the device, compared with those of the loader."""
    data, device = PreparedData(plan.objects["prepared"]), default_device()
    for instances in (False, True):
        sampler = Sampler(data, _settings(plan), WINDOW, seed=0, instances=instances)
        on_device = GpuSampler(sampler, device)
        pixels, exact = 0.0, True
        for step in range(4):
            plain, other = sampler.batch(step), on_device.batch(step)
            pixels = max(pixels, float((plain.pop("image") - other.pop("image").cpu()).abs().max()))
            exact &= all(torch.equal(value, other[key].cpu()) for key, value in plain.items())
        result = f"{'equal' if exact else 'NOT equal'}, pixels within {pixels:.2f} levels"
        what = "labels, validity" + (" and numbers" if instances else "")
        yield Row(f"held data: {what}", result, exact and pixels <= LEVELS)


def micro_batch(plan: Plan) -> Iterator[Row]:
    """The micro-batch that is found where memory is short, and the peak of a training step with it."""
    device = default_device()
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(MEMORY / total, 1.0))
    precision = choose_precision("auto", device)
    for name in plan.architectures:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        changes: dict[str, Any] = {
            "steps": 1,
            "validate_every": 1,
            "batch": plan.large,
            "precision": precision,
        }
        with tempfile.TemporaryDirectory() as folder:
            trained = _trained(name, plan, Path(folder), **changes)
        found = trained.facts["choices"]["micro_batch"]
        peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
        text = f"{found} of {plan.large}" + (f", peak {peak:.1f} GiB" if peak else ", by an estimate")
        yield Row(f"{name}: micro-batch, {precision}", text, 1 <= found <= plan.large)


def speed(plan: Plan) -> Iterator[Row]:
    """Images per second and peak memory of all networks, and of two of them in other loops."""
    crop = 256 if torch.cuda.is_available() else plan.crop
    workers = len(os.sched_getaffinity(0))

    def measured(name: str, network: str, data: dict[str, str], module: str) -> dict[str, Any]:
        paths = data["prepared"], data["png"], data["scenes"]
        job = Job(network, plan.timed, crop, plan.warmup, plan.steps, workers, *paths)
        return training.measure(name, job, module=f"benchmarks.{module}")

    for network in plan.architectures:
        yield _rate(network, "segflow", measured("ours", network, plan.objects, "_object_trainers"))
    peers = {"unet": ["torchvision"], "mask_rcnn": ["torchvision"]}
    if find_spec("lightning") and find_spec("albumentations"):
        peers["unet"].append("lightning")
    for network, names in peers.items():
        if network not in plan.architectures:
            continue
        of_objects = network in training.INSTANCE
        data = plan.objects if of_objects else plan.plain
        module = "_object_trainers" if of_objects else "_trainers"
        own = measured("ours", network, data, module)
        for name in names:
            other = measured(name, network, data, module)
            yield _rate(network, training.TITLES[name][4:], other)
            ratio = own["rate"] / other["rate"]
            yield Row(f"{network}: segflow / {name}", f"{ratio:.2f} (goal on a GPU: 2)")


def _rate(network: str, loop: str, figures: dict[str, Any]) -> Row:
    memory = f"{figures['memory_mb']:,.0f} MB"
    if figures["device_mb"]:
        memory = f"{figures['device_mb']:,.0f} MB on the device, {memory}"
    rate = f"{figures['rate']:,.1f} images per second, {figures['precision']}, peak {memory}"
    return Row(f"{network}: {loop}", rate)


PARTS: dict[str, Callable[[Plan], Iterator[Row]]] = {
    f.__name__: f for f in (agreement, resume, held, micro_batch, speed)
}


if __name__ == "__main__":
    for row in PARTS[sys.argv[1]](Plan(**json.loads(sys.argv[2]))):
        print(json.dumps(row), flush=True)
