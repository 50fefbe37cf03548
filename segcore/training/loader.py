"""Training batches on the device, prepared ahead of their steps."""

from collections import deque
from concurrent.futures import Future
from contextlib import ExitStack
from types import TracebackType

import torch
from torch import Tensor

from segcore.inference.device import worker_threads
from segcore.training.gpu_sampler import GpuSampler
from segcore.training.runtime import Runtime
from segcore.training.sampler import Sampler

Batch = dict[str, Tensor]


class Loader:
    """Batches of successive steps: made ahead by threads and copied to the device, or made from data on the device.

    Without threads (`workers: 0`) a batch is made when its step begins.

    Args:
        sampler: of the training.
        part: items of each batch that this process takes.
        runtime: hold_data, workers, threads.
        device: of the network.
    """

    def __init__(self, sampler: Sampler, part: slice, runtime: Runtime, device: torch.device) -> None:
        self._sampler, self._part, self._device = sampler, part, device
        self._gpu_sampler = GpuSampler(sampler, device) if runtime.hold_data else None
        self._workers, self._stack = runtime.workers, ExitStack()
        self._ahead: deque[Future[Batch]] = deque()
        self._next = 0

    def __enter__(self) -> "Loader":
        if self._workers:
            # more threads would only wait for those of the network
            workers = worker_threads([1] * self._workers, torch.get_num_threads())
            self._pool = self._stack.enter_context(workers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def batch(self, step: int) -> Batch:
        """The batch of a step, on the device; call it with consecutive steps.

        Returns:
            image (N, C, crop, crop) float32 raw values, label (N, crop, crop) int64, valid (N, crop, crop) bool.
        """
        if self._gpu_sampler is not None:
            return self._gpu_sampler.batch(step, self._part)
        if not self._workers:
            return self._to_device(self._make(step))
        if not self._ahead:
            self._next = step
        while len(self._ahead) < self._workers + 1:
            self._ahead.append(self._pool.submit(self._make, self._next))
            self._next += 1
        return self._to_device(self._ahead.popleft().result())

    def _to_device(self, batch: Batch) -> Batch:
        if self._device.type == "cpu":
            return batch
        return {name: tensor.to(self._device, non_blocking=True) for name, tensor in batch.items()}

    def _make(self, step: int) -> Batch:
        batch = self._sampler.batch(step, self._part)
        if self._device.type != "cuda":
            return batch
        return {name: tensor.pin_memory() for name, tensor in batch.items()}
