"""The pieces of a sequence that a scan computes at once: as many chunks as memory is meant for."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Elements of a temporary tensor. A CPU's stays in its cache; a GPU's is large enough that starting the next
# kernel takes no longer than this one, but at most a sixteenth of the sequence's where that is more.
CPU_ROOM, ROOM = 2**17, 2**22


class Segment(NamedTuple):
    """Tokens that are computed at once.

    Attributes:
        rows: which.
        chunks: in how many chunks, of one size.
    """

    rows: slice
    chunks: int

    def of(self, tokens: Tensor) -> Tensor:
        """Its tokens (B, K, Q, ...) of all (B, L, ...)."""
        return tokens[:, self.rows].unflatten(1, (self.chunks, -1))


def segments(length: int, chunk: int, elements: int, device: torch.device) -> Iterator[Segment]:
    """The segments of a sequence in order; in the last one a single chunk may be short.

    Args:
        length: of the sequence.
        chunk: tokens of a chunk.
        elements: that a temporary tensor has for each token.
        device: that computes.
    """
    room = CPU_ROOM if device.type == "cpu" else max(ROOM, length * elements // 16)
    whole, at_once = length // chunk, max(1, room // (chunk * max(elements, 1)))
    for first in range(0, whole, at_once):
        chunks = min(at_once, whole - first)
        yield Segment(slice(first * chunk, (first + chunks) * chunk), chunks)
    if length % chunk:
        yield Segment(slice(whole * chunk, length), 1)
