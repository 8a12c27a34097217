"""What an mmproj file says of an encoder or of a projector."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cobra.export.gguf.described import Part
from cobra.export.gguf.file import Value

Parts = Iterator[tuple[str, Part]]
# how a part differs there from ours
GELU = "GELU by its exact formula: llama.cpp has that of tanh, off a table in fp16"


class CannotExpress(ValueError):
    """An encoder or a projector that llama.cpp's programs do not have."""


@dataclass(frozen=True)
class Seen:
    """How a model sees, as llama.cpp's programs know it.

    Attributes:
        settings: metadata.
        parts: tensors by their names in the file.
        halves: names of those that llama.cpp takes in fp16 alone.
        differs: what llama.cpp does otherwise, in a sentence each.
    """

    settings: Mapping[str, Value]
    parts: Mapping[str, Part]
    halves: frozenset[str]
    differs: tuple[str, ...]


def layer(
    theirs: str,
    ours: str,
    is_matrix: bool = True,
    change: Callable[[Tensor], Tensor] = torch.Tensor.detach,
) -> Parts:
    """Weight and bias of a layer, with the same change."""
    yield f"{theirs}.weight", Part(f"{ours}.weight", change, is_matrix)
    yield f"{theirs}.bias", Part(f"{ours}.bias", change)
