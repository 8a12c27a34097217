"""Safetensors written one tensor at a time: no more than the largest is held in memory."""

import json
from collections.abc import Callable
from pathlib import Path

import torch

from cobra.weights.is_finite import is_finite
from cobra.weights.tensors import DTYPES, Stored

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_tensors(
    path: Path, tensors: dict[str, Stored], progress: Callable[[int], None] = lambda size: None
) -> None:
    """Write a safetensors file of the same tensors, in the format of huggingface/safetensors.

    Args:
        path: written over.
        tensors: read in this order, but wider dtypes first: each starts at a multiple of its item size.
        progress: told the bytes of each tensor when it is written.

    Raises:
        ValueError: where a tensor holds what is no finite number, naming it.
    """
    ordered = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in ordered:
        offsets = [at, at := at + tensor.nbytes]
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": offsets,
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in ordered:
            values = tensor.read()
            if values.is_floating_point() and not is_finite(values):
                raise ValueError(
                    f"{name} holds values that are not finite: training diverged, or the file is damaged"
                )
            file.write(values.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            progress(tensor.nbytes)
