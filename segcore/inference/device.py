"""The device, the precision and the threads that a model runs in."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from segcore.cpu import processor

# "fp32" or "bf16"
Precision = str


def default_device() -> torch.device:
    """CUDA if available, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine_name(device: torch.device) -> str:
    """Name of the GPU or of the processor that computes."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def choose_precision(setting: str, device: torch.device) -> str:
    """Resolve "auto": bf16 if the device supports it natively (CUDA from Ampere on, CPUs with AMX or AVX512-BF16)."""
    if setting != "auto":
        return setting
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    fast = device.type == "cpu" and (
        torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    )
    return "bf16" if fast else "fp32"


def precision_of(description: Mapping[str, Any], device: torch.device) -> Precision:
    """The precision in which a bundle's network predicts on a device.

    Args:
        description: model.json; without the entry, as "auto".
        device: of the network.
    """
    return choose_precision(description.get("parameters", {}).get("precision", "auto"), device)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Context in which operators run in bf16 if `precision` is "bf16", else in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def worker_threads(shares: Sequence[int], own: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of workers; work that has not begun at the end is given up.

    Args:
        shares: number of torch threads that each worker computes with.
        own: number of torch threads of the caller meanwhile; threads that wait for its next operator occupy cores.
    """
    before, ready = torch.get_num_threads(), threading.Barrier(len(shares) + 1)

    def use(share: int) -> None:
        # The first call in a thread sets torch's default, which would otherwise replace the share later.
        torch.get_num_threads()
        torch.set_num_threads(share)
        ready.wait()

    pool = ThreadPoolExecutor(len(shares))
    try:
        for share in shares:
            pool.submit(use, share)
        ready.wait()
        # The number that is set last is the default of new threads, too.
        torch.set_num_threads(own)
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
