"""How a training uses its machine: what `train.common.speed` leaves at `auto` is resolved here, once, and logged.

Channels-last and fused optimisers are faster wherever they were measured; the rest depends on device, data and length.
The same seed and runtime give the same weights; another runtime gives others, by float rounding at least.
"""

import ctypes
import platform
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import psutil
import torch

from segcore.cpu import cores
from segcore.data.prepared import PreparedData
from segcore.errors import ParamsError
from segcore.inference.device import choose_precision
from segcore.models.base.model import SegmentationModel
from segcore.params import TrainSettings
from segcore.training.distributed import Distributed
from segcore.training.micro_batch import largest

T = TypeVar("T")

# Compiling takes about a minute, which a training of fewer steps does not win back.
COMPILE_FROM = 2000
# Largest fraction of the device's free memory that the training data may take.
DATA_FRACTION = 0.25
# With at least this many cores, one of them makes batches.
CORES_TO_SPARE = 8
# Threads that make batches at most; they share one interpreter.
LOADERS = 8


@dataclass(frozen=True)
class Runtime:
    """What a training does on its machine; JSON-able, and the same after a resume.

    Attributes:
        device: "cpu" or "cuda".
        precision: "fp32" or "bf16", of the forward pass (weights stay float32).
        channels_last: memory format of weights and activations.
        fused: one kernel for the optimiser's step.
        compile: torch.compile for the training's forward pass.
        hold_data: training items are kept on the device, and batches are cut and augmented there.
        threads: of the CPU's operators.
        workers: threads that make batches ahead; 0: each is made when its step begins.
        micro_batch: items that pass the network at once; fewer than the batch: gradients are accumulated.
        keep_memory: freed memory stays with the process (glibc), which saves clearing it again at every step.
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
        """One line for people."""
        words = {
            "channels-last": self.channels_last,
            "fused optimiser": self.fused,
            "compiled": self.compile,
            "data held on the device": self.hold_data,
            "memory kept": self.keep_memory,
        }
        yes, no = ([word for word, holds in words.items() if holds is wanted] for wanted in (True, False))
        counts = [
            f"{self.threads} threads",
            f"{self.workers} threads for batches ahead",
            f"{self.micro_batch} items at once",
        ]
        return (
            ", ".join([self.device, self.precision, *counts, *yes]) + f"; not: {', '.join(no) or 'nothing'}"
        )

    def place(self, model: SegmentationModel, device: torch.device) -> None:
        """Move a model to its device and memory format."""
        model.channels_last = self.channels_last
        model.to(device)
        if self.channels_last:
            model.to(memory_format=torch.channels_last)

    def apply(self) -> None:
        """Set the process's threads and how it gives memory back."""
        torch.set_num_threads(self.threads)
        if self.keep_memory:
            _keep_memory()

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for checkpoints and logs."""
        return asdict(self)


def choose_runtime(
    settings: TrainSettings, data: PreparedData, device: torch.device, processes: Distributed | None = None
) -> Runtime:
    """Resolve what the settings leave at `auto`.

    Args:
        processes: of a distributed training, which neither accumulates gradients nor compiles.

    Raises:
        ParamsError: a setting that this training cannot follow.
    """
    wanted, processes, on_gpu = settings.speed, processes or Distributed(), device.type == "cuda"
    micro = _or(wanted.micro_batch, settings.batch)
    if micro < settings.batch and processes.world > 1:
        raise ParamsError(
            f"micro_batch {micro} of a batch of {settings.batch} on {processes.world} processes",
            "set train.common.speed.micro_batch to auto: more processes already take fewer items each",
        )
    on_device = _or(wanted.hold_data, on_gpu and data.training_bytes() <= DATA_FRACTION * _free(device))
    ahead = 0 if on_device else _or(wanted.workers, _loaders(on_gpu))
    # torch's own number heeds OMP_NUM_THREADS, but not a container's limit
    room = cores() if on_gpu else max(1, cores() - ahead)
    threads = _or(wanted.threads, min(torch.get_num_threads(), room))
    return Runtime(
        device=device.type,
        precision=choose_precision(settings.precision, device),
        channels_last=_or(wanted.channels_last, True),
        fused=_or(wanted.fused, True),
        compile=_or(
            wanted.compile, on_gpu and processes.world == 1 and settings.steps >= COMPILE_FROM and _triton()
        ),
        hold_data=on_device,
        threads=threads,
        workers=ahead,
        micro_batch=min(micro, settings.batch),
        keep_memory=_or(wanted.keep_memory, not on_gpu and platform.libc_ver()[0] == "glibc"),
    )


def fit_micro_batch(
    runtime: Runtime,
    settings: TrainSettings,
    model: SegmentationModel,
    processes: Distributed | None = None,
) -> Runtime:
    """The same runtime with a micro-batch that fits into memory, unless the settings or several processes fix it.

    Args:
        model: on its device.
    """
    if settings.speed.micro_batch != "auto" or (processes is not None and processes.world > 1):
        return runtime
    return replace(runtime, micro_batch=largest(model, settings, runtime.precision))


def resume_runtime(stored: dict[str, Any] | None, fresh: Runtime) -> Runtime | None:
    """The runtime of a checkpoint; None without one, or if its device is not that of `fresh`."""
    return Runtime(**stored) if stored and stored["device"] == fresh.device else None


def _loaders(on_gpu: bool) -> int:
    """Threads that make batches ahead.

    On a CPU of few cores a thread beside those of the operators makes these wait for each other at the end of every
    operator: a step took a third longer, whereas making its batch before it takes 2 %. Many cores were not measured.
    """
    if on_gpu:
        return max(1, min(LOADERS, cores() - 1))
    return 1 if cores() >= CORES_TO_SPARE else 0


def _or(setting: T | str, found: T) -> T:
    return found if setting == "auto" else setting  # type: ignore[return-value]


def _free(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def _triton() -> bool:
    from importlib.util import find_spec

    return find_spec("triton") is not None


def _keep_memory() -> None:
    """Let malloc neither map big blocks one by one nor give them back: the kernel clears each page anew."""
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    trim, top_pad, map_max = -1, -2, -4  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX of malloc.h
    for option, value in ((map_max, 0), (trim, 2**31 - 1), (top_pad, 64 * 2**20)):
        libc.mallopt(ctypes.c_int(option), ctypes.c_int(value))
