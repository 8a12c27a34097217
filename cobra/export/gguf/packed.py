"""Matrices of a picture's program in 8 bits, by ggml's own quantiser."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from cobra.export.gguf.file import Weight
from cobra.export.gguf.ggml import ggml

# ggml's number of q8_0, and the values that have one scale
_Q8_0, _BLOCK = 8, 32


@dataclass(frozen=True)
class PackedWeight(Weight):
    """A matrix in q8_0: zeros fill its rows up to whole blocks."""

    @property
    def shape(self) -> torch.Size:
        """In the file, with the zeros."""
        rows, width = super().shape
        return torch.Size((rows, -(-width // _BLOCK) * _BLOCK))

    @property
    def kind(self) -> int:
        """See `Weight.kind`."""
        return _Q8_0

    @property
    def nbytes(self) -> int:
        """See `Weight.nbytes`."""
        rows, width = self.shape
        return rows * ggml().row_size(_Q8_0, width)

    def data(self) -> memoryview:
        """See `Weight.data`."""
        values = self.read().float()
        rows, width = self.shape
        # the same memory where there is nothing to fill
        values = F.pad(values, (0, width - values.shape[1])).contiguous()
        packed = np.empty(self.nbytes, np.uint8)
        ggml().quantize_chunk(_Q8_0, values.data_ptr(), packed.ctypes.data, 0, rows, width, None)
        return packed.data
