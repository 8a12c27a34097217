"""A GGUF file (ggml's format, version 3), written one tensor at a time."""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from cobra.weights.is_finite import is_finite
from cobra.weights.tensors import Stored

Value = bool | int | float | str | Sequence[str] | Sequence[int] | Sequence[float]

# ggml's numbers of types: of metadata, and of tensors
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_TENSOR_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 30}
_ALIGNMENT = 32


@dataclass(frozen=True)
class Weight:
    """A tensor of the file.

    Attributes:
        source: the tensor of the model that it is made of.
        dtype: fp32, fp16 or bf16.
        change: makes it of the source; by default it is the source.
    """

    source: Stored
    dtype: torch.dtype = torch.float32
    change: Callable[[Tensor], Tensor] = torch.Tensor.detach

    @property
    def shape(self) -> torch.Size:
        """As numpy counts, rows first; ggml counts the other way round."""
        return self.change(torch.empty(self.source.shape, device="meta")).shape

    @property
    def kind(self) -> int:
        """ggml's number of its type."""
        return _TENSOR_TYPES[self.dtype]

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return self.shape.numel() * self.dtype.itemsize

    def read(self) -> Tensor:
        """Its values, finite ones."""
        made = self.change(self.source.read()).to(self.dtype).contiguous()
        if not is_finite(made):
            raise ValueError(f"values are not finite in {self.dtype}: training diverged, or take f32")
        return made

    def data(self) -> memoryview:
        """Its bytes in the file."""
        return self.read().reshape(-1).view(torch.uint8).numpy().data


def write_gguf(
    path: Path,
    metadata: Mapping[str, Value],
    weights: Mapping[str, Weight],
    progress: Callable[[int], None] = lambda size: None,
) -> None:
    """Write a file; no more than its largest tensor is held in memory.

    Args:
        path: written over.
        metadata: strings, numbers and lists of them by their keys; the type of a list is its first entry's.
        weights: by their names.
        progress: told the bytes of each tensor when it is written.

    Raises:
        ValueError: where a tensor holds what is no finite number in its dtype, naming it.
    """
    with path.open("wb") as file:
        file.write(struct.pack("<4sIQQ", b"GGUF", 3, len(weights), len(metadata)))
        for key, value in metadata.items():
            file.write(_string(key) + _value(value))
        offset = 0
        for name, weight in weights.items():
            sizes = tuple(reversed(weight.shape))
            file.write(_string(name) + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes))
            file.write(struct.pack("<IQ", weight.kind, offset))
            offset += _aligned(weight.nbytes)
        _pad(file)
        for name, weight in weights.items():
            try:
                data = weight.data()
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            file.write(data)
            _pad(file)
            progress(weight.nbytes)


def _value(value: Value) -> bytes:
    """A value behind its type."""
    if isinstance(value, str | bool | int | float):
        kind = _kind(value)
        return struct.pack("<I", kind) + _scalar(kind, value)
    # llama.cpp wants its lists of numbers signed
    kind = _INT32 if isinstance(value[0], int) else _kind(value[0])
    return struct.pack("<IIQ", _ARRAY, kind, len(value)) + b"".join(_scalar(kind, item) for item in value)


def _kind(value: object) -> int:
    if isinstance(value, bool):
        return _BOOL
    if isinstance(value, int):
        return _UINT32 if value >= 0 else _INT32
    return _FLOAT32 if isinstance(value, float) else _STRING


def _scalar(kind: int, value: object) -> bytes:
    if isinstance(value, str):
        return _string(value)
    return struct.pack({_UINT32: "<I", _INT32: "<i", _FLOAT32: "<f", _BOOL: "<?"}[kind], value)


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _pad(file: BinaryIO) -> None:
    file.write(bytes(_aligned(place := file.tell()) - place))
