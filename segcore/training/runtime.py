"""How a training uses its machine: `auto` in `train.common.speed` is resolved here once, and logged.

Channels-last and fused optimisers were faster on every machine measured; the rest depends on device, data and number of
steps. The same seed and runtime give the same weights; with another runtime they differ, at least by float rounding.
"""

import platform
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import psutil
import torch

from segcore.cpu import cores, keep_memory
from segcore.data.prepared import PreparedData
from segcore.errors import ParamsError
from segcore.inference.device import choose_precision
from segcore.models.base.model import SegmentationModel
from segcore.params import TrainSettings
from segcore.training.distributed import Distributed
from segcore.training.micro_batch import largest

T = TypeVar("T")

# Compiling takes about a minute, more than it saves in a training of fewer steps.
COMPILE_FROM = 2000
# Largest fraction of the device's free memory that the training data may take.
DATA_FRACTION = 0.25
# With at least this many cores, a CPU training has one loader thread.
CORES_TO_SPARE = 8
# Maximum of loader threads, which share one interpreter.
LOADERS = 8


@dataclass(frozen=True)
class Runtime:
    """How a training uses its machine; JSON-able, and the same after a resume.

    Attributes:
        device: "cpu" or "cuda".
        precision: "fp32" or "bf16", of the forward pass (weights stay float32).
        channels_last: memory format of weights and activations.
        fused: one kernel for the optimiser's step.
        compile: torch.compile for the forward pass.
        hold_data: training items are on the device, and batches are cut and augmented there.
        threads: number of threads of CPU operators.
        workers: number of loader threads, which make batches ahead; 0: each is made when its step begins.
        micro_batch: items per forward pass; if fewer than the batch, gradients are accumulated.
        keep_memory: freed memory is not returned to the system (glibc), which saves clearing it again at every step.
    """

    device: str
    precision: str
    channels_last: bool
    fused: bool
    compile: bool
    hold_data: bool
    threads: int
    workers: int
    micro_batch: int
    keep_memory: bool

    def text(self) -> str:
        """Summary in one line, for the log."""
        switches = {
            "channels-last": self.channels_last,
            "fused optimiser": self.fused,
            "compiled": self.compile,
            "data on the device": self.hold_data,
            "freed memory kept": self.keep_memory,
        }
        on, off = ([name for name, value in switches.items() if value is wanted] for wanted in (True, False))
        counts = [
            f"{self.threads} threads",
            f"{self.workers} loader threads",
            f"{self.micro_batch} items per forward pass",
        ]
        return (
            ", ".join([self.device, self.precision, *counts, *on]) + f"; not: {', '.join(off) or 'nothing'}"
        )

    def place(self, model: SegmentationModel, device: torch.device) -> None:
        """Move a model to its device and memory format."""
        model.channels_last = self.channels_last
        model.to(device)
        if self.channels_last:
            model.to(memory_format=torch.channels_last)

    def apply(self) -> None:
        """Set this process's threads and whether it returns freed memory."""
        torch.set_num_threads(self.threads)
        if self.keep_memory:
            keep_memory()

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for checkpoints and logs."""
        return asdict(self)


def choose_runtime(
    settings: TrainSettings,
    data: PreparedData,
    device: torch.device,
    processes: Distributed | None = None,
    *,
    instances: bool = False,
) -> Runtime:
    """Resolve the settings that are `auto`.

    Args:
        settings: of the training.
        data: prepared data; the size of the training items counts.
        device: of the training.
        processes: of a distributed training, which neither accumulates gradients nor compiles.
        instances: whether object numbers are held with the data.

    Raises:
        ParamsError: a micro_batch smaller than the batch in a distributed training.
    """
    speed, processes, on_gpu = settings.speed, processes or Distributed(), device.type == "cuda"
    micro = _resolve(speed.micro_batch, settings.batch)
    if micro < settings.batch and processes.world > 1:
        raise ParamsError(
            f"micro_batch {micro} of a batch of {settings.batch} on {processes.world} processes",
            "set train.common.speed.micro_batch to auto: each process already takes only a part of the batch",
        )
    on_device = _resolve(
        speed.hold_data, on_gpu and data.training_bytes(instances) <= DATA_FRACTION * _free(device)
    )
    ahead = 0 if on_device else _resolve(speed.workers, _loaders(on_gpu))
    # torch's default respects OMP_NUM_THREADS, but not a container's limit
    limit = cores() if on_gpu else max(1, cores() - ahead)
    threads = _resolve(speed.threads, min(torch.get_num_threads(), limit))
    return Runtime(
        device=device.type,
        precision=choose_precision(settings.precision, device),
        channels_last=_resolve(speed.channels_last, True),
        fused=_resolve(speed.fused, True),
        compile=_resolve(
            speed.compile, on_gpu and processes.world == 1 and settings.steps >= COMPILE_FROM and _triton()
        ),
        hold_data=on_device,
        threads=threads,
        workers=ahead,
        micro_batch=min(micro, settings.batch),
        keep_memory=_resolve(speed.keep_memory, not on_gpu and platform.libc_ver()[0] == "glibc"),
    )


def fit_micro_batch(
    runtime: Runtime,
    settings: TrainSettings,
    model: SegmentationModel,
    processes: Distributed | None = None,
    objects: int = 0,
) -> Runtime:
    """The runtime with a micro-batch that fits into memory; unchanged if it is set or there are several processes.

    Args:
        runtime: of `choose_runtime`.
        settings: of the training.
        model: on its device.
        processes: of a distributed training.
        objects: largest number of objects in a crop, for an instance network.
    """
    if settings.speed.micro_batch != "auto" or (processes is not None and processes.world > 1):
        return runtime
    return replace(runtime, micro_batch=largest(model, settings, runtime.precision, objects))


def resume_runtime(stored: dict[str, Any] | None, fresh: Runtime) -> Runtime | None:
    """The runtime of a checkpoint; None without a checkpoint, or if the device is another now."""
    return Runtime(**stored) if stored and stored["device"] == fresh.device else None


def _loaders(on_gpu: bool) -> int:
    """Number of loader threads.

    On a CPU with few cores, a loader thread delays the threads of the operators, which wait for each other: a step took
    a third longer, whereas making its batch without a thread takes 2 % of it. Many cores were not measured.
    """
    if on_gpu:
        return max(1, min(LOADERS, cores() - 1))
    return 1 if cores() >= CORES_TO_SPARE else 0


def _resolve(setting: T | str, automatic: T) -> T:
    return automatic if setting == "auto" else setting  # type: ignore[return-value]


def _free(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def _triton() -> bool:
    from importlib.util import find_spec

    return find_spec("triton") is not None
