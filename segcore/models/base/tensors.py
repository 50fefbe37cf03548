"""The tensors of model.safetensors: checked against a network from the file's header alone, then read from memory."""

import json
from collections.abc import Mapping
from typing import IO, Any

import torch
from torch import Tensor

# Names of the dtypes in the header. Networks of this library have float32 weights and int64 counters.
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# bytes of the file that hold the length of the header
_LENGTH = 8
# in bytes; some 150 per tensor
_LARGEST_HEADER = 2**24


class Header:
    """Names, dtypes and shapes of the tensors of a safetensors file, and their place in it.

    Args:
        stream: the open file, at its start.
        size: of the file in bytes.

    Attributes:
        entries: name -> (dtype, shape, first byte in the file).

    Raises:
        ValueError: the header is damaged, or does not cover the file exactly.
    """

    def __init__(self, stream: IO[bytes], size: int) -> None:
        length = int.from_bytes(stream.read(_LENGTH), "little")
        if size < _LENGTH or length > min(size - _LENGTH, _LARGEST_HEADER):
            raise ValueError("its header is cut short or damaged")
        try:
            content: Any = json.loads(stream.read(length))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"its header is damaged: {error}") from error
        if not isinstance(content, dict):
            raise ValueError("its header is damaged")
        content.pop("__metadata__", None)
        self.entries: dict[str, tuple[torch.dtype, tuple[int, ...], int]] = {}
        end = _LENGTH + length
        for name, start, stop, dtype, shape in sorted(map(_entry, content.items()), key=lambda e: e[1:3]):
            if start + _LENGTH + length != end or stop - start != _bytes_of(dtype, shape):
                raise ValueError(f"its header is damaged at {name[:80]!r}")
            self.entries[name] = (dtype, shape, end)
            end += stop - start
        if end != size:
            raise ValueError(f"it has {size} bytes, its header declares {end}")

    def difference(self, expected: Mapping[str, Tensor]) -> str | None:
        """The first name, dtype or shape in which a network's state_dict differs; None if it fits."""
        if missing := sorted(expected.keys() - self.entries.keys()):
            return f"{missing[0]} is missing"
        if unknown := sorted(self.entries.keys() - expected.keys()):
            return f"{unknown[0][:80]} is not part of it"
        for name, tensor in expected.items():
            dtype, shape, _ = self.entries[name]
            if (dtype, shape) != (tensor.dtype, tuple(tensor.shape)):
                return f"{name} has shape {list(shape)} and {dtype} instead of {list(tensor.shape)} and {tensor.dtype}"
        return None

    @property
    def largest(self) -> int:
        """The longest side of any tensor."""
        return max((side for _, shape, _ in self.entries.values() for side in shape), default=0)

    def tensors(self, content: bytearray) -> dict[str, Tensor]:
        """Views of the tensors in the file's content, without a copy."""
        return {
            name: torch.frombuffer(content, dtype=dtype, count=_count(shape), offset=start).reshape(shape)
            if _count(shape)
            else torch.empty(shape, dtype=dtype)
            for name, (dtype, shape, start) in self.entries.items()
        }


def _entry(item: tuple[str, Any]) -> tuple[str, int, int, torch.dtype, tuple[int, ...]]:
    name, facts = item
    try:
        (start, stop), shape, dtype = facts["data_offsets"], tuple(facts["shape"]), _DTYPES[facts["dtype"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its header is damaged at {name[:80]!r}") from error
    numbers = (start, stop, *shape)
    if len(shape) > 8 or any(type(n) is not int or not 0 <= n < 2**63 for n in numbers):
        raise ValueError(f"its header is damaged at {name[:80]!r}")
    return name, start, stop, dtype, shape


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


def _bytes_of(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return _count(shape) * dtype.itemsize
